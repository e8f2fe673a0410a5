"""Opens a suite's datasets: the ID parts, checked to be disjoint, and every set to score against ID test."""

from __future__ import annotations

import itertools
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness.base.errors import DatasetError, HarnessError, describe
from harness.contract.parameters import offer_taking
from harness.contract.selection import Selection
from harness.contract.specs import DatasetRequest, TrainingData
from harness.data.sets import CLEAN, CSID, SetEntry

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from harness.contract.protocols import Catalogue
    from harness.data.tables import IdEntry, Part

DATA_ROOT = "OOD_HARNESS_DATA"
CHECKED_FOR_OVERLAP = 200_000  # samples; above this, reading every image would cost more than scoring it
_TOLERATED_OVERLAP = 0.01  # natural datasets have a few duplicates; more means that two parts overlap


@dataclass(frozen=True, eq=False)
class IdData:
    """The ID parts, as selections with labels 0..C-1."""

    test: Selection
    train: Selection | None
    validation: Selection | None
    num_classes: int

    @property
    def parts(self) -> dict[str, Selection]:
        """The parts for fitting that the suite names, by name: train and validation."""
        named = {"train": self.train, "validation": self.validation}
        return {name: part for name, part in named.items() if part is not None}

    @property
    def offers(self) -> frozenset[str]:
        """The needs that the data satisfy."""
        return frozenset({"labels", *self.parts})

    def digests_of(self, needs: frozenset[str]) -> dict[str, str]:
        """Return the digests of the parts for fitting that are among `needs`."""
        return {name: part.digest for name, part in self.parts.items() if name in needs}

    @property
    def training(self) -> TrainingData | None:
        """The data that a model may be trained on: train and validation, never test; None without train."""
        return TrainingData(self.train, self.validation, self.num_classes) if self.train is not None else None

    def overlaps(self) -> dict[str, int]:
        """Count the images that two parts share, by content: {"train and test": n}. Empty if too large to check."""
        parts = {**self.parts, "test": self.test}
        if sum(len(part) for part in parts.values()) > CHECKED_FOR_OVERLAP:
            return {}
        identities = {name: part.identities() for name, part in parts.items()}
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


def data_root() -> Path | None:
    """Return the folder that OOD_HARNESS_DATA names; None if it is not set."""
    named = os.environ.get(DATA_ROOT)
    return Path(named) if named else None


def calibration_sets(
    validation: Selection, entries: Sequence[SetEntry], registry: Catalogue
) -> list[tuple[str, Selection]]:
    """Open ID validation, clean and under each shift; return pairs (kind of shift, set)."""
    shifted = [(entry.kind, open_shifted(entry, validation, registry)) for entry in entries]
    return [(CLEAN, validation), *shifted]


def open_id(entry: IdEntry, registry: Catalogue) -> IdData:
    """Open the ID parts, renumber their classes, and hold validation out of train if the suite requires it.

    Raises DatasetError for data that is missing, empty, without labels, or of one class only.
    """
    parts = {"test": entry.test, "train": entry.train, "validation": entry.validation}
    whole = {
        name: _open_part(name, entry, part, registry)
        for name, part in parts.items()
        if part is not None and part.holdout is None
    }
    _require_one_numbering(entry, whole)
    num_classes = max(selection.num_classes for selection in whole.values())
    limited = {name: _limited(name, entry, parts[name], selection) for name, selection in whole.items()}
    test, train = limited["test"], limited.get("train")
    validation = limited.get("validation")
    if entry.validation is not None and entry.validation.holdout is not None and train is not None:
        train, validation = train.split(entry.validation.holdout, seed=entry.validation.seed)
        validation = validation.limited(entry.validation.limit, seed=entry.validation.seed)
        for part, selection in (("validation", validation), ("train", train)):
            _require_samples(part, entry.dataset, selection)
    if num_classes < 2:
        raise DatasetError(
            f"the ID dataset {entry.dataset!r} has one class only. A classifier needs two or more"
        )
    return IdData(test, train, validation, num_classes)


def training_data(id_data: IdData, dataset: str) -> TrainingData:
    """Return the ID parts that a model may be trained on: train and validation, never test.

    Raises DatasetError if there is no train part, or if two parts share images.
    """
    data = id_data.training
    if data is None:
        raise DatasetError(f"the ID dataset {dataset!r} has no train part. Add train = {{ split = ... }}")
    id_data.check_disjoint()
    return data


def open_dataset(
    name: str,
    dataset: str,
    registry: Catalogue,
    *,
    split: str | None = None,
    classes: Sequence[int] | None = None,
    limit: int | None = None,
    revision: str | None = None,
    params: Mapping[str, object] | None = None,
) -> Selection:
    """Open a dataset by its name in a plugin; messages call it `name`.

    Raises DatasetError for data that is missing or empty.
    """
    request = DatasetRequest.parse(dataset, split=split, revision=revision, data_root=data_root())
    selection = _open(name, request, params or {}, registry).with_classes(classes).limited(limit)
    _require_samples(name, dataset, selection)
    return selection


def open_set(entry: SetEntry, id_data: IdData, registry: Catalogue) -> Selection:
    """Open one test set.

    Raises DatasetError for data that is missing or empty, and for shifted data without ID's labels.
    """
    request = DatasetRequest.parse(
        entry.dataset,
        split=entry.split,
        revision=entry.revision,
        data_root=data_root(),
        base=id_data.test if entry.shifts_id else None,
    )
    selection = _open(entry.name, request, entry.params, registry)
    selection = selection.with_classes(entry.classes).limited(entry.limit)
    _require_samples(entry.name, entry.dataset, selection)
    if entry.group == CSID and entry.classes is None:
        _require_ids_numbering(entry, selection, id_data)
    if (
        entry.group == CSID
        and not 0 <= selection.labels.min() <= selection.labels.max() < id_data.num_classes
    ):
        raise DatasetError(
            f"the shifted set {entry.name!r} has labels from {selection.labels.min()} to {selection.labels.max()} "
            f"where ID has 0 to {id_data.num_classes - 1}. Give it ID's labels, or list it under [[ood]]"
        )
    return selection


def open_shifted(entry: SetEntry, base: Selection, registry: Catalogue) -> Selection:
    """Apply the shift of a set that is made from ID test to other images, which keep their order and labels."""
    request = DatasetRequest.parse(entry.dataset, data_root=data_root(), base=base)
    shifted = _open(entry.name, request, entry.params, registry)
    return Selection(entry.name, shifted.dataset, shifted.indices, base.labels)


def _open_part(part: str, entry: IdEntry, chosen: Part, registry: Catalogue) -> Selection:
    request = DatasetRequest.parse(
        entry.dataset, split=chosen.split, revision=entry.revision, data_root=data_root()
    )
    selection = _open(f"id-{part}", request, entry.params, registry).with_classes(entry.classes)
    if (selection.labels < 0).any():
        raise DatasetError(
            f"the ID dataset {entry.dataset!r} has samples without a label. Give a labelled dataset"
        )
    return selection


def _limited(name: str, entry: IdEntry, chosen: Part | None, selection: Selection) -> Selection:
    limited = selection if chosen is None else selection.limited(chosen.limit, seed=chosen.seed)
    _require_samples(f"id.{name}", entry.dataset, limited)
    return limited


def _require_one_numbering(entry: IdEntry, parts: Mapping[str, Selection]) -> None:
    """Refuse parts with different class names, such as folders with different subfolders: labels would not agree."""
    names = {name: getattr(part.dataset, "class_names", None) for name, part in parts.items()}
    known = {name: classes for name, classes in names.items() if classes is not None}
    for name, classes in known.items():
        first = next(iter(known))
        if classes != known[first]:
            raise DatasetError(
                f"the ID dataset {entry.dataset!r} has classes {', '.join(known[first])} in {first} and "
                f"{', '.join(classes)} in {name}, so its labels would not agree. Give both the same class folders"
            )


def _require_ids_numbering(entry: SetEntry, selection: Selection, id_data: IdData) -> None:
    """Refuse a shifted set whose class folders differ from those of ID: labels would not agree."""
    mine, known = (getattr(part.dataset, "class_names", None) for part in (selection, id_data.test))
    if mine is not None and known is not None and mine != known:
        unlike = sorted(set(mine) ^ set(known))
        raise DatasetError(
            f"the shifted set {entry.name!r} and ID test do not have the same class folders: {', '.join(unlike[:5])} "
            "in only one of them. Give it ID's folders, or classes"
        )


def _open(name: str, request: DatasetRequest, params: Mapping[str, object], registry: Catalogue) -> Selection:
    offered = offer_taking(registry, "dataset", request.name, params)
    try:
        dataset = offered.spec.build(request, **params)
    except HarnessError:
        raise
    except Exception as error:  # third-party code may raise anything
        raise DatasetError(
            f"the dataset {request.name!r} of plugin {offered.plugin} raised {describe(error)}"
        ) from error
    return Selection.all_of(name, dataset)


def _require_samples(name: str, dataset: str, selection: Selection) -> None:
    if len(selection) == 0:
        raise DatasetError(f"{name} of dataset {dataset!r} is empty. Check its split, classes and limit")
