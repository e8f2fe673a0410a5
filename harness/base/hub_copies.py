"""Copies of repositories of the Hugging Face hub: what the harness loads from there is kept by the hub's libraries.

Other programs of the user share these copies, so they are counted and removed only if they are asked for by name. The
time of their last use is what the file system notes of reading: to a day on most, not at all on some.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from harness.base.cache import Entry

HUB = "hub"
_NO_DATASET = "downloads"  # a folder of the library `datasets`


def hub_entries() -> list[Entry]:
    """List the copies: downloaded repositories, and datasets as the library `datasets` has prepared them."""
    return [*_downloaded(), *_prepared()]


def _downloaded() -> list[Entry]:
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        repositories = scan_cache_dir().repos
    except CacheNotFound:
        return []
    return [
        Entry(HUB, f"{r.repo_type}s/{r.repo_id}", r.repo_path, r.size_on_disk, r.last_accessed)
        for r in repositories
    ]


def _prepared() -> list[Entry]:
    from huggingface_hub import constants

    root = Path(os.environ.get("HF_DATASETS_CACHE") or Path(constants.HF_HOME) / "datasets").expanduser()
    folders = [path for path in root.iterdir() if path.is_dir()] if root.is_dir() else []
    found = []
    for folder in folders:
        with contextlib.suppress(FileNotFoundError):  # another program may remove it meanwhile
            files = [path.lstat() for path in folder.rglob("*") if path.is_file()]
            if files and folder.name != _NO_DATASET:
                size, used = sum(file.st_size for file in files), max(file.st_atime for file in files)
                found.append(Entry(HUB, f"prepared/{folder.name}", folder, size, used))
    return found
