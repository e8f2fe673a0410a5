"""A process that works for this one, under limits of time and memory. If it dies, only its own work is lost.

Workers are forked from a server of Python's multiprocessing that has imported what they need, so one starts in
hundredths of a second. Values travel by copy: nothing that a worker does to them reaches this process. This is no
sandbox: a worker has the rights of its user.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
import weakref
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any

from harness.base import worker_main
from harness.base.errors import HarnessError, describe
from harness.base.travel import Sender, received

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from multiprocessing.connection import Connection
    from multiprocessing.context import ForkServerProcess

_GRACE = 5.0  # seconds that a worker which has closed its end gets to end


class WorkerError(HarnessError):
    """What was raised in a worker, or the way in which the worker ended."""


class TravelError(WorkerError):
    """What cannot be copied to a worker."""


@dataclass(frozen=True)
class Limits:
    """What one worker may take; None is without limit."""

    seconds: float | None = None  # of one call
    megabytes: float | None = None  # beyond what it has when it starts


class Worker:
    """A worker process. It ends with this object, at the latest with this process."""

    def __init__(self, limits: Limits, *, imports: str = "torch") -> None:
        """Start it; `imports` is a module that the first worker imports for all."""
        self._limits = limits
        self.ended: str | None = None  # how it ended, if it did
        self.is_late = False  # whether it was ended for the time that it took
        own, others = multiprocessing.Pipe()
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([worker_main.__name__, imports, "torch"])
        process = context.Process(target=worker_main.serve, args=(others, limits.megabytes), daemon=True)
        with _without_main():
            process.start()
        others.close()
        self._process, self._connection = process, own
        self._finalizer = weakref.finalize(self, _end, process, own)

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Return `function(state, *arguments)`, computed in the worker; `state` is a dictionary that it keeps.

        The function is found by its module and name. Local functions among the arguments stay here: the worker asks for
        their results, or for the errors that they raise. Raises WorkerError for what the function raises, and if the
        worker ends or takes too long; then every later call raises the same.
        """
        if self.ended is not None:
            raise WorkerError(self.ended)
        sender = Sender()
        try:
            message = sender.packed((function, arguments, _threads()))
        except Exception as error:
            raise TravelError(worker_main.cannot_travel(error)) from None
        try:
            kind, value = self._outcome(message, sender)
        except BaseException as error:
            if (
                self.ended is None
            ):  # it still works on this call, and would answer the next one with its result
                self._lost(f"its call was broken off by {describe(error)}")
            raise
        if kind == worker_main.RAISED:
            raise WorkerError(value)
        if kind == worker_main.LOST:
            raise TravelError(value)
        return value

    def _outcome(self, message: bytes, sender: Sender) -> tuple[str, Any]:
        """Send a call, answer what the worker asks, and return how the call ended."""
        self._send(message)
        deadline = None if self._limits.seconds is None else time.monotonic() + self._limits.seconds
        while True:
            kind, value = self._reply(deadline)
            if kind != worker_main.ASKS:
                return kind, value
            self._send(sender.answer(*value))

    def _send(self, message: bytes) -> None:
        with suppress(OSError):  # it has ended: the reply says how
            self._connection.send_bytes(message)

    def _reply(self, deadline: float | None) -> tuple[str, Any]:
        left = None if deadline is None else max(deadline - time.monotonic(), 0)
        try:
            if not self._connection.poll(left):
                self.is_late = True
                raise self._lost(f"took longer than its limit of {self._limits.seconds:g} s")
            found: tuple[str, Any] = received(self._connection.recv_bytes())
        except (EOFError, OSError):
            self._process.join(_GRACE)
            raise self._lost(_how_it_ended(self._process.exitcode)) from None
        return found

    def _lost(self, why: str) -> WorkerError:
        self.ended = why
        self._finalizer()
        return WorkerError(why)


def _threads() -> int | None:
    """Return torch's number of threads here, on which sums depend by rounding; None if it is not loaded."""
    return sys.modules["torch"].get_num_threads() if "torch" in sys.modules else None


def _how_it_ended(code: int | None) -> str:
    if code is None:
        return "closed its connection to the harness"
    if code < 0:
        return f"its process was killed by {signal.Signals(-code).name}"
    return f"its process ended with exit code {code}"


def _end(process: ForkServerProcess, connection: Connection) -> None:
    """End a worker and all processes that it has started."""
    connection.close()
    if process.pid is not None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.join(_GRACE)


@contextmanager
def _without_main() -> Iterator[None]:
    """Hide the program from multiprocessing, which would run a script that has no `__main__` guard again."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
