"""What a worker process does: it waits for calls, and answers each with a result or an error in one line."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.base.errors import HarnessError, describe
from harness.base.travel import Sender, received

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection

DONE, RAISED, LOST, ASKS = "done", "raised", "lost", "asks"
_PR_SET_PDEATHSIG = 1


def serve(connection: Connection, megabytes: float | None) -> None:
    """Answer calls until the other end is closed."""
    _settle(megabytes)
    own = os.getpid()
    state: dict[str, Any] = {}

    def ask(number: int, arguments: tuple[Any, ...]) -> Any:
        connection.send_bytes(Sender().packed((ASKS, (number, arguments))))
        is_fine, value = received(connection.recv_bytes(), ask)
        if not is_fine:
            raise HarnessError(value)
        return value

    while True:
        try:
            message = connection.recv_bytes()
        except (EOFError, OSError):
            return
        reply = _reply(message, state, ask)
        if os.getpid() != own:  # the plugin forked, and this is the copy
            os._exit(0)
        connection.send_bytes(reply)


def _reply(message: bytes, state: dict[str, Any], ask: Callable[[int, tuple[Any, ...]], Any]) -> bytes:
    try:
        function, arguments, threads = received(message, ask)
    except Exception as error:
        return Sender().packed((LOST, cannot_travel(error)))
    try:
        if threads is not None and sys.modules["torch"].get_num_threads() != threads:
            sys.modules["torch"].set_num_threads(threads)
        return Sender().packed((DONE, function(state, *arguments)))
    except BaseException as error:
        return Sender().packed((RAISED, describe(error)))


def cannot_travel(error: Exception) -> str:
    """Say in one line why a value has no copy in another process."""
    return f"cannot be copied to a worker process ({describe(error)})"


def _settle(megabytes: float | None) -> None:
    """Lead a group of processes of its own, end with the harness, read no input, and keep to the memory limit."""
    os.setsid()
    process: Any = multiprocessing.current_process()
    process._config["daemon"] = False  # a plugin may start processes, too
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the harness's to answer
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    with suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    if megabytes is not None:
        _limit_memory(int(megabytes * 1e6))


def _limit_memory(more: int) -> None:
    """Let an allocation beyond what the process has now, and `more` bytes, raise MemoryError."""
    import resource

    import torch  # noqa: F401  # its own memory does not count

    with suppress(ValueError, OSError):  # Linux only
        data = int(Path("/proc/self/statm").read_text().split()[5]) * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_DATA, (data + more, resource.getrlimit(resource.RLIMIT_DATA)[1]))
