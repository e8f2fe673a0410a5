"""Corruptions by blur. Each takes images (N, C, H, W), a severity of 1 to 5, and one generator per image."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from harness_plugins.datasets.corruptions.arrays import (
    PUBLISHED_SIDE,
    SMALL,
    convolved,
    line_kernels,
    side_of,
    smoothed,
    zoomed,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from harness_plugins.datasets.corruptions.arrays import Generators, Images


def gaussian_blur(images: Images, severity: int, generators: Generators) -> Images:
    """Convolve with a Gaussian, the edges repeated; below 32 pixels its width shrinks with the image."""
    shrunk = (1.0, 2.0, 3.0, 4.0, 6.0)[severity - 1] * min(1.0, side_of(images) / SMALL)
    return smoothed(images, max(shrunk, 0.3 + 0.1 * severity))  # less would not change 8-bit pixels


def defocus_blur(images: Images, severity: int, generators: Generators) -> Images:
    """Convolve with a disc with a soft edge."""
    radius, softness = ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5))[severity - 1]
    if side_of(images) < SMALL:
        return convolved(images, covered_disc(_shrunk(images, radius, 0.6 + 0.2 * severity)), "reflect")
    return convolved(images, softened_disc(radius, softness), "reflect")


def glass_blur(images: Images, severity: int, generators: Generators) -> Images:
    """Replace pixels by nearby ones in a blurred image, then blur it again.

    The paper swaps pixels. The code of its files overwrites one of the two (it swaps NumPy views), which is stronger by
    up to a half. All published results use these files, so this function overwrites too.
    """
    sigma, reach, rounds = ((0.7, 1, 2), (0.9, 2, 1), (1.0, 2, 3), (1.1, 3, 2), (1.5, 4, 2))[severity - 1]
    if side_of(images) < SMALL:
        sigma, reach, rounds = 0.25 + 0.1 * severity, 1, 1
    blurred = smoothed(images, sigma)
    count, channels, height, width = images.shape
    origins = np.stack([scattered(height, width, reach, rounds, generator) for generator in generators])
    flat = blurred.reshape(count, channels, -1)
    return smoothed(np.take_along_axis(flat, origins[:, None], axis=2).reshape(images.shape), sigma)


def motion_blur(images: Images, severity: int, generators: Generators) -> Images:
    """Smear in a direction within 45° of the horizontal, with weights that fall off as half a Gaussian."""
    radius, sigma = ((10, 3.0), (15, 5.0), (15, 8.0), (15, 12.0), (20, 15.0))[severity - 1]
    if side_of(images) < SMALL:
        sigma = _shrunk(images, sigma, 0.5 + 0.4 * severity)
        radius = int(np.ceil(1.5 * sigma))
    angles = np.array([generator.uniform(-45, 45) for generator in generators])
    height, width = images.shape[2:]
    kernels = line_kernels(angles, sigma=sigma, length=2 * radius + 1, height=height, width=width)
    return convolved(images, kernels, "edge")


def zoom_blur(images: Images, severity: int, generators: Generators) -> Images:
    """Average the image with enlargements of its centre."""
    furthest, step = ((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03))[severity - 1]
    factors = np.arange(1, furthest, step)
    total = images.copy()
    for factor in factors.tolist():
        total += zoomed(images, factor)
    return total / (len(factors) + 1)


def _shrunk(images: Images, length: float, least: float) -> float:
    """Shrink a published length with the image, to `least`, which still changes 8-bit pixels."""
    return max(length * side_of(images) / PUBLISHED_SIDE, least)


@lru_cache(maxsize=16)
def softened_disc(radius: int, softness: float) -> NDArray[np.float64]:
    """Make the published kernel: a disc on at least 17 × 17 pixels, smoothed by 3 taps, 5 above radius 8.

    As published, its sum is 1 before smoothing, which changes it by a few thousandths if the disc meets the border.
    """
    from scipy.ndimage import correlate1d

    reach = max(radius, 8)
    offsets = np.arange(-reach, reach + 1)
    disc = (offsets[:, None] ** 2 + offsets**2 <= radius**2).astype(np.float64)
    disc /= disc.sum()
    taps = np.arange(-1, 2) if radius <= 8 else np.arange(-2, 3)
    weights = np.exp(-(taps**2) / (2 * softness**2))
    for axis in (0, 1):
        disc = correlate1d(disc, weights / weights.sum(), axis=axis, mode="mirror")
    kernel: NDArray[np.float64] = disc
    return kernel


@lru_cache(maxsize=64)
def covered_disc(radius: float, fine: int = 16) -> NDArray[np.float64]:
    """Make a kernel of the share of each pixel that a disc of any radius covers."""
    reach = int(np.ceil(radius - 0.5))
    positions = (np.arange((2 * reach + 1) * fine) + 0.5) / fine - reach - 0.5
    inside = positions[:, None] ** 2 + positions**2 <= radius**2
    shares = inside.reshape(2 * reach + 1, fine, 2 * reach + 1, fine).mean(axis=(1, 3))
    kernel: NDArray[np.float64] = shares / shares.sum()
    return kernel


def scattered(
    height: int, width: int, reach: int, rounds: int, generator: np.random.Generator
) -> NDArray[np.int64]:
    """Replace each pixel, from the last to the first, by one at most `reach` away. Returns the origins, (H · W,).

    Each replacement sees the earlier ones: if the taken pixel was replaced before, its new value is taken. So the moves
    are a forest of pointers, and pointer jumping follows all of them at once.
    """
    count = height * width
    pixels = np.arange(count)
    rows, columns = np.arange(height - reach, reach, -1), np.arange(width - reach, reach, -1)
    moving = (rows[:, None] * width + columns).ravel()  # in the order of replacement
    is_moving = np.zeros(count, dtype=bool)
    is_moving[moving] = True
    origin = pixels
    for _ in range(rounds):
        down, right = generator.integers(-reach, reach, size=(2, len(moving)))
        taken = moving + down * width + right
        is_replaced = (taken > moving) & is_moving[taken]
        pointer = np.tile(pixels + count, 2)  # a pixel after this round; with + count, before it
        pointer[moving] = np.where(is_replaced, taken, taken + count)
        while not np.array_equal(followed := pointer[pointer], pointer):
            pointer = followed
        origin = origin[pointer[:count] - count]
    return origin
