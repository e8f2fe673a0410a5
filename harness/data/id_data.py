"""The ID parts of a suite: what they offer for fitting and training, and the images that they share."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.base.errors import DatasetError
from harness.contract.specs import TrainingData
from harness.data.classes import DataClasses

if TYPE_CHECKING:
    from harness.contract.selection import Selection

CHECKED_FOR_OVERLAP = 200_000  # samples; above this, reading every image would cost more than scoring it
_TOLERATED_OVERLAP = 0.01  # natural datasets have a few duplicates; more means that two parts overlap


@dataclass(frozen=True, eq=False)
class IdData:
    """The ID parts, as selections with labels 0..C-1; all labels are -1 and C is 0 if the data have none."""

    test: Selection
    train: Selection | None
    validation: Selection | None
    num_classes: int
    class_names: tuple[str, ...] | None = None  # by label, if they are known
    classes_are_chosen: bool = False  # the suite keeps some classes, so that labels are not the dataset's own
    holds_out_of_train: bool = False  # validation is a part of train that the suite holds out

    @property
    def parts(self) -> dict[str, Selection]:
        """The parts for fitting that the suite names, by name: train and validation."""
        named = {"train": self.train, "validation": self.validation}
        return {name: part for name, part in named.items() if part is not None}

    @property
    def offers(self) -> frozenset[str]:
        """The needs that the data satisfy."""
        return frozenset({*(["labels"] if self.is_labelled else []), *self.parts})

    @property
    def classes(self) -> DataClasses:
        """Its classes, as models are matched to them."""
        return DataClasses(self.num_classes, self.class_names, self.classes_are_chosen)

    @property
    def is_labelled(self) -> bool:
        """Whether the data have classes, so that accuracy can be measured."""
        return self.num_classes > 0

    def digests_of(self, needs: frozenset[str]) -> dict[str, str]:
        """Return the digests of the parts for fitting that are among `needs`."""
        return {name: part.digest for name, part in self.parts.items() if name in needs}

    @property
    def training(self) -> TrainingData | None:
        """The data that a model may be trained on: train and validation, never test; None without train."""
        if self.train is None or not self.is_labelled:
            return None
        return TrainingData(self.train, self.validation, self.num_classes, self.class_names)

    def has_trained(self, trained_on: str) -> bool | None:
        """Whether a model of the given training digest has seen validation; None if there is no validation part.

        A model that was trained elsewhere has, for all that is known, seen what the suite holds out of train.
        """
        if self.validation is None:
            return None
        return self.holds_out_of_train and (self.train is None or trained_on != self.train.digest)

    def is_comparable(self, selection: Selection) -> bool:
        """Whether a set and all ID parts are together small enough to compare their images."""
        parts = {**self.parts, "test": self.test}
        return len(selection) + sum(len(part) for part in parts.values()) <= CHECKED_FOR_OVERLAP

    def shared_with(self, name: str, selection: Selection) -> dict[str, int]:
        """Count the images of a set that are also in an ID part, by content: {"near and train": n}, without zeros."""
        parts = {**self.parts, "test": self.test}
        counts = {part: len(selection.identities & of.identities) for part, of in parts.items()}
        return {f"{name} and {part}": count for part, count in counts.items() if count}

    def overlaps(self) -> dict[str, int]:
        """Count the images that two parts share, by content: {"train and test": n}. Empty if too large to check."""
        parts = {**self.parts, "test": self.test}
        if sum(len(part) for part in parts.values()) > CHECKED_FOR_OVERLAP:
            return {}
        identities = {name: part.identities for name, part in parts.items()}
        return {
            f"{one} and {other}": len(identities[one] & identities[other])
            for one, other in itertools.combinations(identities, 2)
        }

    def check_disjoint(self) -> dict[str, int]:
        """Raise DatasetError if two parts share more than 1 % of the smaller one; return the counts."""
        overlaps = self.overlaps()
        parts = {**self.parts, "test": self.test}
        for pair, count in overlaps.items():
            smaller = min(len(parts[name]) for name in pair.split(" and "))
            if count > _TOLERATED_OVERLAP * smaller:
                raise DatasetError(
                    f"ID {pair} share {count} images, the smaller has {smaller}. Give them disjoint splits, "
                    "or validation = { holdout = 0.1 }"
                )
        return overlaps
