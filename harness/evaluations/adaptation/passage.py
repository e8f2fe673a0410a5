"""One passage of an adapter over one or several streams, with its own copy of the model."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from harness.base.errors import InputError
from harness.base.seeding import repeatable_kernels
from harness.contract.features import Adapted
from harness.contract.scores import as_count

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import Tensor

    from harness.contract.features import Features
    from harness.data.streams import Stream
    from harness.evaluations.adaptation.learner import Learns
    from harness.models.decoded import Decoder


@dataclass(frozen=True, eq=False)
class Met:
    """A batch of a stream, as the adapter sees it."""

    stream: Stream
    positions: NDArray[np.int64]  # (n,) in the stream
    labels: NDArray[np.int64]  # (n,)
    images: Tensor


@dataclass(frozen=True, eq=False)
class Step:
    """A batch, and the adapter's outputs for it."""

    met: Met
    adapted: Adapted
    before: Features
    after: Features | None  # after learning from this batch; None if nobody asked
    scored: Features  # the one of the two that the method's paper scores


class Passage:
    """An adapter on streams in their order, and the adapted model afterwards."""

    def __init__(self, learner: Learns, decoder: Decoder, *, after: bool) -> None:
        self._loaded, self._counts = decoder.model, decoder.counts
        self._learner, self._decoder, self._after = learner, decoder, after
        self._waiting: deque[Met] = deque()

    def run(self, streams: Sequence[Stream]) -> Iterator[Step]:
        """Yield the adapter's outputs for each batch, in the streams' order.

        Raises InputError if the model diverges, and if the adapter does not answer each batch once.
        """
        left = sum(len(stream.batches()) for stream in streams)
        with repeatable_kernels():
            for adapted in self._adapted(streams):
                answer = _checked(adapted)
                step = self._step(self._next(answer), answer)
                self._counts.forwarded += len(step.met.positions)
                left -= 1
                yield step
        if left:
            raise InputError(f"the adapter left {left} batches without an answer. Yield one per batch")

    def _adapted(self, streams: Sequence[Stream]) -> Iterator[Adapted]:
        """Yield the adapter's answers. Each is computed on the model's number of threads."""
        answers = self._learner.learn(self._batches(streams))
        size = max((stream.batch_size for stream in streams), default=1)
        while True:
            with self._loaded.pace.on_chosen_threads(size):
                try:
                    answer = next(answers)
                except StopIteration:
                    return
            yield answer

    def forward_all(self, stream: Stream) -> Iterator[tuple[Met, Features]]:
        """Forward a stream through the adapted model, without learning."""
        with repeatable_kernels():
            for met in self._met(stream):
                yield met, self._forward(met.images)

    def _batches(self, streams: Sequence[Stream]) -> Iterator[Tensor]:
        for stream in streams:
            for met in self._met(stream):
                self._waiting.append(met)
                yield met.images

    def _met(self, stream: Stream) -> Iterator[Met]:
        """Decode, and normalise on the model's device."""
        model, labels = self._loaded, stream.labels
        for positions, batch in zip(stream.batches(), self._decoder.batches(stream), strict=True):
            images = model.model.preprocessing.normalise(batch.to(model.device, non_blocking=True))
            yield Met(stream, positions, labels[positions], images)

    def _next(self, adapted: Adapted) -> Met:
        if not self._waiting:
            raise InputError("the adapter gave more than one answer per batch. Yield one per batch")
        met = self._waiting.popleft()
        if len(adapted.before) != len(met.positions):
            raise InputError(
                f"the adapter gave {len(adapted.before)} predictions for {len(met.positions)} images. "
                "Yield one per image"
            )
        return met

    def _step(self, met: Met, adapted: Adapted) -> Step:
        after = adapted.after
        if after is None and (self._after or adapted.scored == "after"):
            after = self._forward(met.images)
        scored = after if adapted.scored == "after" and after is not None else adapted.before
        return Step(met, adapted, adapted.before, after, scored)

    def _forward(self, images: Tensor) -> Features:
        with self._loaded.pace.on_chosen_threads(len(images)):
            return self._learner.forward(images)


def _checked(found: object) -> Adapted:
    """Return an adapter's answer with plain numbers. Raises InputError for what is none."""
    if not isinstance(found, Adapted):
        raise InputError(f"the adapter gave a {type(found).__name__}. Yield harness.Adapted")
    return replace(
        found,
        updated=bool(found.updated),
        reset=bool(found.reset),
        forwards=as_count(found.forwards, "forwards"),
        backwards=as_count(found.backwards, "backwards"),
    )


def predicted(features: Features, among: NDArray[np.int64] | None = None) -> NDArray[np.int64]:
    """Return the largest logits' classes, (n,), among all or the given ones.

    Raises InputError if logits are not finite: the model has diverged.
    """
    logits: torch.Tensor = features.logits
    if not bool(logits.isfinite().all()):
        raise InputError("the logits are no longer finite: the model has diverged. Lower the adapter's lr")
    if among is None:
        found: NDArray[np.int64] = logits.argmax(dim=1).cpu().numpy()
        return found
    chosen: NDArray[np.int64] = among[logits[:, among].argmax(dim=1).cpu().numpy()]
    return chosen
