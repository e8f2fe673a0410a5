"""The configurations of a hub folder whose card states none, by the names of its Parquet files.

The hub lays out CONFIG/SPLIT-00000-of-00001.parquet, and its own conversions CONFIG/SPLIT/0000.parquet.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from harness_plugins.datasets.folders import SPLIT_NAMES

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import PurePosixPath

CARD = "README.md"
_SHARD = re.compile(r"(.+)-\d{5}-of-\d{5}\.parquet")
_CONVERTED = re.compile(r"\d{4}\.parquet")
_NO_NAMES = SPLIT_NAMES | {"data"}  # the usual folders of a dataset with one configuration


def stated(card: Any) -> bool:
    """Return whether the data of a card, or None, name configurations: from there `datasets` knows them."""
    return bool(card is not None and card.get("configs"))


def configurations(files: Iterable[PurePosixPath]) -> dict[str, dict[str, list[str]]]:
    """Map each configuration to its splits, and each split to its files in order.

    Empty if any Parquet file is named otherwise, or lies in the folder itself.
    """
    found: dict[str, dict[str, list[str]]] = {}
    for file in sorted(files):
        if file.suffix != ".parquet":
            continue
        place = _place(file)
        if place is None:
            return {}
        config, split = place
        found.setdefault(config, {}).setdefault(split, []).append(str(file))
    return found


def _place(file: PurePosixPath) -> tuple[str, str] | None:
    """Return the configuration and the split of a file; None if its name does not state them."""
    folders, shard = file.parts[:-1], _SHARD.fullmatch(file.name)
    if not folders or folders[0].lower() in _NO_NAMES:
        return None
    if shard and len(folders) == 1:
        return folders[0], shard[1]
    if len(folders) == 2 and _CONVERTED.fullmatch(file.name):
        return folders[0], folders[1]
    return None
