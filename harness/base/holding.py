"""Who uses a folder: each process holds a locked file. However a process ends, the kernel releases its lock."""

from __future__ import annotations

import contextlib
import math
import secrets
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

if TYPE_CHECKING:
    from pathlib import Path

_MODE = 0o666  # less the user's umask: others must see whether the lock is held


class Mark:
    """A mark that a folder is in use, from now until it is removed or its process ends."""

    def __init__(self, folder: Path) -> None:
        """Make the mark. Raises OSError if the folder cannot be written."""
        folder.mkdir(exist_ok=True)
        while True:
            self._path = folder / f"{secrets.token_hex(8)}.lock"
            self._lock = FileLock(self._path, mode=_MODE)
            self._lock.acquire()
            if self._path.exists():  # else it was taken for one that was left behind, before it was locked
                break
            self._lock.release()

    def remove(self) -> None:
        """Say that the folder is no longer in use."""
        _release(self._lock, self._path)


def held_since(folder: Path) -> float:
    """Return when the first of the processes that hold the folder began to, in seconds since the epoch; ∞ if none does.

    Marks of processes that have ended are removed.
    """
    since = math.inf
    for path in folder.glob("*.lock"):
        with contextlib.suppress(FileNotFoundError):
            began = path.stat().st_mtime
            lock = FileLock(path, mode=_MODE)
            try:
                lock.acquire(timeout=0)
            except (Timeout, PermissionError):
                since = min(since, began)
            else:
                _release(lock, path)
    return since


def _release(lock: FileLock, path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)
    lock.release()
