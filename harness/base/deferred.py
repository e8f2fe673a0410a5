"""A builder by its address, so that offering it imports nothing, and its code counts apart from its neighbours'."""

from __future__ import annotations

import importlib
import inspect
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True)
class Deferred:
    """A callable that is imported when it is first called, or asked for its parameters.

    Digests follow it to the module that it names: a change in another module leaves what it builds as it was.
    """

    address: str  # "package.module:name"

    @cached_property
    def target(self) -> Callable[..., Any]:
        """The callable itself."""
        module, _, name = self.address.partition(":")
        found: Callable[..., Any] = getattr(importlib.import_module(module), name)
        return found

    @property
    def __signature__(self) -> inspect.Signature:
        return inspect.signature(self.target)

    def __call__(self, *arguments: Any, **parameters: Any) -> Any:
        """Call the target."""
        return self.target(*arguments, **parameters)
