"""The peak of a piece of work, on the CPU where Linux tells it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from harness.base import memory
from harness.base.memory import peak_memory

MIB = 2**20


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="no Linux: the peak is not told")
def test_the_peak_is_that_of_the_block_and_not_of_what_was_before() -> None:
    before = np.ones(300 * MIB, dtype=np.uint8)  # held before, and higher than what the block takes
    del before
    with peak_memory("cpu") as peak:
        inside = np.ones(100 * MIB, dtype=np.uint8)
        del inside
    assert peak.bytes is not None
    assert 90 * MIB < peak.bytes < 150 * MIB
    with peak_memory("cpu") as idle:
        pass
    assert idle.bytes is not None
    assert idle.bytes < 20 * MIB


def test_where_the_system_does_not_tell_there_is_no_number(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(memory, "_OWN", tmp_path / "absent")
    with peak_memory("cpu") as peak:
        pass
    assert peak.bytes is None


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_it_is_what_torch_allocates_there() -> None:
    held: Any = torch.ones(50 * MIB, dtype=torch.uint8, device="cuda")
    with peak_memory("cuda") as peak:
        inside = torch.ones(100 * MIB, dtype=torch.uint8, device="cuda")
        del inside
    del held
    assert peak.bytes == 100 * MIB
