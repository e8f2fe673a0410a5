"""Paths as a suite gives them."""

from __future__ import annotations

from pathlib import Path


def beside(folder: Path | None, path: str) -> Path:
    """Find a relative path in a folder, else in the working folder; the latter if it is in neither."""
    given = Path(path).expanduser()
    there = folder / given if folder is not None else given
    return there if there.exists() else given
