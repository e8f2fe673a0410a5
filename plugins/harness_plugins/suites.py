"""The suites that ship with the project: TOML files, in the wheel or in the checkout."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import harness

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE = Path(__file__).resolve().parent
FOLDERS = (PACKAGE / "benchmarks" / "suites", PACKAGE.parents[1] / "benchmarks" / "suites")  # wheel, checkout


@harness.hookimpl
def harness_suites() -> Iterator[harness.SuiteSpec]:
    """Offer every packaged suite under its file's name."""
    folder = next((folder for folder in FOLDERS if folder.is_dir()), None)
    if folder is None:
        raise harness.HarnessError(
            f"no suites found in {FOLDERS[0]} or {FOLDERS[1]}. Install ood-harness again, whole"
        )
    for path in sorted(folder.glob("*.toml")):
        yield harness.SuiteSpec(path.stem, path)
