"""Reproducible random numbers and kernels. The process's global state is restored afterwards."""

from __future__ import annotations

import hashlib
import random
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


def derived_seed(*parts: object) -> int:
    """Hash the parts into a seed in 0..2^63 - 1, so that the random streams of one experiment are independent."""
    hashed = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(hashed, "little") >> 1


@contextmanager
def seeded(seed: int, device: str = "cpu") -> Iterator[None]:
    """Seed torch's generators of the CPU and of `device`; restore both states afterwards."""
    import torch

    with torch.random.fork_rng(devices=_gpus(device)):
        reseed(seed, device)
        yield


def reseed(seed: int, device: str = "cpu") -> None:
    """Seed torch's generators of the CPU and of `device`. Use it within `seeded`, which restores them.

    torch.manual_seed would seed every GPU of the machine, also those that `seeded` does not restore.
    """
    import torch

    torch.default_generator.manual_seed(seed)
    for number in _gpus(device):
        torch.cuda.default_generators[number].manual_seed(seed)


@contextmanager
def library_seeds_restored() -> Iterator[None]:
    """Restore the global generators of `random` and NumPy afterwards; some augmentations draw from them."""
    import numpy as np

    python, numpy = random.getstate(), np.random.get_state()
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


def reseed_libraries(seed: int) -> None:
    """Seed the global generators of `random` and NumPy. Use it within `library_seeds_restored`."""
    import numpy as np

    random.seed(seed)
    np.random.seed(seed % 2**32)


@contextmanager
def repeatable_kernels() -> Iterator[None]:
    """Let cuDNN use only deterministic float32 convolutions; restore its flags afterwards."""
    import torch

    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
        yield


def _gpus(device: str) -> list[int]:
    import torch

    target = torch.device(device)
    if target.type != "cuda":
        return []
    return [torch.cuda.current_device() if target.index is None else target.index]
