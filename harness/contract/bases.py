"""Suites and recipes that are based on others: a file gives only the keys that differ from its base."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from harness.base.errors import InputError
from harness.base.paths import beside
from harness.base.toml import read_toml

if TYPE_CHECKING:
    from pathlib import Path

    from harness.contract.protocols import Catalogue

KEY = "base"


def read_based(path: Path, kind: str, catalogue: Catalogue, *, name: str = "") -> dict[str, Any]:
    """Read a TOML file and the keys of its bases that it does not give itself; a table or list replaces the whole.

    `kind` is that of a plugin kind whose offers are files. A base is named as in the command line, or by a path beside
    the file. `name` is what the caller calls the file.
    Raises HarnessError, one line, for a missing file, invalid TOML, and a cycle of bases.
    """
    content, seen, folder = read_toml(path, kind), [name or path.name], path.parent
    while KEY in content:
        base = str(content.pop(KEY))
        if base in seen:
            raise InputError(f"the {kind} {path.name} is based on itself: {' → '.join([*seen, base])}")
        seen.append(base)
        file = beside(folder, str(catalogue.path(kind, base)))
        content = {**read_toml(file, kind), **content}
        folder = file.parent
    return content
