"""Faults of the operating system, made on purpose."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import Any

import pytest

OPERATIONS = ("fsync", "mkdir", "posix_fallocate", "rename", "replace", "unlink", "utime")  # of the module os


class Stopped(BaseException):
    """The process is dead, as far as its files can tell."""


class FileOperations:
    """Counts the operations on files, and stops or fails at one of them.

    A process that was stopped does nothing more: every later operation stops it, too, so that no `finally` tidies up.
    A failure is of one operation alone.
    """

    def __init__(self, patched: pytest.MonkeyPatch, *, stop_at: int = 0, fail_at: int = 0) -> None:
        self.count = 0
        self._stop_at, self._fail_at = stop_at, fail_at
        for name in OPERATIONS:
            patched.setattr(os, name, self._counted(getattr(os, name)))

    def _counted(self, operation: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **keywords: Any) -> Any:
            self.count += 1
            if 0 < self._stop_at <= self.count:
                raise Stopped
            if self.count == self._fail_at:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return operation(*arguments, **keywords)

        return call
