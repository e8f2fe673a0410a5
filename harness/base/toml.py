"""Reads and validates TOML files that a user wrote. The first fault is reported in one line, with its place and fix."""

from __future__ import annotations

import math
import tomllib
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from harness.base.errors import HarnessError, InputError, one_line, unknown_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
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
    except (
        ValueError,
        RecursionError,
    ) as error:  # of TOML, UTF-8, a number of too many digits, or too many brackets
        raise InputError(
            f"the {kind} {str(path)!r} is not valid TOML: {one_line(error)}. {_hint(str(error))}"
        ) from None


def _hint(fault: str) -> str:
    """Say how to write what people write otherwise."""
    if "escape" in fault or "hex" in fault:
        return "In TOML a path needs '...' or forward slashes: \"C:/data\""
    if "Invalid value" in fault:
        return 'Strings are in quotes, "..."; booleans are true and false; there is no null'
    if "codec" in fault:
        return "Give a text file in UTF-8"
    return 'A key is written key = "value", once; a table { ... } is closed in its own line'


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
        raise _first_fault(error, content, source, table.keys(), parts or {}) from None


def _require_finite(value: Any, source: str, place: str = "") -> None:
    """Refuse TOML's nan and inf: neither keys nor records can store them."""
    if isinstance(value, float) and not math.isfinite(value):
        raise InputError(f"{source}: at {place}: {value} is not a finite number")
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in parts:
        _require_finite(part, source, f"{place}.{key}" if place else str(key))


def _first_fault(
    error: ValidationError,
    content: Mapping[str, Any],
    source: str,
    keys: list[str],
    parts: Mapping[str, Iterable[str]],
) -> HarnessError:
    first = min(error.errors(), key=lambda fault: fault["type"] != "extra_forbidden")
    place = ".".join(str(part) for part in _places(first["loc"], content))
    if first["type"] == "extra_forbidden":
        within = [part for part in first["loc"][:-1] if isinstance(part, str) and part in parts]
        valid = parts[within[-1]] if within else keys
        unknown = unknown_name("key", str(first["loc"][-1]), valid, valid_label="Valid")
        return InputError(f"{source}: at {place}: {unknown}")
    message = _PLAIN.get(first["type"]) or first["msg"].removeprefix("Value error, ")
    message = message.partition(" after validation")[0]  # and the length, which follows it
    given = "" if first["type"] in ("missing", "value_error") else f", not {_short(first['input'])}"
    return InputError(f"{source}: {f'at {place}: ' if place else ''}{message}{given}")


def _places(location: Iterable[int | str], content: Any) -> Iterator[int | str]:
    """Yield the keys and positions of a fault in the file, without pydantic's names of the types it tried."""
    for part in location:
        if isinstance(content, dict) and isinstance(part, str):
            yield part
            content = content.get(part)
        elif isinstance(content, list) and isinstance(part, int):
            yield part
            content = content[part] if part < len(content) else None


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


_LONGEST = 80  # characters of a value in a message
_PLAIN = {  # pydantic's type of a fault: what to write instead, in the words of TOML
    "missing": "this key is missing. Add it",
    **dict.fromkeys(("dict_type", "model_type", "model_attributes_type"), "Input should be a table, { ... }"),
    **dict.fromkeys(("list_type", "tuple_type"), "Input should be a list, [ ... ]"),
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float"), "Input should be a whole number"),
    **dict.fromkeys(("float_type", "float_parsing"), "Input should be a number"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "Input should be true or false"),
    "string_type": 'Input should be a string, "..."',
    "string_pattern_mismatch": "Input should be lower-case letters, digits and . _ -, a letter or digit first",
}
