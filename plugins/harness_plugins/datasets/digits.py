"""scikit-learn's handwritten digits: 1,797 grey images of 8×8 pixels in ten classes, no download."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

import harness
from harness_plugins.datasets.arrays import ArrayDataset

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

SPLITS = ("train", "validation", "test")
VALIDATION_SHARE = 0.15
TEST_SHARE = 0.25
SPLIT_SEED = 0


def open_digits(request: harness.DatasetRequest) -> ArrayDataset:
    """Open scikit-learn's 8x8 digits: 60 % train, 15 % validation, 25 % test of each class, the same at every call.

    Pixels 0..16 become round(x · 255 / 16). No two of the 1,797 images are equal, so the splits share no image.
    """
    from sklearn.datasets import load_digits

    if request.split not in SPLITS:
        raise harness.unknown_name("split of 'digits'", request.split or "", SPLITS, valid_label="Valid")
    pixels, labels = load_digits(return_X_y=True)
    images = np.rint(pixels.reshape(-1, 8, 8) * 255 / 16).astype(np.uint8)
    chosen = _split_indices(labels)[request.split]
    return ArrayDataset(images[chosen], labels[chosen])


def _split_indices(labels: NDArray[np.int64]) -> dict[str, NDArray[np.int64]]:
    """Divide every class by the shares: ascending positions by split name."""
    rng = np.random.default_rng(SPLIT_SEED)
    parts: dict[str, list[NDArray[np.int64]]] = {split: [] for split in SPLITS}
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        test = round(TEST_SHARE * len(members))
        validation = test + round(VALIDATION_SHARE * len(members))
        parts["test"].append(members[:test])
        parts["validation"].append(members[test:validation])
        parts["train"].append(members[validation:])
    return {split: np.sort(np.concatenate(members)) for split, members in parts.items()}


@harness.hookimpl
def harness_datasets() -> Iterator[harness.DatasetSpec]:
    """Offer the digits."""
    yield harness.DatasetSpec(
        "digits", open_digits, cite="Alpaydin & Kaynak, UCI 1998, by way of scikit-learn"
    )
