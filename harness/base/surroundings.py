"""The state of the process on which everybody's numbers and messages depend: how to note it, and to restore it."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@dataclass(frozen=True)
class Setting:
    """One part of the state."""

    read: Callable[[], Any]
    write: Callable[[Any], object]


def noted() -> Callable[[], None]:
    """Note the state, and return what restores it. What was not changed is not written: that may cost time."""
    before = [(setting, setting.read()) for setting in _settings()]

    def restore() -> None:
        for setting, value in before:
            if setting.read() != value:
                setting.write(value)

    return restore


@contextlib.contextmanager
def restored() -> Iterator[None]:
    """Restore the state when the block ends."""
    restore = noted()
    try:
        yield
    finally:
        restore()


def _settings() -> Iterator[Setting]:
    """List what plugins are known to change. The generators of random numbers are the task of `seeding`."""
    yield Setting(sys.getrecursionlimit, sys.setrecursionlimit)
    yield Setting(Path.cwd, os.chdir)
    yield Setting(lambda: dict(os.environ), _set_environment)
    yield Setting(_umask, os.umask)
    yield Setting(lambda: warnings.filters[:], _set_filters)
    yield Setting(lambda: logging.root.manager.disable, logging.disable)
    yield Setting(lambda: (sys.stdout, sys.stderr), _set_streams)
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            yield _handler(number)
    if "numpy" in sys.modules:
        yield _of_numpy()
    if "torch" in sys.modules:  # importing it takes seconds
        yield from _of_torch()


def _umask() -> int:
    """Return the rights that new files lack. They can only be read by setting them."""
    os.umask(mask := os.umask(0o077))
    return mask


def _set_environment(values: dict[str, str]) -> None:
    for name in os.environ.keys() - values.keys():
        del os.environ[name]
    os.environ.update(values)


def _set_filters(filters: list[Any]) -> None:
    warnings.filters[:] = filters  # type: ignore[index]  # a list, whatever its stub says
    warnings._filters_mutated()  # type: ignore[attr-defined]  # else Python goes by what it has remembered


def _set_streams(streams: tuple[Any, Any]) -> None:
    sys.stdout, sys.stderr = streams


def _handler(number: signal.Signals) -> Setting:
    def write(handler: Any) -> None:
        signal.signal(number, handler)

    return Setting(lambda: signal.getsignal(number), write)


def _of_numpy() -> Setting:
    import numpy as np

    def write(handling: dict[str, Any]) -> None:
        np.seterr(**handling)

    return Setting(np.geterr, write)


def _of_torch() -> Iterator[Setting]:
    import torch

    yield Setting(_default_device, torch.set_default_device)
    yield Setting(torch.get_default_dtype, torch.set_default_dtype)
    yield Setting(torch.is_grad_enabled, _set_gradients)
    yield Setting(torch.get_num_threads, torch.set_num_threads)
    yield Setting(torch.get_float32_matmul_precision, torch.set_float32_matmul_precision)
    yield Setting(torch.get_deterministic_debug_mode, torch.set_deterministic_debug_mode)
    yield from (_autocast(device) for device in ("cpu", "cuda"))


def _set_gradients(enabled: bool) -> None:
    import torch

    torch.set_grad_enabled(enabled)


def _autocast(device: str) -> Setting:
    import torch

    return Setting(
        lambda: torch.is_autocast_enabled(device), lambda enabled: torch.set_autocast_enabled(device, enabled)
    )


def _default_device() -> Any:
    """Return torch's default device; None if none was set, since one that is set slows down every call."""
    import torch

    device = torch.get_default_device()
    return None if device == torch.device("cpu") else device
