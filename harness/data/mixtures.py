"""Builds streams that mix ID, shifted ID and OOD, for adapters and transductive scorers.

A method that sees several samples at once could infer the answer if they all came from one dataset.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from harness.base.errors import InputError
from harness.contract.selection import Selection
from harness.data.opening import open_shifted
from harness.data.streams import Stream

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from harness.contract.protocols import Catalogue
    from harness.data.sets import SetEntry


@dataclass(frozen=True)
class Mixture:
    """The composition of a stream: shares, OOD set, and the shift that is applied to both ID and OOD."""

    shares: tuple[float, float, float]  # of ID, shifted ID and OOD
    ood: SetEntry
    shift: SetEntry | None  # None if nothing is shifted

    @property
    def name(self) -> str:
        """The name of its set on a leaderboard."""
        return self.ood.name if self.shift is None else f"{self.ood.name}+{self.shift.name}"

    @property
    def percent(self) -> str:
        """The shares of ID, shifted ID and OOD in percent: "45/45/10"."""
        return "/".join(f"{100 * share:g}" for share in self.shares)


@dataclass(frozen=True, eq=False)
class OpenStream:
    """A stream, and a mask (N,) of its OOD samples."""

    stream: Stream
    is_ood: NDArray[np.bool_]


@dataclass(frozen=True)
class Mixer:
    """Draws samples of ID test and of an OOD set, shifts some of both, and shuffles them together, with one seed."""

    id_test: Selection
    registry: Catalogue
    batch_size: int
    size: int  # maximum number of images in a stream

    def counts(self, mixture: Mixture, available: int) -> tuple[int, int, int]:
        """Count the ID, shifted ID and OOD samples of a stream, if `available` OOD samples exist.

        A stream holds `size` images, or fewer if there are not enough samples; the shares stay the same. Raises
        InputError if a positive share gives no sample.
        """
        of_id, of_csid, of_ood = mixture.shares
        room = min(len(self.id_test) / (of_id + of_csid), available / of_ood)
        total = int(min(room, self.size))
        csid, ood = round(total * of_csid), round(total * of_ood)
        found = total - csid - ood, csid, ood
        for count, share, what in zip(found, mixture.shares, ("ID", "shifted ID", "OOD"), strict=True):
            if share and not count:
                raise InputError(
                    f"a stream of {total} images has no {what} at a share of {share:g}. Give a larger size"
                )
        return found

    def streams(
        self, mixture: Mixture, outliers: Selection, *, seed: int, separate: bool
    ) -> list[OpenStream]:
        """Build the stream of a mixture; if `separate`, build two: first that of ID, then that of OOD.

        The same proportion of ID and OOD samples is shifted. No sample occurs twice.
        """
        rng = np.random.default_rng(seed)
        clean, shifted, ood = self.counts(mixture, len(outliers))
        ids = self.id_test.take(rng.permutation(len(self.id_test))[: clean + shifted])
        unlabelled = Selection(
            outliers.name, outliers.dataset, outliers.indices, np.full(len(outliers), -1, dtype=np.int64)
        )
        oods = unlabelled.take(rng.permutation(len(outliers))[:ood])
        ood_clean = ood - round(ood * shifted / (clean + shifted))
        sides = self._parts(ids, clean, mixture), self._parts(oods, ood_clean, mixture)
        if not separate:
            stream = Stream.mixed([*sides[0], *sides[1]], batch_size=self.batch_size, seed=seed)
            return [OpenStream(stream, stream.origin >= len(sides[0]))]
        apart = [Stream.mixed(parts, batch_size=self.batch_size, seed=seed) for parts in sides]
        return [OpenStream(stream, np.full(len(stream), number == 1)) for number, stream in enumerate(apart)]

    def _parts(self, samples: Selection, clean: int, mixture: Mixture) -> list[Selection]:
        """Leave the first `clean` samples unchanged, and apply the shift to the others."""
        parts = [samples.take(np.arange(clean))] if clean else []
        if clean < len(samples) and mixture.shift is not None:
            rest = samples.take(np.arange(clean, len(samples)))
            parts.append(open_shifted(mixture.shift, rest, self.registry))
        return parts
