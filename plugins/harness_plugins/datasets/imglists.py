"""Lists of images, a line `path label` each: the form in which OpenOOD, OpenMIBOOD and SSB publish their protocols.

`imglist:FILE` is looked for beside the suite's file, in the working folder and under OOD_HARNESS_DATA. The label is the
last word of a line, -1 for none; the path before it may contain spaces. Blank lines are skipped.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import numpy as np

import harness
from harness_plugins.datasets.decoding import EncodedDataset, printable
from harness_plugins.datasets.folders import ImageFiles
from harness_plugins.datasets.openood import protocol_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

LABEL = re.compile(rb"-1|[0-9]{1,18}")  # at most 18 digits: it fits int64
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
LAYOUT = ("images_largescale", "images_classic", "")  # OpenOOD's folders of images, or none

logger = logging.getLogger("ood_harness")


@dataclass(frozen=True)
class ImageList:
    """The lines of a list: paths below a root, and labels (N,), -1 for none."""

    paths: list[str]
    labels: NDArray[np.int64]


def open_image_list(request: harness.DatasetRequest, *, root: str | None = None) -> EncodedDataset:
    """Open the images of a list, a line `path label` each, in order; they stay encoded until they are read.

    Paths start at `root`, a folder that is looked for as the list is. By default they start where FILE starts, or at
    OOD_HARNESS_DATA, in the folder images_largescale, images_classic or none, or beside the list: at the first of these
    places that has the first image. An image that a list repeats is kept, and counted among the facts.

    Raises DatasetError for a list or images that are missing, for a line without a path and a label, for a path that
    leaves the root, and for an image with two labels.
    """
    if request.split is not None:
        raise harness.InputError(f"{request.name!r} is one list and has no splits. Leave split out")
    start, file = _list_file(request)
    content = _content(request, file)
    listed = _parsed(printable(file), content)
    data = harness.DataFolder(_root(request, root, start, file, listed.paths))
    facts: dict[str, object] = {
        "list": request.argument,
        "lines": len(listed.paths),
        "sha256": hashlib.sha256(content).hexdigest(),  # of the list's bytes
    }
    if repeated := _repeated(request, listed):
        facts["repeated"] = repeated
    if protocol := protocol_of(file, listed.paths, listed.labels.tolist()):
        facts["protocol"] = protocol
    return EncodedDataset(ImageFiles(data, data.path, listed.paths), listed.labels, facts=facts)


def _list_file(request: harness.DatasetRequest) -> tuple[Path, Path]:
    """Find the list; return the place from which its name starts, and its path."""
    if not request.argument:
        raise harness.InputError(
            f"{request.name!r} names no list. Give the path of a text file: 'imglist:FILE'"
        )
    name = Path(request.argument).expanduser()
    places = _places(request, name)
    for place in places:
        if (place / name).is_file():
            return place, place / name
    looked = ", ".join(printable(place / name) for place in places)
    raise harness.DatasetError(
        f"no list {request.name!r}. Looked for {looked}{_unset(request)}. Check the path"
    )


def _places(request: harness.DatasetRequest, name: Path) -> list[Path]:
    """List the folders in which a name is looked for. No name leads out of OOD_HARNESS_DATA."""
    if name.is_absolute():
        return [name.parent]
    beside = [request.folder] if request.folder is not None else []
    below = [request.data_root] if request.data_root is not None and not _leaves(str(name)) else []
    return [*beside, Path(), *below]


def _unset(request: harness.DatasetRequest) -> str:
    return " (OOD_HARNESS_DATA is not set)" if request.data_root is None else ""


def _content(request: harness.DatasetRequest, file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise harness.DatasetError(
            f"the list {request.name!r} cannot be read from {printable(file)} ({error.strerror}). "
            "Check its permissions"
        ) from error


def _parsed(file: str, content: bytes) -> ImageList:
    """Read the lines as bytes: names of files need not be UTF-8."""
    paths, labels = [], []
    for number, line in enumerate(content.removeprefix(BYTE_ORDER_MARK).split(b"\n"), start=1):
        words = line.strip().rsplit(None, 1)
        if not words:
            continue
        if len(words) == 1 or not LABEL.fullmatch(words[1]):
            raise harness.DatasetError(
                f"line {number} of {file} is {_shown(line)}, not a path and a label. End each line in an integer from "
                "0, or -1 for none"
            )
        path = os.fsdecode(words[0])
        if _leaves(path):
            raise harness.DatasetError(
                f"line {number} of {file} names {_shown(words[0])}, which leaves the folder of the images. Give paths "
                "below it, without '..'"
            )
        paths.append(path)
        labels.append(int(words[1]))
    if not paths:
        raise harness.DatasetError(f"the list {file} has no lines. Give one `path label` for each image")
    return ImageList(paths, np.array(labels, dtype=np.int64))


def _shown(text: bytes) -> str:
    shown = text.strip().decode("utf-8", "replace")
    return repr(shown if len(shown) <= 80 else shown[:80] + "…")


def _leaves(path: str) -> bool:
    own = Path(path)
    return own.is_absolute() or ".." in own.parts or "\0" in path


def _root(
    request: harness.DatasetRequest, root: str | None, start: Path, file: Path, paths: list[str]
) -> Path:
    """Find the folder at which the paths start. Raises DatasetError if an image is not there."""
    roots = _given_roots(request, root) if root is not None else _usual_roots(request, start, file)
    chosen = next((folder for folder in roots if _has(folder)(paths[0])), None)
    if chosen is None:
        chosen = min(roots, key=lambda folder: sum(not there for there in map(_has(folder), paths)))
    has = _has(chosen)
    missing = [path for path in paths if not has(path)]
    if missing:
        others = ", ".join(printable(folder) for folder in roots if folder != chosen)
        raise harness.DatasetError(
            f"{len(missing)} of {len(paths)} images of the list {request.name!r} are not in {printable(chosen)}: "
            f"{harness.shortened(map(_printable_name, missing))}. Unpack them there, or name the folder at which its "
            "paths start with the parameter root"
            + (f". Other folders that were looked in: {others}" if others else "")
        )
    return chosen


def _given_roots(request: harness.DatasetRequest, root: str) -> list[Path]:
    own = Path(root).expanduser()
    candidates = [place / own for place in _places(request, own)]
    roots = [folder for folder in candidates if folder.is_dir()]
    if not roots:
        looked = ", ".join(printable(folder) for folder in candidates)
        raise harness.DatasetError(
            f"no folder root = {root!r} of {request.name!r}. Looked for {looked}{_unset(request)}. Check the path"
        )
    return roots


def _usual_roots(request: harness.DatasetRequest, start: Path, file: Path) -> list[Path]:
    bases = [start, *([request.data_root] if request.data_root is not None else [])]
    layouts = [base / layout for base in bases for layout in LAYOUT]
    return list(dict.fromkeys(folder for folder in (*layouts, file.parent) if folder.is_dir()))


def _has(folder: Path) -> Callable[[str], bool]:
    # A link to nowhere counts as there: `unreadable` says what becomes of it.
    return lambda path: os.path.lexists(folder / path)


def _printable_name(path: str) -> str:
    return printable(PurePosixPath(path))


def _repeated(request: harness.DatasetRequest, listed: ImageList) -> int:
    """Count the lines that repeat an image, and warn of them. Raises DatasetError for an image with two labels."""
    if len(set(listed.paths)) == len(listed.paths):
        return 0
    labels = defaultdict(set)
    for path, label in zip(listed.paths, listed.labels.tolist(), strict=True):
        labels[path].add(label)
    for path, found in labels.items():
        if len(found) > 1:
            raise harness.DatasetError(
                f"the list {request.name!r} gives the image {_printable_name(path)} the labels "
                f"{' and '.join(map(str, sorted(found)))}. Keep one of the lines"
            )
    repeated = len(listed.paths) - len(labels)
    logger.warning("%s: %d lines repeat an image, which counts each time", request.name, repeated)
    return repeated


@harness.hookimpl
def harness_datasets() -> Iterator[harness.DatasetSpec]:
    """Offer image lists."""
    yield harness.DatasetSpec(
        "imglist", open_image_list, argument="a text file, a line `path label` per image"
    )
