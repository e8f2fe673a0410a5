"""Images kept as encoded bytes and decoded on access, to 8-bit grey or RGB."""

from __future__ import annotations

import hashlib
import os
from functools import cached_property
from io import BytesIO
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np

import harness

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path, PurePath

    from numpy.typing import NDArray
    from PIL import Image

FORMATS = ("AVIF", "BMP", "DIB", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TGA", "TIFF", "WEBP")
# Pillow opens many more, some by other programs: an EPS file is run by Ghostscript.
GREY_MODES = frozenset({"1", "LA", "La"})
WIDE_GREY_MODES = frozenset({"I", "I;16", "I;16B", "I;16L", "I;16N"})


class Source(Protocol):
    """Where encoded images come from."""

    def encoded(self, index: int) -> bytes:
        """Return one image as it is stored."""
        ...

    def place(self, index: int) -> str:
        """Name the image in an error message."""
        ...

    def content(self) -> str:
        """Identify the images: equal content gives equal strings."""
        ...


@runtime_checkable
class Files(Protocol):
    """A source with one file per image."""

    def file(self, index: int) -> Path:
        """Return an image's file."""
        ...


class EncodedDataset:
    """Images of a source, decoded on access; orientation tags (EXIF) are not applied."""

    def __init__(
        self,
        source: Source,
        labels: NDArray[np.int64],
        class_names: tuple[str, ...] | None = None,
        facts: Mapping[str, object] | None = None,
    ) -> None:
        self._source = source
        self._labels = labels
        self.class_names = class_names  # by label, if the data have names
        self.facts = dict(facts or {})  # for run.json

    @cached_property
    def digest(self) -> str:
        """BLAKE2b of the source's content and the labels."""
        digest = hashlib.blake2b(self._source.content().encode(), digest_size=16)
        digest.update(np.ascontiguousarray(self._labels, dtype="<i8").tobytes())
        return digest.hexdigest()

    @property
    def labels(self) -> NDArray[np.int64]:
        """Classes, (N,); -1 without a label."""
        return self._labels

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        encoded = self._source.encoded(index)
        try:
            return decode(encoded)
        except Exception as error:  # decoders raise many errors on damaged bytes
            raise harness.DatasetError(
                f"{self._source.place(index)} is not a readable image ({error}). Replace or remove it, or set "
                'unreadable = "skip"'
            ) from error

    def path(self, index: int) -> str | None:
        """Return the path of an image's file; None if the source holds no files."""
        files = self._source
        return printable(files.file(index)) if isinstance(files, Files) else None

    def identity(self, index: int) -> bytes:
        """Return the encoded bytes."""
        return self._source.encoded(index)


def printable(path: PurePath) -> str:
    """Write a path for a message; bytes of a name that are no UTF-8 are replaced."""
    return os.fsencode(path).decode("utf-8", "replace")


def decode(encoded: bytes) -> NDArray[np.uint8]:
    """Decode an image file to (H, W) grey or (H, W, 3) RGB, depending only on its stored mode.

    Grey stays grey; 16-bit grey is divided by 257; palettes, CMYK and other modes become RGB; transparency is
    dropped, as in common loaders. Of several frames, the first is used. Raises ValueError for pixels without an
    8-bit meaning, and any error of Pillow for damaged bytes.
    """
    from PIL import Image

    with Image.open(BytesIO(encoded), formats=FORMATS) as image:
        if image.mode in WIDE_GREY_MODES:
            return _narrowed(np.asarray(image))
        if image.mode == "F":
            raise ValueError("floating-point pixels have no 8-bit meaning")
        return np.array(_eight_bit(image))


def _eight_bit(image: Image.Image) -> Image.Image:
    if image.mode in ("L", "RGB"):
        return image
    if image.mode in GREY_MODES:
        return image.convert("L")
    if image.mode in ("P", "PA") and "transparency" in image.info:
        return image.convert("RGBA").convert("RGB")  # Pillow warns about direct conversion
    return image.convert("RGB")


def _narrowed(grey: NDArray[np.int64]) -> NDArray[np.uint8]:
    if grey.size and not 0 <= grey.min() <= grey.max() <= 65535:
        raise ValueError(f"grey values {grey.min()} to {grey.max()} are not of 16 bits")
    return np.rint(grey / 257).astype(np.uint8)
