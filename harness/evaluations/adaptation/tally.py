"""An adapter's predictions on each part of a stream, and its work, as the numbers of a record."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from harness.evaluations.adaptation.passage import predicted

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

    from harness.data.streams import Stream
    from harness.evaluations.adaptation.passage import Passage, Step


@dataclass(frozen=True, eq=False)
class Batch:
    """The classes of a batch, (n,) each, and the adapter's work on it."""

    labels: NDArray[np.int64]
    scored: NDArray[np.int64]
    after: NDArray[np.int64] | None
    updated: int
    resets: int
    forwards: int
    backwards: int

    @classmethod
    def of(cls, step: Step, among: NDArray[np.int64] | None) -> Batch:
        """Predict from a step's outputs, among the given classes or all. Raises InputError if they are not finite."""
        scored, done = predicted(step.scored, among), step.adapted
        after = None if step.after is None else predicted(step.after, among)
        return cls(step.met.labels, scored, after, done.updated, done.reset, done.forwards, done.backwards)


@dataclass
class Tally:
    """An adapter's predictions on one set, and its work.

    `scored` are the predictions that the method's paper scores, `after` those made after learning from the same batch.
    """

    num_outputs: int
    labels: list[NDArray[np.int64]] = field(default_factory=list)
    scored: list[NDArray[np.int64]] = field(default_factory=list)
    after: list[NDArray[np.int64]] = field(default_factory=list)
    steps: int = 0
    updated: int = 0
    resets: int = 0
    forwards: int = 0
    backwards: int = 0

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

    def add(self, batch: Batch, mine: NDArray[np.bool_]) -> None:
        """Count the samples of a batch that belong to this set, and their share of its work."""
        self.labels.append(batch.labels[mine])
        self.scored.append(batch.scored[mine])
        if batch.after is not None:
            self.after.append(batch.after[mine])
        share = float(mine.mean())
        self.steps += 1
        self.updated += batch.updated
        self.resets += batch.resets
        self.forwards += round(batch.forwards * share)
        self.backwards += round(batch.backwards * share)


def tallied(steps: Iterable[Step], *, num_outputs: int) -> Iterator[tuple[Stream, dict[int, Tally]]]:
    """Yield at the end of each stream the tallies of its parts, by the part's number."""
    tallies: dict[int, Tally] = {}
    met = 0
    for step in steps:
        stream = step.met.stream
        origins = stream.origin[step.met.positions]
        batches: dict[bytes | None, Batch] = {}  # by the classes that compete
        for part in np.unique(origins).tolist():
            among = stream.parts[part].competing
            key = None if among is None else among.tobytes()
            if key not in batches:
                batches[key] = Batch.of(step, among)
            tallies.setdefault(part, Tally(num_outputs)).add(batches[key], origins == part)
        met += len(origins)
        if met == len(stream):
            yield stream, tallies
            tallies, met = {}, 0


def error_of(passage: Passage, stream: Stream) -> float:
    """Return the adapted model's error on a stream of one part, without learning."""
    among = stream.parts[0].competing
    wrong = sum(
        int((predicted(found, among) != met.labels).sum()) for met, found in passage.forward_all(stream)
    )
    return wrong / len(stream)
