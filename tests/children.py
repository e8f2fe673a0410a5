"""Work in a process of its own, forked from this one: it may be killed, limited, or given disks of its own."""

from __future__ import annotations

import ctypes
import os
import select
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from harness.cli import ending

_NEW_MOUNTS, _PRIVATE, _REMOUNT, _READ_ONLY = 0x20000, 0x44000, 0x20, 0x1  # flags of unshare and mount
_OVERRIDES = (1, 2, 3)  # the capabilities by which root passes over the rights of files
_CAPABILITIES = 0x20080522  # version 3 of capset's structure


@dataclass(frozen=True)
class Ended:
    """How a process ended: its exit code, below 0 for a signal; what it said on stderr; and how long it took."""

    code: int
    said: str
    seconds: float

    @property
    def is_explained(self) -> bool:
        """Whether it ended well, or with what the command line says of an expected end."""
        return self.code in (0, 1, ending.USAGE) and "Traceback" not in self.said


def in_child(work: Callable[[], int], *, kill_after: float | None = None) -> Ended:
    """Return how `work` ends in a child, whose exit code it returns. What it raises ends as in the command line."""
    begun = time.monotonic()
    reader, writer = os.pipe()  # no file, which the child may not be allowed to write
    child = os.fork()
    if not child:
        _live(work, writer)
    os.close(writer)
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(child, signal.SIGKILL)
    said = b""
    while not (ended := os.waitpid(child, os.WNOHANG))[0]:
        said += _available(reader, 0.02)  # the child would wait for a full pipe
    while more := _available(reader, 0):  # to the end of what is there: others may hold the other end
        said += more
    os.close(reader)
    return Ended(os.waitstatus_to_exitcode(ended[1]), said.decode(), time.monotonic() - begun)


def _available(reader: int, seconds: float) -> bytes:
    """Read what a pipe has, or gets within some seconds."""
    return os.read(reader, 2**16) if select.select([reader], [], [], seconds)[0] else b""


def _live(work: Callable[[], int], writer: int) -> None:
    """Work, and end this process: nothing of the test above is left behind."""
    code = ending.DEFECT
    try:
        os.dup2(writer, 2)
        sys.stderr = sys.stdout = os.fdopen(2, "w", buffering=1, closefd=False)
        torch.set_num_threads(1)  # other threads did not come along
        try:
            code = work()
        except BaseException as error:
            code = ending.explain(error)
    finally:
        os._exit(code)


# What a child does to itself --------------------------------------------------------------------------------------


def obey_rights() -> None:
    """Let rights of files hold for root, too."""
    if os.geteuid():
        return
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(_CAPABILITIES, 0)
    # Effective, permitted and inheritable, 32 bits of each; then the upper bits.
    sets = (ctypes.c_uint32 * 6)()
    _checked(libc.capget(header, sets))
    sets[0] &= ~sum(1 << bit for bit in _OVERRIDES)
    _checked(libc.capset(header, sets))


def mount(folder: Path, options: str, *, again: bool = False, read_only: bool = False) -> None:
    """Mount a disk in memory, or the one that is there `again` with other options. Only this process sees it.

    Raises OSError where the user may not mount.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if not again:
        _checked(libc.unshare(_NEW_MOUNTS))
        _checked(libc.mount(None, b"/", None, _PRIVATE, None))
    flags = (_REMOUNT if again else 0) | (_READ_ONLY if read_only else 0)
    _checked(libc.mount(b"tmpfs", os.fsencode(folder), b"tmpfs", flags, options.encode()))


def may_mount() -> bool:
    """Return whether a child of this process may mount a disk."""

    def work() -> int:
        mount(Path(tempfile.gettempdir()), "size=1m")
        return 0

    return in_child(work).code == 0


def _checked(result: int) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
