"""One passage of an adapter over one or several streams, with a copy of the model of its own."""

from __future__ import annotations

import copy
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.errors import InputError
from harness.extract import decoded_batches, deterministic
from harness.types import Adapted, Features

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import torch
    from numpy.typing import NDArray
    from torch import Tensor

    from harness.extract import Counts
    from harness.loaded import LoadedModel
    from harness.protocols import Adapter, Classifier
    from harness.streams import Stream


@dataclass
class Tally:
    """What an adapter predicted on one set, and how it went about it.

    `scored` are the predictions that the method's paper scores, `after` those with what was learnt from the very batch.
    """

    labels: list[NDArray[np.int64]] = field(default_factory=list)
    scored: list[NDArray[np.int64]] = field(default_factory=list)
    after: list[NDArray[np.int64]] = field(default_factory=list)
    steps: int = 0
    updated: int = 0
    resets: int = 0
    forwards: int = 0
    backwards: int = 0
    num_outputs: int = 0

    def metrics(self) -> dict[str, dict[str, float | None]]:
        """Return the numbers of a record; intervals come from several streams, not from one."""
        labels, scored = np.concatenate(self.labels), np.concatenate(self.scored)
        counts = np.bincount(scored, minlength=self.num_outputs)
        shares = counts[counts > 0] / len(scored)
        values = {
            "error": float(np.mean(scored != labels)),
            "updated": self.updated / self.steps,
            "resets": float(self.resets),
            "class_entropy": float(-(shares * np.log(shares)).sum() / np.log(self.num_outputs)),
            "forwards": self.forwards / len(labels),
            "backwards": self.backwards / len(labels),
        }
        if self.after:
            values["error_after"] = float(np.mean(np.concatenate(self.after) != labels))
        return {name: {"value": value, "lo": None, "hi": None} for name, value in values.items()}


@dataclass(frozen=True)
class _Met:
    """A batch that the adapter took and has not answered yet."""

    stream: Stream
    positions: NDArray[np.int64]
    labels: NDArray[np.int64]
    images: Tensor


class Passage:
    """An adapter that meets streams in their order, and what is left of the model afterwards."""

    def __init__(self, loaded: LoadedModel, adapter: Adapter, *, counts: Counts, after: bool) -> None:
        self.classifier: Classifier = copy.deepcopy(loaded.model.classifier)
        self._loaded, self._adapter, self._counts, self._after = loaded, adapter, counts, after
        self._waiting: deque[_Met] = deque()
        module: Any = self.classifier
        module.eval()

    def run(self, streams: Sequence[Stream]) -> Iterator[tuple[Stream, dict[int, Tally]]]:
        """Yield, when a stream has ended, what happened on each of its parts, by the part's number.

        Raises InputError where the model diverges, and where the adapter does not answer each batch once.
        """
        ends = {id(stream): len(stream) for stream in streams}
        tallies: dict[int, Tally] = {}
        with deterministic():
            for adapted in self._adapter.adapt(self.classifier, self._batches(streams)):
                met = self._next(adapted)
                self._count(met, adapted, tallies)
                ends[id(met.stream)] -= len(met.positions)
                if not ends[id(met.stream)]:
                    yield met.stream, tallies
                    tallies = {}
        if left := len(self._waiting) + sum(count > 0 for count in ends.values()):
            raise InputError(
                f"the adapter left {left} batches or streams without an answer. Yield one a batch"
            )

    def forward_all(self, stream: Stream) -> float:
        """Forward a stream through what is left of the model, without learning, and return its error."""
        wrong = 0
        with deterministic():
            for met in self._met(stream):
                wrong += int((_predicted(self._forward(met.images)) != met.labels).sum())
        return wrong / len(stream)

    def _batches(self, streams: Sequence[Stream]) -> Iterator[Tensor]:
        for stream in streams:
            for met in self._met(stream):
                self._waiting.append(met)
                yield met.images

    def _met(self, stream: Stream) -> Iterator[_Met]:
        """Decode ahead, count, and normalise on the model's device."""
        model, labels = self._loaded, stream.labels
        for positions, batch in zip(stream.batches(), decoded_batches(model, stream), strict=True):
            self._counts.decoded += len(batch)
            images = model.model.preprocessing.normalise(batch.to(model.device, non_blocking=True))
            yield _Met(stream, positions, labels[positions], images)

    def _next(self, adapted: object) -> _Met:
        if not isinstance(adapted, Adapted):
            raise InputError(f"the adapter gave a {type(adapted).__name__}. Yield harness.Adapted")
        if not self._waiting:
            raise InputError("the adapter gave more than one answer a batch. Yield one a batch")
        met = self._waiting.popleft()
        if len(adapted.before) != len(met.positions):
            raise InputError(
                f"the adapter gave {len(adapted.before)} predictions for {len(met.positions)} images. Yield one each"
            )
        return met

    def _count(self, met: _Met, adapted: Adapted, tallies: dict[int, Tally]) -> None:
        after = adapted.after
        if after is None and (self._after or adapted.scored == "after"):
            after = self._forward(met.images)
        scored = after if adapted.scored == "after" and after is not None else adapted.before
        of_scored, of_after = _predicted(scored), None if after is None else _predicted(after)
        labels, origins = met.labels, met.stream.origin[met.positions]
        self._counts.forwarded += len(labels)
        for part in np.unique(origins).tolist():
            mine = origins == part
            tally = tallies.setdefault(part, Tally(num_outputs=self._loaded.model.num_classes))
            tally.labels.append(labels[mine])
            tally.scored.append(of_scored[mine])
            if of_after is not None:
                tally.after.append(of_after[mine])
            share = float(mine.mean())
            tally.steps += 1
            tally.updated += adapted.updated
            tally.resets += adapted.reset
            tally.forwards += round(adapted.forwards * share)
            tally.backwards += round(adapted.backwards * share)

    def _forward(self, images: Tensor) -> Features:
        import torch

        with torch.no_grad():
            maps = self.classifier.forward_features(images)
            return Features(logits=self.classifier.forward_head(maps))


def _predicted(features: Features) -> NDArray[np.int64]:
    """Return the largest logits' classes, (n,). Raises InputError for what is not finite: the model has diverged."""
    logits: torch.Tensor = features.logits
    if not bool(logits.isfinite().all()):
        raise InputError("the logits are no longer finite: the model has diverged. Lower the adapter's lr")
    classes: NDArray[np.int64] = logits.argmax(dim=1).cpu().numpy()
    return classes
