"""Folders on this machine: their files, their digest, and plain folders of images as a dataset."""

from __future__ import annotations

import hashlib
import logging
import os
from collections import Counter
from functools import cache
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import numpy as np

import harness
from harness_plugins.datasets.decoding import FORMATS, EncodedDataset, printable

if TYPE_CHECKING:
    from collections.abc import Sequence

SPLIT_NAMES = frozenset({"train", "training", "val", "valid", "validation", "dev", "test", "testing", "eval"})
SYSTEM_FOLDERS = frozenset(
    {
        "@eadir",
        "@tmp",
        "#recycle",
        "#snapshot",
        "$recycle.bin",
        "__macosx",
        "lost+found",
        "system volume information",
    }
)
SYSTEM_FILES = frozenset({"thumbs.db", "desktop.ini"})
READ_WHOLE = 1 << 30  # bytes up to which a folder's digest reads every file

logger = logging.getLogger("ood_harness")


@cache
def image_suffixes() -> frozenset[str]:
    """Return the suffixes of the image files that are decoded, in lower case."""
    from PIL import Image

    return frozenset(suffix for suffix, of in Image.registered_extensions().items() if of in FORMATS)


def is_image(file: PurePosixPath) -> bool:
    """Return whether a file has the suffix of an image."""
    return file.suffix.lower() in image_suffixes()


def is_visible(name: str) -> bool:
    """Return whether a file or folder is one of the user's: not hidden, and not made by a system for itself."""
    return not name.startswith(".") and name.lower() not in SYSTEM_FOLDERS | SYSTEM_FILES


def visible_files(data: harness.DataFolder, folder: Path | None = None) -> list[PurePosixPath]:
    """List the files of data, or of a folder in them, at every depth, relative, in order; hidden ones are left out.

    Raises DatasetError for links that lead out of the data, and for what is no file, such as pipes.
    """
    top = folder or data.path
    found, waiting = [], [(top, PurePosixPath())]
    while waiting:
        parent, relative = waiting.pop()
        here = data.require_folder(parent)
        with os.scandir(parent) as entries:
            for entry in (entry for entry in entries if is_visible(entry.name)):
                path = Path(parent, entry.name)
                if path.is_dir() if entry.is_symlink() else entry.is_dir():
                    if not (
                        entry.is_symlink() and here.is_relative_to(data.require_folder(path))
                    ):  # no loops
                        waiting.append((path, relative / entry.name))
                else:
                    if not entry.is_file(follow_symlinks=False):
                        data.stat(path)
                    found.append(relative / entry.name)
    return sorted(found)


def content_of(data: harness.DataFolder, folder: Path, files: Sequence[PurePosixPath | str]) -> str:
    """Hash files' names with their bytes, or above 1 GiB in total with their sizes and modification times.

    Names start at the folder, which is in the data. A file that is away, such as a link to nowhere, counts as such.
    Raises DatasetError for one that cannot be read, and for one outside of the data.
    """
    stats = [data.stat(folder / file) for file in files]
    whole = sum(stat.st_size for stat in stats if stat is not None) <= READ_WHOLE
    digest = hashlib.blake2b(digest_size=16)
    for file, stat in zip(files, stats, strict=True):
        digest.update(os.fsencode(file))
        if stat is None:
            digest.update(b"\0away\0")
            continue
        digest.update(f"\0{stat.st_size}\0".encode())
        digest.update(_hash_of(folder / file) if whole else f"{stat.st_mtime_ns}\0".encode())
    return digest.hexdigest()


def _hash_of(path: Path) -> bytes:
    try:
        with path.open("rb") as handle:
            return hashlib.file_digest(handle, "blake2b").digest()
    except OSError as error:
        raise harness.DatasetError(_unreadable(path, error)) from error


def _unreadable(path: Path, error: OSError) -> str:
    return (
        f"the file {printable(path)} cannot be read ({error.strerror}). Restore it, check its permissions, or set "
        'unreadable = "skip"'
    )


class ImageFiles:
    """Image files of one folder of some data, in order."""

    def __init__(self, data: harness.DataFolder, folder: Path, files: Sequence[PurePosixPath | str]) -> None:
        self._data, self._folder = data, folder
        self._files = list(files)

    def encoded(self, index: int) -> bytes:
        """Read one file."""
        try:
            return self._data.read(self.file(index))
        except OSError as error:
            raise harness.DatasetError(_unreadable(self.file(index), error)) from error

    def place(self, index: int) -> str:
        """Name the file."""
        return f"the file {printable(self.file(index))}"

    def file(self, index: int) -> Path:
        """Return an image's file."""
        return self._folder / self._files[index]

    def content(self) -> str:
        """Hash the files."""
        return content_of(self._data, self._folder, self._files)


def open_image_folder(
    name: str,
    folder: Path,
    split: str | None,
    *,
    labelled: bool = True,
    data: harness.DataFolder | None = None,
) -> EncodedDataset:
    """Open CLASS/IMAGE files (labels: the class folders in order) or flat IMAGE files (labels -1).

    A split is a subfolder of that name. If none is given, and all subfolders have usual split names, they are splits.
    If labels are not asked for, any arrangement of folders is fine; labels are -1 if it is neither of the two.
    The folder is one of `data`, by default all of them.
    """
    root, data = _root(name, folder, split), data or harness.DataFolder(folder)
    listed = visible_files(data, root)
    files = [file for file in listed if is_image(file)]
    if not files:
        raise harness.DatasetError(
            f"the dataset {name!r} has no images in {printable(root)}. "
            f"Suffixes of images: {', '.join(sorted(image_suffixes()))}"
        )
    is_classed = labelled or _fault(root, files) is None
    labels = np.array(_labels(name, root, files) if is_classed else [-1] * len(files), dtype=np.int64)
    class_names = tuple(_subfolders(root)) if labels.max() >= 0 else None
    facts = _left_out(name, listed)
    return EncodedDataset(ImageFiles(data, root, files), labels, class_names, facts)


def _left_out(name: str, listed: Sequence[PurePosixPath]) -> dict[str, object]:
    """Count the files that are no images by their suffix, and say so."""
    counts = Counter(file.suffix.lower() or "no suffix" for file in listed if not is_image(file))
    if not counts:
        return {}
    named = ", ".join(f"{count} × {suffix}" for suffix, count in sorted(counts.items()))
    logger.warning(
        "%s: %d files are left out, since Pillow reads no image from them: %s", name, counts.total(), named
    )
    return {"left_out": dict(sorted(counts.items()))}


def _root(name: str, folder: Path, split: str | None) -> Path:
    """Find the folder that holds the split's images."""
    subfolders = _subfolders(folder)
    splits = [subfolder for subfolder in subfolders if subfolder.lower() in SPLIT_NAMES]
    if split is not None:
        if split not in subfolders:
            raise harness.DatasetError(
                f"the dataset {name!r} has no split {split!r}: {folder} has no folder of that name. "
                + (f"Splits: {', '.join(splits)}" if splits else "It has no splits: leave split out")
            )
        return folder / split
    if not splits or splits != subfolders:
        return folder
    if len(splits) > 1:
        raise harness.DatasetError(
            f"the dataset {name!r} has several splits: {', '.join(splits)}. Name one with split"
        )
    return folder / splits[0]


def _labels(name: str, root: Path, files: Sequence[PurePosixPath]) -> list[int]:
    if all(len(file.parts) == 1 for file in files):
        return [-1] * len(files)
    if fault := _fault(root, files):
        raise harness.DatasetError(f"the dataset {name!r} has {fault}")
    classes = {subfolder: label for label, subfolder in enumerate(_subfolders(root))}
    return [classes[file.parts[0]] for file in files]


def _fault(root: Path, files: Sequence[PurePosixPath]) -> str | None:
    """Say why files in folders have no classes; None if they have, or are flat."""
    flat = [file for file in files if len(file.parts) == 1]
    if len(flat) == len(files):
        return None
    if flat:
        return (
            f"images beside its class folders, such as {printable(root / flat[0])}. "
            "Move all images into class folders, or none"
        )
    empty = sorted({*_subfolders(root)} - {file.parts[0] for file in files})
    if empty:
        return f"class folders without images in {printable(root)}: {harness.shortened(empty)}. Remove or fill them"
    return None


def _subfolders(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_dir() and is_visible(path.name))
