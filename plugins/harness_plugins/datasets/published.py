"""Corrupted datasets as they were published: the files of CIFAR-10-C, CIFAR-100-C, MNIST-C and ImageNet-C.

`published:FOLDER` is searched like a folder `hf:FOLDER`, and its layout is recognised from its content:

- CORRUPTION.npy, the severities 1 to 5 one after another, and labels.npy: CIFAR-10-C and CIFAR-100-C
- CORRUPTION/test_images.npy, test_labels.npy and the same of train, without severities: MNIST-C
- CORRUPTION/SEVERITY/CLASS/IMAGE, or the same below folders of categories: ImageNet-C

Arrays are memory-mapped: only the requested images are held in memory. Pickled objects are refused.
"""

from __future__ import annotations

import hashlib
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np

import harness
from harness_plugins.datasets.folders import content_of, open_image_folder
from harness_plugins.datasets.hub import find_folder

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    from harness_plugins.datasets.decoding import EncodedDataset

SEVERITIES = (1, 2, 3, 4, 5)
SPLITS = ("test", "train")
LABELS = "labels.npy"


class MappedDataset:
    """Images of a memory-mapped file with their labels: part number `part`, from 0, of `parts` equal parts.

    The files hold uint8 (N, H, W), (N, H, W, 1) or (N, H, W, 3), and integers (N,). Raises DatasetError for others.
    """

    def __init__(self, folder: Path, images: Path, labels: Path, *, part: int = 0, parts: int = 1) -> None:
        data = harness.DataFolder(folder)
        pixels, classes = _images(data, images), _labels(data, labels)
        if len(classes) != len(pixels):
            raise harness.DatasetError(
                f"the file {labels} has {len(classes)} labels and {images} {len(pixels)} images. "
                "Restore the two files that were published together"
            )
        size, rest = divmod(len(pixels), parts)
        if rest:
            raise harness.DatasetError(
                f"the file {images} has {len(pixels)} images, which are not {parts} severities of one size. "
                "Restore the published file"
            )
        self._images = pixels[part * size : (part + 1) * size]
        self._labels = np.array(classes[part * size : (part + 1) * size], dtype=np.int64)
        self._data, self._files, self._part = data, (images, labels), f"{part}/{parts}"

    @cached_property
    def digest(self) -> str:
        """BLAKE2b of the two files' content and the number of the part."""
        folder = self._data.path
        files = [PurePosixPath(file.relative_to(folder)) for file in self._files]
        content = f"{content_of(self._data, folder, files)}/{self._part}"
        return hashlib.blake2b(content.encode(), digest_size=16).hexdigest()

    @property
    def labels(self) -> NDArray[np.int64]:
        """Classes, (N,)."""
        return self._labels

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        return np.array(self._images[index], order="C")

    def identity(self, index: int) -> bytes:
        """Return the image's pixels."""
        return self[index].tobytes()


def open_published(
    request: harness.DatasetRequest, *, corruption: str | None = None, severity: int | None = None
) -> MappedDataset | EncodedDataset:
    """Open one corruption of CIFAR-10-C, CIFAR-100-C, MNIST-C or ImageNet-C, as their authors publish them.

    `severity` is 1 to 5, if the files have severities.

    Labels are those of the files; for ImageNet-C, the class folders are numbered in order, as in any image folder. Only
    MNIST-C has splits: test, the default, and train. Raises DatasetError for files that are missing or not as
    published, UnknownNameError and InputError for a corruption, split or severity that the files do not have.
    """
    folder = _folder(request)
    if stacks := {file.stem: file for file in _found(folder, "*.npy") if file.name != LABELS}:
        return _open_stack(request, folder, _chosen(request, corruption, stacks), severity)
    pairs = {split: _found(folder, f"*/{split}_images.npy") for split in SPLITS}
    if any(pairs.values()):
        return _open_pair(request, folder, pairs, corruption, severity)
    if graded := _found(folder, "*/[1-5]") or _found(folder, "*/*/[1-5]"):
        return _open_graded(
            request, folder, _chosen(request, corruption, _by_name(request, graded)), severity
        )
    raise harness.DatasetError(
        f"the dataset {request.name!r} has no published corruptions in {folder}. Looked for CORRUPTION.npy beside "
        f"{LABELS}, CORRUPTION/test_images.npy and CORRUPTION/SEVERITY/CLASS/IMAGE. Unpack the published files there"
    )


def _open_stack(
    request: harness.DatasetRequest, folder: Path, images: Path, severity: int | None
) -> MappedDataset:
    """Open a severity of CIFAR-10-C's layout."""
    _refuse_split(request)
    part = _required(request, severity) - 1
    return MappedDataset(folder, images, folder / LABELS, part=part, parts=len(SEVERITIES))


def _open_pair(
    request: harness.DatasetRequest,
    folder: Path,
    pairs: Mapping[str, list[Path]],
    corruption: str | None,
    severity: int | None,
) -> MappedDataset:
    """Open a split of MNIST-C's layout."""
    split = request.split or SPLITS[0]
    if split not in pairs:
        raise harness.unknown_name(f"split of {request.name!r}", split, SPLITS, valid_label="Valid")
    images = _chosen(request, corruption, {file.parent.name: file for file in pairs[split]})
    if severity is not None:
        raise harness.InputError(
            f"severity = {severity!r} of {request.name!r} is given, but its files have none. Leave severity out"
        )
    return MappedDataset(folder, images, images.with_name(f"{split}_labels.npy"))


def _open_graded(
    request: harness.DatasetRequest, folder: Path, of_corruption: Path, severity: int | None
) -> EncodedDataset:
    """Open a severity of ImageNet-C's layout."""
    _refuse_split(request)
    chosen = of_corruption / str(_required(request, severity))
    if not chosen.is_dir():
        there = ", ".join(path.name for path in _found(of_corruption, "[1-5]"))
        raise harness.DatasetError(
            f"severity = {severity} of {request.name!r} is not there: no folder {chosen}. "
            f"Severities there: {there}. Unpack it, or name another"
        )
    return open_image_folder(request.name, chosen, None, data=harness.DataFolder(folder))


def _folder(request: harness.DatasetRequest) -> Path:
    if not request.argument:
        raise harness.InputError(f"{request.name!r} names no folder. Give one: 'published:CIFAR-10-C'")
    folder = find_folder(request)
    if folder is None:
        root = "which is not set" if request.data_root is None else str(request.data_root)
        raise harness.DatasetError(
            f"no dataset {request.name!r}: no folder {request.argument!r} here or below OOD_HARNESS_DATA, {root}. "
            "Unpack the published files there, or check the name"
        )
    return folder


def _found(folder: Path, pattern: str) -> list[Path]:
    """List the paths that match a pattern, in order, without hidden ones."""
    return sorted(
        path
        for path in folder.glob(pattern)
        if not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )


def _by_name(request: harness.DatasetRequest, severities: list[Path]) -> dict[str, Path]:
    """Map each corruption's name to its folder, given the folders of severities, in any category."""
    named: dict[str, Path] = {}
    for folder in (path.parent for path in severities):
        if named.setdefault(folder.name, folder) != folder:
            raise harness.DatasetError(
                f"the dataset {request.name!r} has {folder.name} twice: {named[folder.name]} and {folder}. Remove one"
            )
    return named


def _chosen(request: harness.DatasetRequest, corruption: str | None, there: Mapping[str, Path]) -> Path:
    """Find a corruption among the files or folders found, so that no name leads to another folder."""
    if not isinstance(corruption, str):
        raise harness.InputError(
            f"corruption = {corruption!r} of {request.name!r} is not a name. Give one of {', '.join(sorted(there))}"
        )
    if corruption not in there:
        raise harness.unknown_name(f"corruption in {request.name!r}", corruption, there, valid_label="There")
    return there[corruption]


def _required(request: harness.DatasetRequest, severity: int | None) -> int:
    if type(severity) is not int or severity not in SEVERITIES:
        raise harness.InputError(
            f"severity = {severity!r} of {request.name!r} is not valid. Give 1, 2, 3, 4 or 5"
        )
    return severity


def _refuse_split(request: harness.DatasetRequest) -> None:
    if request.split is not None:
        raise harness.DatasetError(
            f"the dataset {request.name!r} has no split {request.split!r}: it is made of test images. "
            "Leave split out"
        )


def _images(data: harness.DataFolder, file: Path) -> NDArray[np.uint8]:
    """Map a file of images: (N, H, W) grey or (N, H, W, 3) RGB."""
    array = _mapped(data, file)
    grey = array.ndim == 3 or (array.ndim == 4 and array.shape[3] == 1)
    if array.dtype != np.uint8 or not (grey or (array.ndim == 4 and array.shape[3] == 3)):
        raise harness.DatasetError(
            f"the file {file} holds {array.dtype} {array.shape}. "
            "Give images, uint8 (N, H, W), (N, H, W, 1) or (N, H, W, 3)"
        )
    return array[..., 0] if array.ndim == 4 and grey else array


def _labels(data: harness.DataFolder, file: Path) -> NDArray[np.integer[Any]]:
    """Map a file of labels, (N,)."""
    array = _mapped(data, file)
    if array.dtype.kind not in "iu" or array.ndim != 1:
        raise harness.DatasetError(
            f"the file {file} holds {array.dtype} {array.shape}. Give labels, integers (N,)"
        )
    return array


def _mapped(data: harness.DataFolder, file: Path) -> NDArray[Any]:
    data.stat(file)
    try:
        return np.lib.format.open_memmap(file, mode="r")  # unlike np.load, no pickles and no archives
    except OSError as error:
        raise harness.DatasetError(
            f"the file {file} cannot be read ({error.strerror}). Restore it, or check its permissions"
        ) from error
    except Exception as error:  # a damaged header fails in many ways
        raise harness.DatasetError(
            f"the file {file} is not an array of numbers ({' '.join(str(error).split())}). Restore the published file"
        ) from error


@harness.hookimpl
def harness_datasets() -> Iterator[harness.DatasetSpec]:
    """Offer the published corruptions."""
    yield harness.DatasetSpec(
        "published",
        open_published,
        cite="Hendrycks & Dietterich, ICLR 2019, arXiv 1903.12261; Mu & Gilmer, 2019, arXiv 1906.02337",
        argument="a folder",
    )
