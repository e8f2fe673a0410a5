"""Checksums within JSON, so that one changed digit is noticed. An object without one, of an older version, is accepted.

The checksum is over the text of numbers, not over their values, and over no white space: a file may be laid out anew.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

KEY = "checksum"
DIFFERS = "its checksum differs"


def seal(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return an object's content with its checksum as the last key."""
    plain = {key: value for key, value in content.items() if key != KEY}
    return {**plain, KEY: _checksum(_spelled(json.dumps(plain)))}


def unsealed(text: str, *, required: bool = False) -> dict[str, Any]:
    """Parse an object, and leave its checksum out.

    Raises ValueError if it is no object, was changed, or lacks a checksum that is required.
    """
    value = json.loads(text)
    content, is_intact = _split(value, _spelled(text))
    if not is_intact:
        raise ValueError(DIFFERS)
    if required and KEY not in value:
        raise ValueError("its checksum is gone")
    return content


def unsealed_list(text: str) -> tuple[list[dict[str, Any]], int]:
    """Parse a list of objects, each with a checksum of its own: those that are intact, and the number of others.

    Raises ValueError if it is no list of objects.
    """
    values, spelled = json.loads(text), _spelled(text)
    if not isinstance(values, list):
        raise ValueError("it is no list")
    found = [_split(value, same) for value, same in zip(values, spelled, strict=True)]
    intact = [content for content, is_intact in found if is_intact]
    return intact, len(found) - len(intact)


def _split(value: Any, spelled: Any) -> tuple[dict[str, Any], bool]:
    if not isinstance(value, dict):
        raise ValueError(f"it holds a {type(value).__name__}, not an object")
    content = {key: of for key, of in value.items() if key != KEY}
    return content, KEY not in value or value[KEY] == _checksum(spelled)


def _spelled(text: str) -> Any:
    """Parse JSON, with numbers as they are written."""
    return json.loads(text, parse_float=_number, parse_int=_number)


def _number(digits: str) -> str:
    return f"\0{digits}"  # no string of JSON that is text


def _checksum(spelled: Mapping[str, Any]) -> str:
    plain = {key: value for key, value in spelled.items() if key != KEY}
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
