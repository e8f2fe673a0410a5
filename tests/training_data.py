"""Small labelled data to train on, for the tests of training and of models."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

import harness
from harness import Selection

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class ArrayDataset:
    """Images that are in memory."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]

    @property
    def digest(self) -> str:
        content = np.ascontiguousarray(self.images).tobytes() + np.ascontiguousarray(self.labels).tobytes()
        return hashlib.blake2b(content, digest_size=16).hexdigest()

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        image: NDArray[np.uint8] = self.images[index]
        return image

    def identity(self, index: int) -> bytes:
        return self.images[index].tobytes()


def selected(images: NDArray[np.uint8], labels: Any, name: str) -> Selection:
    return Selection.all_of(name, ArrayDataset(images, np.asarray(labels, dtype=np.int64)))


def digits_0_to_4() -> tuple[Selection, Selection, Selection]:
    """Split scikit-learn's digits 0-4 into train, validation and test."""
    from sklearn.datasets import load_digits

    loaded = load_digits()
    images = np.round(loaded.images * (255 / 16)).astype(np.uint8)
    known = selected(images, loaded.target, "digits").with_classes(range(5))
    rest, test = known.split(0.3, seed=0)
    train, validation = rest.split(0.15, seed=1)
    return train, validation, test


def bright_and_dark() -> harness.TrainingData:
    """Make two classes that brightness tells apart, 48 images of 8x8."""
    rng = np.random.default_rng(0)
    labels = np.arange(48) % 2
    images = (rng.integers(0, 100, (48, 8, 8)) + 100 * labels[:, None, None]).astype(np.uint8)
    selection = selected(images, labels, "tiny")
    return harness.TrainingData(selection.take(np.arange(40)), selection.take(np.arange(40, 48)), 2)
