"""Datasets that are held in memory: small embedded ones and generated ones."""

from __future__ import annotations

import hashlib
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

import harness

if TYPE_CHECKING:
    from numpy.typing import NDArray


class ArrayDataset:
    """Images in one array, uint8 (N, H, W) grey or (N, H, W, 3) RGB, and labels (N,), all -1 if not given."""

    def __init__(self, images: NDArray[np.uint8], labels: NDArray[np.int64] | None = None) -> None:
        grey, colour = images.ndim == 3, images.ndim == 4 and images.shape[3] == 3
        if images.dtype != np.uint8 or not (grey or colour):
            raise harness.InputError(
                f"images are {images.dtype} {images.shape}. Give uint8, (N, H, W) grey or (N, H, W, 3) RGB"
            )
        classes = np.full(len(images), -1) if labels is None else labels
        if classes.shape != (len(images),):
            raise harness.InputError(
                f"labels have shape {classes.shape}. Give ({len(images)},), one per image"
            )
        self._images = np.ascontiguousarray(images)
        self._labels = np.ascontiguousarray(classes, dtype="<i8")

    @cached_property
    def digest(self) -> str:
        """BLAKE2b of shape, pixels and labels."""
        digest = hashlib.blake2b(repr(self._images.shape).encode(), digest_size=16)
        digest.update(self._images.tobytes())
        digest.update(self._labels.tobytes())
        return digest.hexdigest()

    @property
    def labels(self) -> NDArray[np.int64]:
        """Classes, (N,); -1 without a label."""
        return self._labels

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        image: NDArray[np.uint8] = self._images[index]
        return image.copy()

    def identity(self, index: int) -> bytes:
        """Return the image's pixels."""
        return self[index].tobytes()
