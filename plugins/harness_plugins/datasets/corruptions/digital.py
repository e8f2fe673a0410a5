"""Corruptions by processing.

Each takes images (N, C, H, W), a severity of 1 to 5, and one generator per image; or a Pillow image and a severity.
"""

from __future__ import annotations

import io
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from scipy.ndimage import gaussian_filter

from harness_plugins.datasets.corruptions.arrays import displaced, drawn

if TYPE_CHECKING:
    from PIL.Image import Image

    from harness_plugins.datasets.corruptions.arrays import Generators, Images


def contrast(images: Images, severity: int, generators: Generators) -> Images:
    """Move every value towards the mean of its channel."""
    mean = images.mean(axis=(2, 3), keepdims=True)
    found: Images = (images - mean) * np.float32((0.4, 0.3, 0.2, 0.1, 0.05)[severity - 1]) + mean
    return found


def elastic_transform(images: Images, severity: int, generators: Generators) -> Images:
    """Move every pixel by a smooth random field, whose size and smoothness grow with the image."""
    height, width = images.shape[2:]
    stretch = 250 * (0.05, 0.065, 0.085, 0.1, 0.12)[severity - 1]
    reach = 0.005 * height
    fields = drawn(generators, lambda g: g.uniform(-reach, reach, (2, height, width)))
    sigmas = (0.01 * height, 0.01 * width)
    fields = stretch * gaussian_filter(fields, sigmas, mode="reflect", truncate=3, axes=(-2, -1))
    return displaced(images, fields[:, 0], fields[:, 1])


def pixelate(picture: Image, severity: int) -> Image:
    """Average areas of an 8-bit image to fewer pixels, and enlarge them."""
    from PIL.Image import Resampling

    share = (0.6, 0.5, 0.4, 0.3, 0.25)[severity - 1]
    fewer = (int(picture.width * share), int(picture.height * share))
    return picture.resize(fewer, Resampling.BOX).resize(picture.size, Resampling.BOX)


def pixelate_small(images: Images, severity: int, generators: Generators) -> Images:
    """Pixelate images below 32 pixels: average areas to fewer pixels and back, but keep more, with soft edges."""
    share = (0.88, 0.75, 0.63, 0.38, 0.25)[severity - 1]
    rows, columns = (_there_and_back(side, max(1, int(side * share))) for side in images.shape[2:])
    found: Images = rows @ images @ columns.T
    return found


@lru_cache(maxsize=64)
def _there_and_back(side: int, fewer: int) -> Images:
    """Weights (side, side) that average by area to fewer pixels and back."""
    return (_area_weights(fewer, side) @ _area_weights(side, fewer)).astype(np.float32)


def _area_weights(old: int, new: int) -> Images:
    """Weights (new, old), rows summing to 1: the overlap of each new pixel with each old one."""
    edges, cells = np.arange(new + 1) * (old / new), np.arange(old)
    covered = np.minimum(edges[1:, None], cells + 1) - np.maximum(edges[:-1, None], cells)
    weights: Images = covered.clip(min=0) / (old / new)
    return weights


def jpeg_compression(picture: Image, severity: int) -> Image:
    """Compress an 8-bit image by JPEG of low quality."""
    from PIL.Image import open as opened

    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=(25, 18, 15, 10, 7)[severity - 1])
    return opened(buffer)


def saturate(images: Images, severity: int, generators: Generators) -> Images:
    """Scale and raise HSV's saturation, and keep hue and value. Grey images do not change."""
    if images.shape[1] == 1:
        return images
    factor, rise = ((0.3, 0.0), (0.1, 0.0), (2.0, 0.0), (5.0, 0.1), (20.0, 0.2))[severity - 1]
    value, low = images.max(axis=1, keepdims=True), images.min(axis=1, keepdims=True)
    spread = value - low
    saturation = np.where(value > 0, spread / np.where(value > 0, value, 1), 0)
    wanted = np.clip(saturation * factor + rise, 0, 1)
    # How far each channel is below the value, as a share of the spread; a grey pixel has the hue 0, red.
    red = np.array([0, 1, 1], dtype=np.float32)[:, None, None]
    below = np.where(spread > 0, (value - images) / np.where(spread > 0, spread, 1), red)
    found: Images = value * (1 - wanted * below)
    return found
