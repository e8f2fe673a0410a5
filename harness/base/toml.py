"""Reads and validates TOML files that a user wrote. The first fault is reported in one line, with its place and fix."""

from __future__ import annotations

import math
import tomllib
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from harness.base.errors import HarnessError, InputError, unknown_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path


class Table(BaseModel):
    """A table of a TOML file: unknown keys are refused, and values cannot change after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @classmethod
    def keys(cls) -> list[str]:
        """List the valid keys of the table."""
        return [field.alias or name for name, field in cls.model_fields.items()]


AnyTable = TypeVar("AnyTable", bound=Table)


def read_toml(path: Path, kind: str) -> dict[str, Any]:
    """Read a TOML file; raise a one-line InputError if it cannot be read or is not valid TOML."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise InputError(f"the {kind} {str(path)!r} cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        hint = ""
        if "escape" in str(error) or "hex" in str(error):
            hint = ". In TOML a path needs '...' or forward slashes: \"C:/data\""
        raise InputError(f"the {kind} {str(path)!r} is not valid TOML: {error}{hint}") from None


def parse(
    table: type[AnyTable],
    content: Mapping[str, Any],
    *,
    source: str,
    parts: Mapping[str, Iterable[str]] | None = None,
) -> AnyTable:
    """Validate a file's content. `parts` maps the name of each inner table to its valid keys.

    Raises HarnessError, one line, for the first fault. Unknown keys come before missing ones: they may be misspellings.
    """
    _require_finite(content, source)
    try:
        return table.model_validate(content)
    except ValidationError as error:
        raise _first_fault(error, source, table.keys(), parts or {}) from None


def _require_finite(value: Any, source: str, place: str = "") -> None:
    """Refuse TOML's nan and inf: neither keys nor records can store them."""
    if isinstance(value, float) and not math.isfinite(value):
        raise InputError(f"{source}: at {place}: {value} is not a finite number")
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in parts:
        _require_finite(part, source, f"{place}.{key}" if place else str(key))


def _first_fault(
    error: ValidationError, source: str, keys: list[str], parts: Mapping[str, Iterable[str]]
) -> HarnessError:
    first = min(error.errors(), key=lambda fault: fault["type"] != "extra_forbidden")
    place = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        within = [part for part in first["loc"][:-1] if isinstance(part, str) and part in parts]
        valid = parts[within[-1]] if within else keys
        unknown = unknown_name("key", str(first["loc"][-1]), valid, valid_label="Valid")
        return InputError(f"{source}: at {place}: {unknown}")
    message = first["msg"].removeprefix("Value error, ")
    given = "" if first["type"] in ("missing", "value_error") else f", not {first['input']!r}"
    return InputError(f"{source}: {f'at {place}: ' if place else ''}{message}{given}")
