"""The costs of a run's work: seconds, memory and passes."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from harness.base.memory import peak_memory

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass
class Clock:
    """Seconds, memory, forwards and backwards by stage, scorer and set."""

    device: str = "cpu"
    seconds: dict[tuple[str, str, str], float] = field(default_factory=dict)  # (stage, scorer, set)
    passes: dict[tuple[str, str, str], tuple[int, int]] = field(
        default_factory=dict
    )  # images forwards, backwards
    peaks: dict[tuple[str, str, str], int] = field(default_factory=dict)  # bytes

    @contextmanager
    def measure_with_memory(self, stage: str, *, scorer: str = "", on: str = "") -> Iterator[None]:
        """Add the time of the block, and keep the highest peak of memory of all such blocks."""
        key = (stage, scorer, on)
        with self.measure(stage, scorer=scorer, on=on), peak_memory(self.device) as peak:
            yield
        if peak.bytes is not None:
            self.peaks[key] = max(self.peaks.get(key, 0), peak.bytes)

    @contextmanager
    def measure(self, stage: str, *, scorer: str = "", on: str = "") -> Iterator[None]:
        """Add the time of the block, after waiting for the device at its end."""
        start = time.perf_counter()
        try:
            yield
        finally:
            if self.device.startswith("cuda"):
                import torch

                torch.cuda.synchronize(self.device)
            key = (stage, scorer, on)
            self.seconds[key] = self.seconds.get(key, 0.0) + time.perf_counter() - start

    def count(self, scorer: str, *, on: str, forwards: int, backwards: int) -> None:
        """Note the numbers of images that a scorer sent forwards and backwards through the model on a set."""
        self.passes["extract", scorer, on] = forwards, backwards

    def lines(self, **of: object) -> list[dict[str, object]]:
        """List the costs, for timings.jsonl."""
        keys = dict.fromkeys([*self.seconds, *self.passes])
        return [{**of, "stage": stage, "scorer": scorer, "set": name, **self._measured((stage, scorer, name))}
                for stage, scorer, name in keys]  # fmt: skip

    def _measured(self, key: tuple[str, str, str]) -> dict[str, object]:
        measured: dict[str, object] = {"seconds": round(self.seconds[key], 6)} if key in self.seconds else {}
        if key in self.passes:
            measured["forwards"], measured["backwards"] = self.passes[key]
        if key in self.peaks:
            measured["peak_bytes"] = self.peaks[key]
        return measured
