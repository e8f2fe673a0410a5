"""Random numbers, kernels and threads that repeat, without a trace in the process's global state."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def seeded(seed: int, device: str = "cpu") -> Iterator[None]:
    """Draw torch's random numbers from `seed`, on the CPU and on `device`; restore both states afterwards."""
    target = torch.device(device)
    index = torch.cuda.current_device() if target.type == "cuda" and target.index is None else target.index
    devices = [index] if target.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        # torch.manual_seed would reseed every GPU of the machine, also those that nobody restores.
        torch.default_generator.manual_seed(seed)
        for number in devices:
            torch.cuda.default_generators[number].manual_seed(seed)
        yield


@contextmanager
def repeatable_kernels() -> Iterator[None]:
    """Let cuDNN use only deterministic float32 convolutions; restore its flags afterwards."""
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
        yield


@contextmanager
def one_thread(*, wanted: bool) -> Iterator[None]:
    """Compute on one CPU thread where that is wanted; restore the number afterwards.

    Threads that wait for one another over tiny tensors slow a busy machine down by a factor of ten and more.
    """
    before = torch.get_num_threads()
    if wanted:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        if wanted:
            torch.set_num_threads(before)
