"""The number of CPU threads: one or all, whichever is faster on this machine now.

A second thread often costs more than it saves. If another process keeps a core busy, the threads wait for one another:
on two such cores, two threads made 1 step per second, and one made 28.
"""

from __future__ import annotations

import os
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
TRIALS = 3  # of each number of threads, after one that is not timed
CLEAR = 2.0  # times as slow: no further trial is needed


def threads_of_user() -> int | None:
    """Return the number of threads that the user has set, by a variable or by torch.set_num_threads; else None."""
    import torch

    current = torch.get_num_threads()
    if any(os.environ.get(name, "").strip() for name in VARIABLES):
        return current
    return None if current in _defaults() else current


@contextmanager
def on_threads(count: int) -> Iterator[None]:
    """Compute on a number of CPU threads; restore the former number afterwards."""
    import torch

    before = torch.get_num_threads()
    if count != before:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        if count != before:
            torch.set_num_threads(before)


@dataclass
class ThreadChoice:
    """Tries one thread and all threads on the first pieces of a work, and keeps the faster number."""

    candidates: tuple[int, ...]
    _seconds: dict[int, list[float]] = field(
        default_factory=dict
    )  # per unit of work, without the first trial
    _tried: int = 0

    @classmethod
    def on(cls, device: str, *, is_small: bool = False) -> ThreadChoice:
        """Open the choice. There is none on a GPU, and none if the user has set a number; small work takes one."""
        import torch

        if (fixed := threads_of_user()) is not None:
            return cls((fixed,))
        count = torch.get_num_threads()
        if is_small:
            return cls((1,))
        return cls((1, count) if device == "cpu" and count > 1 else (count,))

    @property
    def chosen(self) -> int | None:
        """The number of threads; None while it is still being measured."""
        return self.candidates[0] if len(self.candidates) == 1 else None

    @contextmanager
    def turn(self, amount: int = 1) -> Iterator[None]:
        """Do the next piece of the work, of `amount` units, on the number of threads whose turn it is."""
        count = self.chosen or self.candidates[self._tried % len(self.candidates)]
        start = time.perf_counter()
        with on_threads(count):
            yield
        if self.chosen is None:
            self._note(count, (time.perf_counter() - start) / amount)

    def _note(self, count: int, seconds: float) -> None:
        if self._tried >= len(self.candidates):  # the first piece of each pays for its start
            self._seconds.setdefault(count, []).append(seconds)
        self._tried += 1
        if self._tried % len(self.candidates) or not self._seconds:
            return
        total = {count: sum(of_count) for count, of_count in self._seconds.items()}
        fastest = min(total, key=lambda count: total[count])
        is_clear = max(total.values()) >= CLEAR * total[fastest]
        if is_clear or len(self._seconds[fastest]) >= TRIALS:
            self.candidates = (fastest,)


def _defaults() -> set[int]:
    """Return the numbers of threads with which torch starts on this machine: its cores, physical or logical."""
    import joblib  # type: ignore[import-untyped]  # scikit-learn's own

    return {joblib.cpu_count(only_physical_cores=True), joblib.cpu_count(), os.cpu_count() or 1}
