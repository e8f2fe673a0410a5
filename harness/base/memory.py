"""Peak memory of a block of code, beyond the memory in use before it."""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_OWN = Path("/proc/self")
_RESET_PEAK = "5"  # written to clear_refs, it makes Linux reset the peak


@dataclass
class Peak:
    """The peak in bytes; None if the system does not report it."""

    bytes: int | None = None


@contextmanager
def peak_memory(device: str) -> Iterator[Peak]:
    """Measure a block's peak: on a GPU, the memory that torch allocates; else the resident memory (Linux only)."""
    peak = Peak()
    if device.startswith("cuda"):
        import torch

        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        yield peak
        peak.bytes = torch.cuda.max_memory_allocated(device) - before
        return
    held = _forget_peak()
    yield peak
    if held is not None and (highest := _status("VmHWM")) is not None:
        peak.bytes = max(highest - held, 0)


def total_memory() -> int:
    """Return the memory of the machine, in bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _forget_peak() -> int | None:
    """Reset the peak and return the resident memory in bytes; None if this is not possible."""
    try:
        (_OWN / "clear_refs").write_text(_RESET_PEAK)
    except OSError:
        return None
    return _status("VmRSS")


def _status(name: str) -> int | None:
    try:
        lines = (_OWN / "status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:")), None)
