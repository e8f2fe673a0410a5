"""Failures in one line each: a failure of one cell stops no other."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from harness.base.errors import HarnessError, describe
from harness.base.strangers import RAISED

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True)
class Failure:
    """The reason why something could not be computed, in one line."""

    message: str
    content: Mapping[str, Any] = field(default_factory=dict)  # the keys that its record has nevertheless
    error_type: type[HarnessError] = HarnessError

    @classmethod
    def of(cls, error: BaseException) -> Failure:
        """Describe an error in one line."""
        own = type(error) if isinstance(error, HarnessError) else HarnessError
        return cls(describe(error), error_type=own)

    def error(self) -> HarnessError:
        """Return the failure as an error, for code that cannot go on without the result."""
        return self.error_type(self.message)


def attempt(work: Callable[P, T], *args: P.args, **keywords: P.kwargs) -> T | Failure:
    """Call `work`; an error becomes a failure, since a plugin may raise anything."""
    try:
        return work(*args, **keywords)
    except RAISED as error:
        return Failure.of(error)
