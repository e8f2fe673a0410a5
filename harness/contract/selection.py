"""A selection of samples from a dataset, with their order and labels."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from harness.base.errors import DatasetError
from harness.contract.protocols import BatchedImages

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from harness.contract.protocols import ImageDataset


@dataclass(frozen=True, eq=False)
class Selection:
    """Selected samples of a dataset, in order, with the labels that the suite gives them."""

    name: str
    dataset: ImageDataset
    indices: NDArray[np.int64]  # (N,) positions in the dataset
    labels: NDArray[np.int64]  # (N,) classes 0..C-1; -1 for no label

    @classmethod
    def all_of(cls, name: str, dataset: ImageDataset) -> Selection:
        """Select every sample with its own label."""
        if len(dataset) == 0:
            raise DatasetError(f"the dataset {name!r} is empty. Check its split, folder or limit")
        return cls(name, dataset, np.arange(len(dataset)), np.asarray(dataset.labels, dtype=np.int64))

    def with_classes(self, classes: Sequence[int] | None) -> Selection:
        """Keep the given classes, renumbered 0, 1, ... in the given order; None keeps all classes and labels."""
        if classes is None:
            return self
        present = set(np.unique(self.labels).tolist()) - {-1}
        absent = sorted(set(classes) - present)
        if absent:
            raise DatasetError(
                f"the dataset {self.name!r} has no samples of classes {absent}. Classes present: {sorted(present)}"
            )
        renumbered = np.full(max(present | set(classes)) + 1, -1, dtype=np.int64)
        renumbered[list(classes)] = np.arange(len(classes))
        kept = np.flatnonzero(np.isin(self.labels, list(classes)))
        return Selection(self.name, self.dataset, self.indices[kept], renumbered[self.labels[kept]])

    def limited(self, limit: int | None, *, seed: int = 0) -> Selection:
        """Keep at most `limit` samples, drawn with the seed, in their original order."""
        if limit is None or limit >= len(self):
            return self
        chosen = np.random.default_rng(seed).choice(len(self), size=limit, replace=False)
        return self.take(np.sort(chosen))

    def split(self, share: float, *, seed: int) -> tuple[Selection, Selection]:
        """Split off a random share of each class; return (rest, share), which have no sample in common."""
        rng = np.random.default_rng(seed)
        held: list[NDArray[np.int64]] = []
        for label in np.unique(self.labels):
            members = np.flatnonzero(self.labels == label)
            held.append(rng.permutation(members)[: round(share * len(members))])
        held_out = np.zeros(len(self), dtype=bool)
        held_out[np.concatenate(held)] = True
        return self.take(np.flatnonzero(~held_out)), self.take(np.flatnonzero(held_out))

    def take(self, positions: NDArray[np.int64]) -> Selection:
        """Select by position within this selection."""
        return Selection(self.name, self.dataset, self.indices[positions], self.labels[positions])

    def images(self, positions: Sequence[int] | NDArray[np.int64]) -> list[NDArray[np.uint8]]:
        """Decode the images at the given positions within this selection."""
        indices = self.indices[np.asarray(positions)].tolist()
        if isinstance(self.dataset, BatchedImages):
            return self.dataset.images_at(indices)
        return [self.dataset[index] for index in indices]

    @property
    def num_classes(self) -> int:
        """The number of classes, C: one more than the highest label; 0 without labels."""
        return int(self.labels.max(initial=-1)) + 1

    @cached_property
    def digest(self) -> str:
        """Digest of the dataset's content, the selected samples and their labels."""
        digest = hashlib.blake2b(self.dataset.digest.encode(), digest_size=16)
        digest.update(np.ascontiguousarray(self.indices, dtype="<i8").tobytes())
        digest.update(np.ascontiguousarray(self.labels, dtype="<i8").tobytes())
        return digest.hexdigest()

    def identities(self) -> set[bytes]:
        """Return the content hashes of the selected samples."""
        return {
            hashlib.blake2b(self.dataset.identity(int(index)), digest_size=16).digest()
            for index in self.indices
        }

    def __len__(self) -> int:
        return len(self.indices)
