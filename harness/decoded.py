"""Decodes streams for adapters, which meet the same images one after another, and keeps what there is room for."""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from harness.extract import decoded_batches

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from harness.extract import Counts
    from harness.loaded import LoadedModel
    from harness.streams import Stream

ROOM = 2**28  # bytes of decoded images that are kept, whatever the data


@dataclass(eq=False)
class Decoder:
    """Decoded batches of streams, at a model's size; those used last are kept."""

    model: LoadedModel
    counts: Counts
    room: int = ROOM
    _kept: OrderedDict[str, list[Tensor]] = field(default_factory=OrderedDict)

    def batches(self, stream: Stream) -> Iterator[Tensor]:
        """Yield a stream's images, uint8 (n, channels, H, W): as they are kept, or decoded ahead, and counted."""
        key = stream.digest
        if key in self._kept:
            self._kept.move_to_end(key)
            yield from self._kept[key]
            return
        found: list[Tensor] | None = []
        size = 0
        for batch in decoded_batches(self.model, stream):
            self.counts.decoded += len(batch)
            size += batch.nbytes
            if found is not None and size <= self.room:
                found.append(batch)
            else:
                found = None  # too large to be kept: let go of it at once
            yield batch
        if found is not None:
            self._keep(key, found)

    def at(self, stream: Stream, positions: NDArray[np.int64]) -> Tensor:
        """Return the images at positions (n,) of a stream, uint8 (n, channels, H, W); decode what is not kept."""
        import torch

        kept = self._kept.get(stream.digest)
        if kept is None and self._fits(stream):
            kept = list(self.batches(stream))
        if kept is None:
            self.counts.decoded += len(positions)
            return self.model.model.preprocessing.batch(stream.images(positions))
        self._kept.move_to_end(stream.digest)
        return torch.cat(kept)[torch.from_numpy(positions)]

    def _fits(self, stream: Stream) -> bool:
        """Say whether a stream can be kept whole."""
        return len(stream) * math.prod(self.model.model.preprocessing.input_size) <= self.room

    def _keep(self, key: str, batches: list[Tensor]) -> None:
        self._kept[key] = batches
        while sum(batch.nbytes for of_stream in self._kept.values() for batch in of_stream) > self.room:
            self._kept.popitem(last=False)
