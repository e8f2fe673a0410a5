"""The suites and recipes that ship with the project: TOML files, in the wheel or in the checkout."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import harness

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE = Path(__file__).resolve().parent
FOLDERS = (PACKAGE / "benchmarks", PACKAGE.parents[1] / "benchmarks")  # wheel, checkout


@harness.hookimpl
def harness_suites() -> Iterator[harness.SuiteSpec]:
    """Offer every packaged suite under its file's name."""
    for path in _files("suites"):
        yield harness.SuiteSpec(path.stem, path)


@harness.hookimpl
def harness_recipes() -> Iterator[harness.RecipeSpec]:
    """Offer every packaged recipe under its file's name."""
    for path in _files("recipes"):
        yield harness.RecipeSpec(path.stem, path)


def _files(kind: str) -> list[Path]:
    folder = next((folder / kind for folder in FOLDERS if (folder / kind).is_dir()), None)
    if folder is None:
        raise harness.HarnessError(f"no {kind} found in {FOLDERS[0]} or {FOLDERS[1]}. Reinstall ood-harness")
    return sorted(folder.glob("*.toml"))
