"""Calls into code that is not the harness's own: what it may raise, and the state of the process around it."""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from harness.base.seeding import library_seeds_restored, reseed_libraries, seeded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

RAISED = (Exception, SystemExit)  # what a plugin may raise; Ctrl-C stays with the user


@contextmanager
def undisturbed(device: str = "cpu") -> Iterator[None]:
    """Run a plugin's code so that what it does to the process reaches nobody else.

    The global generators of torch, NumPy and `random` start from seed 0, so that a plugin that draws from them gives
    the same numbers in every run. Afterwards the generators are restored, and so are torch's default dtype, gradient
    mode and number of threads, and the working folder.
    """
    restore = _restorer()
    try:
        with ExitStack() as generators:
            generators.enter_context(library_seeds_restored())
            if "torch" in sys.modules:  # importing it takes seconds
                generators.enter_context(seeded(0, device))
            reseed_libraries(0)
            yield
    finally:
        restore()


def _restorer() -> Callable[[], None]:
    """Note the state of the process, and return what restores it."""
    folder = Path.cwd()
    if "torch" not in sys.modules:
        return lambda: os.chdir(folder)
    import torch

    dtype, threads = torch.get_default_dtype(), torch.get_num_threads()
    has_gradients = torch.is_grad_enabled()

    def restore() -> None:
        os.chdir(folder)
        torch.set_default_dtype(dtype)
        torch.set_grad_enabled(has_gradients)
        if torch.get_num_threads() != threads:  # setting it costs time
            torch.set_num_threads(threads)

    return restore
