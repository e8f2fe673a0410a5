"""A builder given by its address: offering it imports nothing, and its digest covers only the code behind it."""

from __future__ import annotations

import functools
import importlib
import inspect
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True)
class Deferred:
    """A callable that is imported when it is first called or its parameters are first read.

    Its source digest covers the module that it names and that module's imports, but not the module that offers it.
    """

    address: str  # "package.module:name"

    @cached_property
    def target(self) -> Callable[..., Any]:
        """The imported callable."""
        module, _, name = self.address.partition(":")
        found: Callable[..., Any] = getattr(importlib.import_module(module), name)
        return found

    @property
    def __signature__(self) -> inspect.Signature:
        return inspect.signature(self.target)

    def __call__(self, *arguments: Any, **parameters: Any) -> Any:
        """Call the target."""
        return self.target(*arguments, **parameters)


def unwrapped(builder: Any) -> Any:
    """Return the class or function behind a builder, which is imported if it is deferred."""
    while isinstance(builder, functools.partial | Deferred):
        builder = builder.target if isinstance(builder, Deferred) else builder.func
    return builder
