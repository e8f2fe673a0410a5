"""Names that no format can misread, and text that no terminal obeys.

A name of a plugin's offer, a model or a set becomes a cell of a table, a column, a line of a log and a part of LaTeX.
The rule is in one place: it is one printable line of bounded length, and no spreadsheet takes it for a formula. Text
that comes from data, such as a message of a library, is made printable where it is written.
"""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING

from harness.base.digests import digest

if TYPE_CHECKING:
    from collections.abc import Iterable

LONGEST = 200  # characters
FORMULA = ("=", "+", "-", "@")  # what a formula of a spreadsheet begins with
_MOST_SHOWN = 60
SEPARATORS = "/\\:,"  # of paths, and of names from arguments: no offer of a plugin holds one


def fault_of_name(name: object, *, without: str = "") -> str:
    """Say what keeps a text from being a name, and the fix; "" if nothing does. `without`: more refused characters."""
    if not isinstance(name, str):
        return f"it is a {type(name).__name__}. Give a string"
    refused = [char for char in name if char in without]
    faults = {
        f"it has {len(name)} characters. Give {LONGEST} at most": len(name) > LONGEST,
        fault_of_line(name): True,
        f"it starts with {name[:1]!r}, as a formula of a spreadsheet. Put a letter or digit first": name[:1]
        in FORMULA,
        "it starts or ends with a blank. Leave it out": name != name.strip(),
        f"it holds {_escaped(refused)}. Leave out {' '.join(without)}": bool(refused),
        "its accents are characters of their own. Write it in Unicode's normal form NFC": name
        != normal(name),
    }
    return next((fault for fault, is_there in faults.items() if fault and is_there), "")


def fault_of_line(text: str) -> str:
    """Say what keeps a text, such as a path, from being one printable line, and the fix; "" if nothing does."""
    if not text.strip():
        return "it is empty. Give one or more letters"
    hidden = [char for char in text if not char.isprintable()]
    return (
        f"it holds {_escaped(hidden)}. Leave out line breaks, control and invisible characters"
        if hidden
        else ""
    )


def normal(name: str) -> str:
    """Write equal-looking names with the same characters: accents as parts of their letters (NFC)."""
    return unicodedata.normalize("NFC", name)


def checked_name(name: str) -> str:
    """Return a name in its normal form. Raises ValueError for a text that is no name, as pydantic expects."""
    if fault := fault_of_name(normal(name)):
        raise ValueError(f"{quoted(name)} is no name: {fault}")
    return normal(name)


def checked_line(text: str) -> str:
    """Return a text that is one printable line. Raises ValueError for another, as pydantic expects."""
    if fault := fault_of_line(text):
        raise ValueError(f"{quoted(text)} is no name: {fault}")
    return text


def quoted(name: str) -> str:
    """Quote a text for a message; of a long one, its beginning."""
    return repr(name) if len(name) <= _MOST_SHOWN else f"{name[:_MOST_SHOWN]!r}..."


def made_name(text: str) -> str:
    """Make a name of text, such as a name with its parameters: other characters as escapes, and a long one cut."""
    name = normal(printable(text))
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 12]}... {digest(name)[:8]}"


def printable(text: str) -> str:
    """Write text so that a terminal shows it and obeys nothing in it: one line, other characters as escapes."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else " " if char.isspace() else _escape(char) for char in text)


def _escaped(characters: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(_escape(char) for char in characters))


def _escape(char: str) -> str:
    return char if char.isprintable() else char.encode("unicode_escape").decode()
