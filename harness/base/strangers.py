"""Calls into code that is not the harness's own: what it may raise, and what it may do to the process around it."""

from __future__ import annotations

import sys
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from harness.base import surroundings
from harness.base.seeding import library_seeds_restored, reseed_libraries, seeded

if TYPE_CHECKING:
    from collections.abc import Iterator

RAISED = (Exception, SystemExit)  # what a plugin may raise; Ctrl-C stays with the user


@contextmanager
def undisturbed(device: str = "cpu") -> Iterator[None]:
    """Run a plugin's code so that what it does to the process reaches nobody else.

    The global generators of torch, NumPy and `random` start from seed 0, so that a plugin that draws from them gives
    the same numbers in every run. Afterwards the generators are restored, and so are the settings of `surroundings`.
    """
    with ExitStack() as stack:
        stack.enter_context(surroundings.restored())
        stack.enter_context(library_seeds_restored())
        if "torch" in sys.modules:  # importing it takes seconds
            stack.enter_context(seeded(0, device))
        reseed_libraries(0)
        yield
