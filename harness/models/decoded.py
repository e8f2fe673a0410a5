"""Decodes streams for adapters. All adapters read the same images, so decoded images are cached up to a limit."""

from __future__ import annotations

import copy
import math
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from harness.base import surroundings
from harness.base.travel import Asked
from harness.contract.features import Unlabelled
from harness.models.extract import decoded_batches

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from harness.contract.features import FeatureSet
    from harness.contract.protocols import Classifier
    from harness.data.streams import Stream
    from harness.models.extract import Counts
    from harness.models.loaded import LoadedModel

ROOM = 2**28  # bytes: the limit of the cache of decoded images, for any data


@dataclass(eq=False)
class Decoder:
    """Decodes streams at a model's input size. The most recently used streams stay cached."""

    model: LoadedModel
    counts: Counts
    room: int = ROOM
    _kept: OrderedDict[str, Tensor] = field(default_factory=OrderedDict)  # by digest: (N, channels, H, W)

    def batches(self, stream: Stream) -> Iterator[Tensor]:
        """Yield a stream's images, uint8 (n, channels, H, W): from the cache, or decoded ahead and counted."""
        kept = self._find(stream)
        if kept is not None:
            yield from kept.split(stream.batch_size)  # type: ignore[no-untyped-call]  # torch's own
            return
        fits, found = self._fits(stream), []
        for batch in decoded_batches(self.model, stream):
            self.counts.decoded += len(batch)
            if fits:
                found.append(batch)
            yield batch
        if fits:
            self._keep(stream, found)

    def at(self, stream: Stream, positions: NDArray[np.int64]) -> Tensor:
        """Return the images at positions (n,) of a stream, uint8 (n, channels, H, W); decode them if not cached."""
        import torch

        kept = self._find(stream)
        if kept is None and self._fits(stream):
            for _ in self.batches(stream):
                pass  # this decodes the whole stream and caches it
            kept = self._find(stream)
        if kept is not None:
            return kept[torch.from_numpy(positions)]
        self.counts.decoded += len(positions)
        with surroundings.restored():
            images = stream.images(positions)
        return self.model.model.preprocessing.batch(images)

    def _find(self, stream: Stream) -> Tensor | None:
        if stream.digest in self._kept:
            self._kept.move_to_end(stream.digest)
        return self._kept.get(stream.digest)

    def _fits(self, stream: Stream) -> bool:
        """Return whether the cache has room for the whole stream."""
        return len(stream) * math.prod(self.model.model.preprocessing.input_size) <= self.room

    def _keep(self, stream: Stream, batches: list[Tensor]) -> None:
        import torch

        self._kept[stream.digest] = torch.cat(batches)
        while sum(kept.nbytes for kept in self._kept.values()) > self.room:
            self._kept.popitem(last=False)


@dataclass(frozen=True, eq=False)
class Pixels:
    """The normalised pixels of a stream as rows, (N, channels · H · W), decoded when they are read."""

    decoder: Decoder
    stream: Stream

    def __len__(self) -> int:
        return len(self.stream)

    def __reduce__(self) -> tuple[type[Asked], tuple[int, Callable[..., Any]]]:
        """Travel to a worker process as rows that it asks for."""

        def rows(index: slice | NDArray[np.int64]) -> NDArray[np.float32]:
            return self[index]

        return Asked, (len(self), rows)

    def __getitem__(self, index: slice | NDArray[np.int64]) -> NDArray[np.float32]:
        import numpy as np

        images = self.decoder.at(self.stream, np.arange(len(self))[index])
        normalised: NDArray[np.float32] = self.decoder.model.model.preprocessing.normalise(images).numpy()
        return normalised.reshape(len(images), -1)


def unlabelled(
    decoder: Decoder, stream: Stream, features: FeatureSet, *, seed: int, peer: FeatureSet | None = None
) -> Unlabelled:
    """Combine a stream's features, its images on demand and copies of the model, without labels."""
    model = decoder.model

    def batch(positions: NDArray[np.int64]) -> Tensor:
        images = decoder.at(stream, positions).to(model.device)
        return model.model.preprocessing.normalise(images)

    def classifier() -> Classifier:
        copied: Any = copy.deepcopy(model.model.classifier)
        return copied.eval()  # type: ignore[no-any-return]

    return Unlabelled(features, batch, classifier, peer, seed)
