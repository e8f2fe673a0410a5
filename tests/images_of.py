"""What several tests of datasets need."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    import harness


def all_images(dataset: harness.ImageDataset) -> NDArray[np.uint8]:
    return np.stack([dataset[index] for index in range(len(dataset))])
