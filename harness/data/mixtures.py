"""Makes the streams in which ID, shifted ID and OOD come together, for adapters to meet.

Samples of one dataset by themselves would give the answer away to whatever looks at more than one of them at a time.
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
    """What ID, OOD and the shift that both carry come together as, for adapters to meet."""

    shares: tuple[float, float, float]  # of ID, shifted ID and OOD
    ood: SetEntry
    shift: SetEntry | None  # None where nothing is shifted

    @property
    def name(self) -> str:
        """Its name among the sets of a leaderboard."""
        return self.ood.name if self.shift is None else f"{self.ood.name}+{self.shift.name}"

    @property
    def percent(self) -> str:
        """The shares as "45/45/10": per cent of ID, shifted ID and OOD."""
        return "/".join(f"{100 * share:g}" for share in self.shares)


@dataclass(frozen=True, eq=False)
class OpenStream:
    """A stream, and which of its samples are OOD, (N,)."""

    stream: Stream
    is_ood: NDArray[np.bool_]


@dataclass(frozen=True)
class Mixer:
    """Draws samples of ID test and of an OOD set, puts a shift on them, and shuffles them together, all by one seed."""

    id_test: Selection
    registry: Catalogue
    batch_size: int
    size: int  # images in a stream, at most

    def counts(self, mixture: Mixture, available: int) -> tuple[int, int, int]:
        """Count ID, shifted ID and OOD samples of a stream, where so many OOD samples are available.

        A stream holds `size` images, or as many as there are if these are fewer, so that the shares stay what they are.

        Raises InputError where a share comes to nothing.
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
        """Make the one stream of a mixture; two, ID's and then OOD's, where they are to be kept separate.

        As many of the OOD samples carry the shift, in proportion, as of the ID samples; no sample comes twice.
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
        """Leave the first samples as they are, and put the shift on the others."""
        parts = [samples.take(np.arange(clean))] if clean else []
        if clean < len(samples) and mixture.shift is not None:
            rest = samples.take(np.arange(clean, len(samples)))
            parts.append(open_shifted(mixture.shift, rest, self.registry))
        return parts
