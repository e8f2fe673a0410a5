"""What a suite may write for a dataset: a plugin's name, the path of a folder, or a name on a hub."""

from __future__ import annotations

import difflib
import os
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from harness.base.errors import unknown_name
from harness.contract.registry import names_where

if TYPE_CHECKING:
    from harness.base.errors import HarnessError
    from harness.contract.protocols import Catalogue

DATA_ROOT = "OOD_HARNESS_DATA"
_MISSPELT = 0.8  # the similarity to a plugin's name from which a name without a folder counts as misspelt


def data_root() -> Path | None:
    """Return the folder that OOD_HARNESS_DATA names; None if it is not set."""
    named = os.environ.get(DATA_ROOT)
    return Path(named) if named else None


def full_name(dataset: str, catalogue: Catalogue, folder: Path | None) -> str:
    """Write a dataset's name in full, FAMILY:NAME.

    A name that no plugin offers is a folder: beside the suite's file, in the working folder or under the data root, in
    this order. If there is no such folder, the family that opens folders may know the name, such as one of a hub.
    Raises UnknownNameError for a name that looks like that of a plugin.
    """
    installed = catalogue.names("dataset")
    families = names_where(catalogue, "dataset", lambda spec: spec.opens_folders)
    if dataset.partition(":")[0] in installed or not families:
        return dataset
    for place in _places(dataset, folder):
        if place.is_dir():
            return f"{families[0]}:{place.absolute()}"
    if "/" not in dataset and difflib.get_close_matches(dataset.partition(":")[0], installed, 1, _MISSPELT):
        raise unknown_name("dataset", dataset, installed)
    return f"{families[0]}:{dataset}"


def _places(name: str, folder: Path | None) -> list[Path]:
    root, own = data_root(), Path(name).expanduser()
    is_inside = (
        not own.is_absolute() and ".." not in PurePosixPath(name).parts
    )  # no name leads out of the root
    beside = [folder / own] if folder is not None else []
    return [*beside, own, *([root / name] if root is not None and is_inside else [])]


def explained(error: HarnessError, dataset: str, name: str) -> HarnessError:
    """Return an error of a dataset that was named in full; it says if neither a plugin nor a folder has its name."""
    if name == dataset or Path(name.partition(":")[2]).is_dir():
        return error
    return type(error)(f"no plugin offers {dataset!r}, and {error}")
