"""What went wrong, in one line: a failure of one cell stops no other."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from harness.base.errors import HarnessError

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class Failure:
    """Why something could not be computed, in one line."""

    message: str
    says: Mapping[str, Any] = field(default_factory=dict)  # what its record says all the same


def describe(error: Exception) -> str:
    """Describe an error in one line; an error that is not the harness's own with its type."""
    text = " ".join(str(error).split())
    return text if isinstance(error, HarnessError) else f"{type(error).__name__}: {text}"


def raised(failure: Failure) -> HarnessError:
    """Turn a failure back into an error, for code that cannot go on without what failed."""
    return HarnessError(failure.message)
