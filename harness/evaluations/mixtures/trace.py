"""An adapter's outputs for a whole stream, before and after each update, kept in the cache."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.base.errors import InputError
from harness.contract.features import FeatureSet
from harness.evaluations.adaptation.passage import predicted
from harness.evaluations.adaptation.tally import Batch, Tally

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from harness.base.cache import Cache, EntryWriter
    from harness.contract.features import Features
    from harness.data.streams import Stream
    from harness.evaluations.adaptation.passage import Passage, Step

BEFORE, AFTER, REFIT, STEPS = "before", "after", "refit", "steps"
OUTPUTS = ("logits", "penultimate")
_FACTS = ("updated", "resets", "forwards", "backwards")  # of a batch, in the columns of STEPS


@dataclass(frozen=True, eq=False)
class Trace:
    """An adapter's outputs for a stream, from the cache."""

    stream: Stream
    arrays: Mapping[str, NDArray[Any]]  # "before/logits" (N, C), ...; "steps" (batches, 5)
    device: str
    train: Stream | None  # the images of "refit/...", in their order

    @property
    def features(self) -> FeatureSet:
        """The outputs that the method's paper scores, in the stream's order, without labels."""
        return self._outputs(AFTER if self.arrays[STEPS][0, len(_FACTS)] else BEFORE, len(self.stream))

    @property
    def refit(self) -> FeatureSet | None:
        """The adapted model's features of labelled training images, after the stream; None without such images."""
        if self.train is None:
            return None
        return self._outputs(REFIT, len(self.train), labels=self.train.labels)

    def metrics(self, mine: NDArray[np.bool_], *, num_outputs: int) -> dict[str, dict[str, float | None]]:
        """Return the numbers of a record on the samples of a mask, (N,); the first part says which classes compete."""
        tally, labels, among = Tally(num_outputs), self.stream.labels, self.stream.parts[0].competing
        scored = AFTER if self.arrays[STEPS][0, len(_FACTS)] else BEFORE
        for positions, facts in zip(self.stream.batches(), self.arrays[STEPS].tolist(), strict=True):
            if not mine[positions].any():
                continue
            classes = {
                side: _most_likely(self.arrays[f"{side}/logits"][positions], among)
                for side in (BEFORE, AFTER)
                if f"{side}/logits" in self.arrays
            }
            numbers = dict(zip(_FACTS, facts, strict=False))
            batch = Batch(
                labels=labels[positions], scored=classes[scored], after=classes.get(AFTER), **numbers
            )
            tally.add(batch, mine[positions])
        return tally.metrics()

    def _outputs(self, side: str, length: int, **more: Any) -> FeatureSet:
        columns = {name: self.arrays[f"{side}/{name}"] for name in OUTPUTS}
        return FeatureSet({**columns, **more, "ids": np.arange(length)}, device=self.device)


def traced(
    begin: Callable[[], Passage],
    stream: Stream,
    cache: Cache,
    key: str,
    *,
    device: str,
    train: Stream | None = None,
) -> Trace:
    """Return an adapter's outputs for a stream, from the cache or by the passage that `begin` begins.

    `train` are labelled images that the adapted model forwards after the stream.

    Raises InputError if the model diverges, and for an adapter without the outputs that scorers read.
    """
    arrays = cache.load(key)
    if arrays is None:
        with cache.writer(key) as writer:
            passage = begin()
            _write(passage, stream, writer)
            if train is not None:
                refit = _Sink(writer, REFIT, len(train))
                for met, found in passage.forward_all(train):
                    refit.put(met.positions, found)
        arrays = cache.load(key)
    if arrays is None:
        raise InputError(
            f"the cache lost the adapter's outputs for {stream.name!r} while writing them. Check its disk"
        )
    return Trace(stream, arrays, device, train)


def _write(passage: Passage, stream: Stream, writer: EntryWriter) -> None:
    facts = writer.array(STEPS, (len(stream.batches()), len(_FACTS) + 1), "<i8")
    sinks = {side: _Sink(writer, side, len(stream)) for side in (BEFORE, AFTER)}
    for number, step in enumerate(passage.run([stream])):
        done = step.adapted
        facts[number] = done.updated, done.reset, done.forwards, done.backwards, done.scored == AFTER
        if facts[number, -1] != facts[0, -1]:
            raise InputError(
                "the adapter scores before on some batches and after on others. Yield one of them always"
            )
        for side, found in _outputs_of(step).items():
            sinks[side].put(step.met.positions, found)


def _outputs_of(step: Step) -> dict[str, Features]:
    """Return the outputs of a step that are kept. Raises InputError if they are not finite."""
    found = {BEFORE: step.before} if step.after is None else {BEFORE: step.before, AFTER: step.after}
    for features in found.values():
        if absent := [name for name in OUTPUTS if name not in features.fields]:
            raise InputError(
                f"the adapter gave no {' and no '.join(absent)}. Scorers read harness.Features with logits and "
                "penultimate"
            )
        predicted(features)
    return found


@dataclass(eq=False)
class _Sink:
    """Writes features of a stream into a cache entry, batch by batch."""

    writer: EntryWriter
    side: str
    length: int

    def __post_init__(self) -> None:
        self._arrays: dict[str, NDArray[Any]] = {}

    def put(self, positions: NDArray[np.int64], found: Features) -> None:
        """Write a batch."""
        for name in OUTPUTS:
            value = getattr(found, name)
            if name not in self._arrays:
                shape = (self.length, *value.shape[1:])
                self._arrays[name] = self.writer.array(f"{self.side}/{name}", shape, "<f4")
            self._arrays[name][positions] = value.detach().float().cpu().numpy()


def _most_likely(logits: NDArray[np.floating], among: NDArray[np.int64] | None) -> NDArray[np.int64]:
    """Return the classes of the largest logits, (n,): of all (n, C), or of the given classes."""
    found: NDArray[np.int64] = (
        logits.argmax(axis=1) if among is None else among[logits[:, among].argmax(axis=1)]
    )
    return found
