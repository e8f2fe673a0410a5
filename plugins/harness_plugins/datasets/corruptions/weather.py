"""Corruptions by weather. Each takes images (N, C, H, W), a severity of 1 to 5, and one generator per image."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from harness_plugins.datasets.corruptions.arrays import (
    SMALL,
    convolved,
    drawn,
    line_kernels,
    luma,
    plasma,
    side_of,
    smoothed,
    zoomed,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from harness_plugins.datasets.corruptions.arrays import Generators, Images

# Added to the brightness of ice in red, green and blue.
ICE = np.array([-0.07, 0.01, 0.06], dtype=np.float32)
WATER, MUD = (np.array(c, dtype=np.float32) / 255 for c in ((175, 238, 238), (63, 42, 20)))


def snow(images: Images, severity: int, generators: Generators) -> Images:
    """Whiten the image and add flakes with motion blur, once as drawn and once rotated by 180°."""
    mean, spread, size, threshold, radius, sigma, kept = (
        (0.1, 0.3, 3.0, 0.5, 10, 4.0, 0.8),
        (0.2, 0.3, 2.0, 0.5, 12, 4.0, 0.7),
        (0.55, 0.3, 4.0, 0.9, 12, 8.0, 0.7),
        (0.55, 0.3, 4.5, 0.85, 12, 8.0, 0.65),
        (0.55, 0.3, 2.5, 0.85, 12, 12.0, 0.55),
    )[severity - 1]
    height, width = images.shape[2:]
    if (side := side_of(images)) < SMALL:  # lengths relative to 64 pixels
        size, radius, sigma = (
            max(1.0, size * side / 64),
            max(2, radius * side // 64),
            max(1.0, sigma * side / 64),
        )
    flakes = mean + spread * drawn(
        generators, lambda g: g.standard_normal((1, height, width), dtype=np.float32)
    )
    flakes = zoomed(flakes, size)
    flakes = np.where(flakes < threshold, np.float32(0), np.minimum(flakes, np.float32(1)))
    angles = np.array([generator.uniform(-135, -45) for generator in generators])
    kernels = line_kernels(angles, sigma=sigma, length=2 * radius + 1, height=height, width=width)
    fallen = convolved(flakes, kernels, "edge")
    whitened = kept * images + (1 - kept) * np.maximum(images, 1.5 * luma(images) + 0.5)
    found: Images = whitened + fallen + fallen[:, :, ::-1, ::-1]
    return found


def frost(images: Images, severity: int, generators: Generators) -> Images:
    """Lay ice over a darkened image. Published ice is six photographs; ours is generated, with their brightness."""
    kept, ice = ((1.0, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75))[severity - 1]
    height, width = images.shape[2:]
    fields = plasma(generators, (height, width), 1.6)[:, None]
    ridges = 1 - np.abs(2 * fields - 1)  # bright along the middle contour, like ice needles
    ridges = (ridges - ridges.mean(axis=(2, 3), keepdims=True)) / 2
    level = drawn(generators, lambda generator: generator.uniform(0.45, 0.84, (1, 1, 1)))
    tint = ICE[:, None, None] if images.shape[1] == 3 else np.float32(0)
    found: Images = kept * images + ice * np.clip(level + ridges + tint, 0, 1)
    return found


def fog(images: Images, severity: int, generators: Generators) -> Images:
    """Add fractal clouds, and scale back to the brightest original pixel."""
    amount, decay = ((1.5, 2.0), (2.0, 2.0), (2.5, 1.7), (2.5, 1.5), (3.0, 1.4))[severity - 1]
    clouds = plasma(generators, images.shape[2:], decay)[:, None]
    brightest = images.max(axis=(1, 2, 3), keepdims=True)
    found: Images = (images + amount * clouds) * (brightest / (brightest + amount))
    return found


def brightness(images: Images, severity: int, generators: Generators) -> Images:
    """Raise HSV's value, the largest channel, and keep hue and saturation."""
    value = images.max(axis=1, keepdims=True)
    raised = np.minimum(value + np.float32((0.1, 0.2, 0.3, 0.4, 0.5)[severity - 1]), 1)
    found: Images = np.where(value > 0, images / np.where(value > 0, value, 1), 1) * raised
    return found


def spatter(images: Images, severity: int, generators: Generators) -> Images:
    """Splash water, up to severity 3, or mud.

    Published water drops are shaded by OpenCV's edge detector and embossing; ours have the same brightness and are
    shaded by the distance to their edges.
    """
    level, spread, sigma, threshold, strength = (
        (0.65, 0.3, 4.0, 0.69, 0.6),
        (0.65, 0.3, 3.0, 0.68, 0.6),
        (0.65, 0.3, 2.0, 0.68, 0.5),
        (0.65, 0.3, 1.0, 0.65, 1.5),
        (0.67, 0.4, 1.0, 0.65, 1.5),
    )[severity - 1]
    if (side := side_of(images)) < SMALL:
        sigma, strength = max(0.6, sigma * side / 64), 0.3 + 0.1 * severity if severity <= 3 else 0.5
    shape = images.shape[2:]
    liquid = level + spread * drawn(generators, lambda g: g.standard_normal((1, *shape), dtype=np.float32))
    liquid = smoothed(liquid, sigma)
    wet = liquid > threshold
    if severity <= 3:
        return images + strength * _drops(liquid, wet) * _coloured(WATER, images)
    mask = smoothed(wet.astype(np.float32), strength)
    mask = np.where(mask < 0.8, np.float32(0), mask)
    return images * (1 - mask) + mask * _coloured(MUD, images)


def _drops(liquid: Images, wet: NDArray[np.bool_]) -> Images:
    """Shade drops from their edges inwards, each image's brightest point at 1, (N, 1, H, W)."""
    from scipy.ndimage import distance_transform_edt

    inside: Images = np.stack([distance_transform_edt(drops) for drops in wet[:, 0]])[:, None].astype(
        np.float32
    )
    shaded = liquid * np.minimum(inside, 20) * wet
    found: Images = shaded / np.maximum(shaded.max(axis=(2, 3), keepdims=True), np.finfo(np.float32).tiny)
    return found


def _coloured(colour: Images, images: Images) -> Images:
    """Return a colour for grey or RGB images, (C, 1, 1)."""
    return colour[:, None, None] if images.shape[1] == 3 else luma(colour[None, :, None, None])[0]
