"""An ordered, seeded sequence of samples from one or more datasets, in batches: the unit of feature extraction."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from harness.base.digests import array_digest, digest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from harness.contract.selection import Selection


@dataclass(frozen=True, eq=False)
class Stream:
    """Samples in the order in which a model receives them."""

    name: str
    parts: tuple[Selection, ...]
    batch_size: int
    origin: NDArray[np.int64]  # (N,) the index of the part that each sample comes from
    position: NDArray[np.int64]  # (N,) its position within that part

    @classmethod
    def of(cls, selection: Selection, *, batch_size: int) -> Stream:
        """Stream one selection in its own order."""
        n = len(selection)
        return cls(selection.name, (selection,), batch_size, np.zeros(n, dtype=np.int64), np.arange(n))

    @classmethod
    def mixed(cls, selections: Sequence[Selection], *, batch_size: int, seed: int) -> Stream:
        """Stream all samples of several selections, shuffled together with the seed."""
        origin = np.repeat(np.arange(len(selections)), [len(part) for part in selections])
        position = np.concatenate([np.arange(len(part)) for part in selections])
        order = np.random.default_rng(seed).permutation(len(origin))
        name = "+".join(part.name for part in selections)
        return cls(name, tuple(selections), batch_size, origin[order], position[order])

    @classmethod
    def correlated(cls, selection: Selection, *, batch_size: int, concentration: float, seed: int) -> Stream:
        """Stream one selection with labels that are correlated in time (Gong et al., NOTE, NeurIPS 2022).

        The stream has as many segments as classes. A draw from the Dirichlet distribution spreads each class over the
        segments; within a segment, each class is one run. The smaller the concentration, the longer the runs.
        """
        rng = np.random.default_rng(seed)
        classes = np.unique(selection.labels)
        runs: list[list[NDArray[np.int64]]] = [[] for _ in classes]
        for label in classes:
            members = rng.permutation(np.flatnonzero(selection.labels == label))
            shares = rng.dirichlet(np.full(len(classes), concentration))
            cuts = np.rint(np.cumsum(shares)[:-1] * len(members)).astype(np.int64)
            for stretch, run in zip(runs, np.split(members, cuts), strict=True):
                stretch.append(run)
        order = np.concatenate([stretch[i] for stretch in runs for i in rng.permutation(len(stretch))])
        return cls(selection.name, (selection,), batch_size, np.zeros(len(order), dtype=np.int64), order)

    @cached_property
    def digest(self) -> str:
        """Digest of the selections, the order and the batch size."""
        order = np.stack([self.origin, self.position])
        return digest([part.digest for part in self.parts], array_digest(order), self.batch_size)

    @property
    def labels(self) -> NDArray[np.int64]:
        """Classes in the order of the stream, (N,); -1 for no label."""
        labels = np.empty(len(self), dtype=np.int64)
        for number, part in enumerate(self.parts):
            mine = self.origin == number
            labels[mine] = part.labels[self.position[mine]]
        return labels

    def batches(self) -> list[NDArray[np.int64]]:
        """Return the stream's positions, split into batches."""
        return np.split(np.arange(len(self)), range(self.batch_size, len(self), self.batch_size))

    def images(self, positions: NDArray[np.int64]) -> list[NDArray[np.uint8]]:
        """Decode the images at the given positions of the stream, in that order; each part is read in one call."""
        origins = self.origin[positions]
        found: dict[int, NDArray[np.uint8]] = {}
        for part in np.unique(origins).tolist():
            mine = np.flatnonzero(origins == part)
            images = self.parts[part].images(self.position[positions[mine]])
            found |= dict(zip(mine.tolist(), images, strict=True))
        return [found[number] for number in range(len(positions))]

    def __len__(self) -> int:
        return len(self.origin)
