"""Folders on this machine: their files, their digest, and plain folders of images as a dataset."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import numpy as np

import harness
from harness_plugins.datasets.decoding import EncodedDataset

if TYPE_CHECKING:
    from collections.abc import Sequence

IMAGE_SUFFIXES = frozenset(
    {".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
)
SPLIT_NAMES = frozenset({"train", "training", "val", "valid", "validation", "dev", "test", "testing", "eval"})
READ_WHOLE = 1 << 30  # bytes up to which a folder's digest reads every file


def visible_files(folder: Path) -> list[PurePosixPath]:
    """List a folder's files at every depth, relative, in order, without hidden ones; links are followed."""
    found = []
    for parent, folders, files in os.walk(folder, followlinks=True):
        here = Path(parent).resolve()
        folders[:] = [
            name
            for name in folders
            if not name.startswith(".") and not here.is_relative_to(Path(parent, name).resolve())  # no loops
        ]
        relative = Path(parent).relative_to(folder)
        found += [PurePosixPath(relative, name) for name in files if not name.startswith(".")]
    return sorted(found)


def content_of(folder: Path, files: Sequence[PurePosixPath]) -> str:
    """Hash files' names with their bytes, or above 1 GiB in total with their sizes and modification times."""
    stats = [(folder / file).stat() for file in files]
    whole = sum(stat.st_size for stat in stats) <= READ_WHOLE
    digest = hashlib.blake2b(digest_size=16)
    for file, stat in zip(files, stats, strict=True):
        digest.update(f"{file}\0{stat.st_size}\0".encode())
        if whole:
            with (folder / file).open("rb") as handle:
                digest.update(hashlib.file_digest(handle, "blake2b").digest())
        else:
            digest.update(f"{stat.st_mtime_ns}\0".encode())
    return digest.hexdigest()


class ImageFiles:
    """Image files of one folder, in order."""

    def __init__(self, folder: Path, files: Sequence[PurePosixPath]) -> None:
        self._folder = folder
        self._files = list(files)

    def encoded(self, index: int) -> bytes:
        """Read one file."""
        try:
            return (self._folder / self._files[index]).read_bytes()
        except OSError as error:
            raise harness.DatasetError(
                f"{self.place(index)} cannot be read ({error.strerror}). Restore it, or check its permissions"
            ) from error

    def place(self, index: int) -> str:
        """Name the file."""
        return f"the file {self._folder / self._files[index]}"

    def content(self) -> str:
        """Hash the files."""
        return content_of(self._folder, self._files)


def is_image(file: PurePosixPath) -> bool:
    """Return whether a file has the suffix of an image."""
    return file.suffix.lower() in IMAGE_SUFFIXES


def open_image_folder(name: str, folder: Path, split: str | None) -> EncodedDataset:
    """Open CLASS/IMAGE files (labels: the class folders in order) or flat IMAGE files (labels -1).

    A split is a subfolder of that name. If none is given, and all subfolders have usual split names, they are splits.
    """
    root = _root(name, folder, split)
    files = [file for file in visible_files(root) if is_image(file)]
    if not files:
        raise harness.DatasetError(
            f"the dataset {name!r} has no images in {root}. "
            f"Supported suffixes: {', '.join(sorted(IMAGE_SUFFIXES))}"
        )
    labels = np.array(_labels(name, root, files), dtype=np.int64)
    class_names = tuple(_subfolders(root)) if labels.max() >= 0 else None
    return EncodedDataset(ImageFiles(root, files), labels, class_names)


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
    flat = [file for file in files if len(file.parts) == 1]
    if len(flat) == len(files):
        return [-1] * len(files)
    if flat:
        raise harness.DatasetError(
            f"the dataset {name!r} has images beside its class folders, such as {root / flat[0]}. "
            "Move all images into class folders, or none"
        )
    classes = {subfolder: label for label, subfolder in enumerate(_subfolders(root))}
    empty = sorted(classes.keys() - {file.parts[0] for file in files})
    if empty:
        raise harness.DatasetError(
            f"the dataset {name!r} has class folders without images in {root}: {', '.join(empty)}. "
            "Remove or fill them"
        )
    return [classes[file.parts[0]] for file in files]


def _subfolders(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
