"""Corruptions by processing. Each takes images (N, C, H, W), a severity of 1 to 5, and a generator an image."""

from __future__ import annotations

import io
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.ndimage import gaussian_filter

from harness_plugins.datasets.corruptions.arrays import SMALL, displaced, drawn, side_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness_plugins.datasets.corruptions.arrays import Generators, Images


def contrast(images: Images, severity: int, generators: Generators) -> Images:
    """Draw every value towards the mean of its channel."""
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


def pixelate(images: Images, severity: int, generators: Generators) -> Images:
    """Average areas to fewer pixels, and enlarge these; below 32 pixels more of them are kept, with soft edges."""
    height, width = images.shape[2:]
    if side_of(images) < SMALL:
        share = (0.88, 0.75, 0.63, 0.38, 0.25)[severity - 1]
        rows, columns = (_there_and_back(side, max(1, int(side * share))) for side in (height, width))
        found: Images = rows @ images @ columns.T
        return found
    from PIL import Image

    share, box = (0.6, 0.5, 0.4, 0.3, 0.25)[severity - 1], Image.Resampling.BOX
    fewer = (int(width * share), int(height * share))
    return _through_pillow(images, lambda picture: picture.resize(fewer, box).resize((width, height), box))


@lru_cache(maxsize=64)
def _there_and_back(side: int, fewer: int) -> Images:
    """Weights (side, side) that average by area to fewer pixels and back."""
    return (_area_weights(fewer, side) @ _area_weights(side, fewer)).astype(np.float32)


def _area_weights(old: int, new: int) -> Images:
    """Weights (new, old), rows summing to 1: how much of each old pixel lies in each new one."""
    edges, cells = np.arange(new + 1) * (old / new), np.arange(old)
    covered = np.minimum(edges[1:, None], cells + 1) - np.maximum(edges[:-1, None], cells)
    weights: Images = covered.clip(min=0) / (old / new)
    return weights


def jpeg_compression(images: Images, severity: int, generators: Generators) -> Images:
    """Compress by JPEG of low quality."""
    from PIL import Image

    quality = (25, 18, 15, 10, 7)[severity - 1]

    def compressed(picture: Image.Image) -> Image.Image:
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=quality)
        return Image.open(buffer)

    return _through_pillow(images, compressed)


def saturate(images: Images, severity: int, generators: Generators) -> Images:
    """Scale and raise HSV's saturation, and keep hue and value. Grey images have none and stay as they are."""
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


def _through_pillow(images: Images, change: Callable[[Any], Any]) -> Images:
    """Apply a function of Pillow's 8-bit images to each."""
    from PIL import Image

    pixels = np.rint(images * 255).astype(np.uint8)
    arrays = pixels[:, 0] if images.shape[1] == 1 else np.ascontiguousarray(pixels.transpose(0, 2, 3, 1))
    changed = np.stack([np.asarray(change(Image.fromarray(array))) for array in arrays])
    channels_first = changed[:, None] if images.shape[1] == 1 else changed.transpose(0, 3, 1, 2)
    return channels_first.astype(np.float32) / 255
