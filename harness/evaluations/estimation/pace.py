"""How much of the work of the command `estimate` is done, and how long the rest takes."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.base.progress import progress_bar

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.engine.plan import Planned

_SHARED = 1.0  # passes for the decoding, shifting and features of a set, which the first that sees it pays
_READING = 0.1  # passes for an estimator that only reads features


@dataclass(eq=False)
class Pace:
    """Counts the sets that estimators see, each weighted by the passes that its estimator declares."""

    estimators: Sequence[Planned]
    sets: Sequence[int]  # of each estimator, at most
    enabled: bool = False

    def __post_init__(self) -> None:
        self._weights = [_READING + one.offered.spec.passes for one in self.estimators]
        self._weights[list(self.sets).index(max(self.sets))] += _SHARED  # the first curve
        works = [weight * count for weight, count in zip(self._weights, self.sets, strict=True)]
        self._ends = [sum(works[: number + 1]) for number in range(len(works))]
        self._bar: Any = progress_bar(
            total=self._ends[-1], description="estimate", unit="pass", enabled=self.enabled, steady=True
        )
        self._done, self._started = 0.0, time.monotonic()

    def __enter__(self) -> Pace:
        """Show the bar."""
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the bar."""
        self._bar.close()

    def step(self, one: Planned) -> None:
        """Count a set that an estimator has seen."""
        self._advance(self._done + self._weights[self._place(one)])

    def finish(self, one: Planned) -> None:
        """Count all of an estimator's work, some of which it may not have needed."""
        self._advance(self._ends[self._place(one)])

    @property
    def seconds_left(self) -> float:
        """The time that the rest takes at the mean rate so far; 0 at the end."""
        rest = self._ends[-1] - self._done
        return rest * (time.monotonic() - self._started) / self._done if self._done else 0.0

    def _place(self, one: Planned) -> int:
        return list(self.estimators).index(one)

    def _advance(self, done: float) -> None:
        self._bar.update(done - self._done)
        self._done = done
