"""The state of the process on which everybody's numbers and messages depend: how to note it, and to restore it."""

from __future__ import annotations

import contextlib
import logging
import operator
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


_UNREADABLE = object()
_LOGGERS = (None, "ood_harness")
_BACKENDS = (  # of torch, with what may be set of each. Those that a version lacks cannot be read
    ("cuda.matmul", "fp32_precision"),
    ("mkldnn", "fp32_precision"),
    ("mkldnn.matmul", "fp32_precision"),
    ("mkldnn.conv", "fp32_precision"),
    ("mkldnn.rnn", "fp32_precision"),
    (
        "cudnn",
        "allow_tf32",
    ),  # which stands for the precisions of its parts, and contradicts them if one is set
    ("cudnn", "benchmark"),
    ("cudnn", "deterministic"),
    ("cudnn", "enabled"),
)


@dataclass(frozen=True)
class Setting:
    """One part of the state."""

    read: Callable[[], Any]
    write: Callable[[Any], object]


def noted() -> Callable[[], None]:
    """Note the state, and return what restores it. What was not changed is not written: that may cost time.

    A setting that cannot be read is left alone; one that can no longer be read has changed. All are tried before the
    error of one is raised.
    """
    before = [(setting, value) for setting in _settings() if (value := _read(setting)) is not _UNREADABLE]

    def restore() -> None:
        with contextlib.ExitStack() as stack:  # which calls all, whatever one raises
            for setting, value in reversed(before):
                stack.callback(_restore, setting, value)

    return restore


def _read(setting: Setting) -> Any:
    try:
        return setting.read()
    except (
        Exception
    ):  # such as a working folder that was removed, or torch's precisions if they contradict each other
        return _UNREADABLE


def _restore(setting: Setting, value: Any) -> None:
    if _read(setting) != value:
        setting.write(value)


@contextlib.contextmanager
def restored() -> Iterator[Callable[[], None]]:
    """Restore the state when the block ends, however it ends. Within it, the function that is yielded does so, too."""
    restore = noted()
    try:
        yield restore
    finally:
        restore()


def _settings() -> Iterator[Setting]:
    """List what plugins are known to change. The generators of random numbers are the task of `seeding`.

    What a library sets in the environment when it is first imported, within a call, goes too: it has read it by then.
    """
    yield Setting(sys.getrecursionlimit, sys.setrecursionlimit)
    yield Setting(Path.cwd, os.chdir)
    yield Setting(_environment, _set_environment)
    yield Setting(_umask, os.umask)
    yield Setting(lambda: warnings.filters[:], _set_filters)
    yield Setting(lambda: logging.root.manager.disable, logging.disable)
    yield from (_logger(logging.getLogger(name)) for name in _LOGGERS)
    yield Setting(lambda: (sys.stdout, sys.stderr), _set_streams)
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            yield _handler(number)
    if "numpy" in sys.modules:
        yield _of_numpy()
    if "torch" in sys.modules:  # importing it takes seconds
        yield from _of_torch()


def _umask() -> int:
    """Return the rights that new files lack. To set it in order to read it would reach other threads for a moment."""
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("Umask:")).split()[1], 8)
    os.umask(mask := os.umask(0o077))
    return mask


def _environment() -> dict[str, str]:
    """Copy the environment, which another thread may change meanwhile."""
    while True:
        with contextlib.suppress(KeyError, RuntimeError):
            return dict(os.environ)


def _set_environment(values: dict[str, str]) -> None:
    for name in set(os.environ) - values.keys():
        os.environ.pop(name, None)
    os.environ.update(values)


def _set_filters(filters: list[Any]) -> None:
    warnings.resetwarnings()  # which makes Python forget what it has remembered of each filter
    warnings.filters[:] = filters  # type: ignore[index]  # a list, whatever its stub says


def _set_streams(streams: tuple[Any, Any]) -> None:
    sys.stdout, sys.stderr = streams


def _logger(logger: logging.Logger) -> Setting:
    def write(state: tuple[int, bool, list[logging.Handler]]) -> None:
        level, logger.disabled, logger.handlers[:] = state
        logger.setLevel(level)

    return Setting(lambda: (logger.level, logger.disabled, logger.handlers[:]), write)


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
    yield from (_backend(name, what) for name, what in _BACKENDS)


def _set_gradients(enabled: bool) -> None:
    import torch

    torch.set_grad_enabled(enabled)


def _autocast(device: str) -> Setting:
    import torch

    return Setting(
        lambda: torch.is_autocast_enabled(device), lambda enabled: torch.set_autocast_enabled(device, enabled)
    )


def _backend(name: str, what: str) -> Setting:
    import torch

    path = operator.attrgetter(name)
    return Setting(
        lambda: getattr(path(torch.backends), what),
        lambda value: setattr(path(torch.backends), what, value),
    )


def _default_device() -> Any:
    """Return torch's default device; None if none was set, since one that is set slows down every call."""
    import torch

    device = torch.get_default_device()
    return None if device == torch.device("cpu") else device
