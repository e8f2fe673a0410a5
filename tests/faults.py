"""Faults of the operating system, made on purpose."""

from __future__ import annotations

import builtins
import errno
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

OPERATIONS = (  # of the module os
    "fsync",
    "link",
    "listdir",
    "mkdir",
    "open",
    "posix_fallocate",
    "rename",
    "replace",
    "rmdir",
    "scandir",
    "stat",
    "unlink",
    "utime",
)


class Stopped(BaseException):
    """The process is dead, as far as its files can tell."""


class FileOperations:
    """Counts the operations on files below a folder, and does something at one of them, or at all.

    A process that was stopped does nothing more: every later operation stops it, too, so that no `finally` tidies up.
    A failure is of one operation alone.
    """

    def __init__(
        self,
        patched: pytest.MonkeyPatch,
        folder: Path,
        *,
        stop_at: int = 0,
        fail_at: int = 0,
        number: int = errno.EIO,
        before: Callable[[], None] = lambda: None,
    ) -> None:
        """Count from 1. `number` is the error of a failure; `before` is called before every operation."""
        self.count = 0
        self.failed = ""  # the operation that failed
        self._folder = os.fspath(folder)
        self._stop_at, self._fail_at, self._number, self._before = stop_at, fail_at, number, before
        for name in OPERATIONS:
            patched.setattr(os, name, self._counted(getattr(os, name)))
        opened = self._counted(io.open)  # which is the built-in one
        patched.setattr(io, "open", opened)
        patched.setattr(builtins, "open", opened)

    def _counted(self, operation: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **keywords: Any) -> Any:
            path = _path_of(arguments[0]) if arguments else ""
            if path.startswith(self._folder):
                self._happen(operation.__name__, path)
            return operation(*arguments, **keywords)

        return call

    def _happen(self, name: str, path: str) -> None:
        self._before()
        self.count += 1
        if 0 < self._stop_at <= self.count:
            raise Stopped
        if self.count == self._fail_at:
            self.failed = f"{name} of {path}"
            raise OSError(self._number, os.strerror(self._number), path)


def _path_of(what: Any) -> str:
    """Return the path of what an operation is given: a path, or the number of an open file."""
    if isinstance(what, int):
        link = Path(f"/proc/self/fd/{what}")
        return str(link.readlink()) if link.is_symlink() else ""
    return os.fspath(what) if isinstance(what, str | os.PathLike) else ""
