"""Shared operations of corruptions on arrays of images: filter, zoom, sample, and draw random fields.

Images are (N, C, H, W), float32, 0 to 1. If the shorter side has 32 pixels or more, lengths are those published for
ImageNet-C, in pixels; below, they are our own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

SMALL = 32  # pixels on the shorter side; below, our own lengths are used
PUBLISHED_SIDE = 224  # of the images for which lengths were published

Images = NDArray[np.floating[Any]]  # (N, C, H, W), float32
Generators = Sequence[np.random.Generator]  # one per image
Border = Literal["reflect", "edge"]


def side_of(images: Images) -> int:
    """Return the shorter side, in pixels."""
    found: int = min(images.shape[2:])
    return found


def drawn(generators: Generators, draw: Callable[[np.random.Generator], NDArray[Any]]) -> Images:
    """Draw an array from each image's own generator, and stack them."""
    return np.stack([draw(generator) for generator in generators]).astype(np.float32, copy=False)


def smoothed(images: Images, sigma: float, *, truncate: float = 4.0) -> Images:
    """Convolve both axes with a Gaussian of σ pixels, the edges repeated."""
    from scipy.ndimage import gaussian_filter

    blurred: Images = gaussian_filter(images, sigma, mode="nearest", truncate=truncate, axes=(-2, -1))
    return blurred


def convolved(images: Images, kernels: NDArray[np.float64], border: Border) -> Images:
    """Convolve with one kernel (K, L), or with one per image (N, K, L), of odd sizes, by Fourier transforms.

    The border "reflect" mirrors without repeating the edge pixel, "edge" repeats it.
    """
    from scipy.fft import irfft2, next_fast_len, rfft2

    height, width = images.shape[2:]
    above, left = (size // 2 for size in kernels.shape[-2:])
    padded = np.pad(images, ((0, 0), (0, 0), (above, above), (left, left)), mode=border)
    shape = tuple(next_fast_len(size, real=True) for size in padded.shape[2:])
    per_image = kernels.astype(np.float32).reshape(-1, 1, *kernels.shape[-2:])  # (1 or N, 1, K, L)
    product = rfft2(padded, shape) * rfft2(per_image, shape)
    whole: Images = irfft2(product, shape)
    return whole[:, :, 2 * above : 2 * above + height, 2 * left : 2 * left + width]


def line_kernels(
    degrees: NDArray[np.float64], *, sigma: float, length: int, height: int, width: int
) -> NDArray[np.float64]:
    """Place half a Gaussian of σ pixels along a line from the centre at each angle, (N,) -> (N, K, K).

    `length` taps, each on its nearest pixel; taps outside an image of this height and width are left out.
    """
    taps = np.arange(length)
    weights = np.exp(-(taps**2) / (2 * sigma**2))  # (T,)
    radians = np.deg2rad(degrees)[:, None]
    rows = -np.ceil(taps * np.sin(radians) - 0.5).astype(np.int64)  # (N, T)
    columns = -np.ceil(taps * np.cos(radians) - 0.5).astype(np.int64)
    inside = (np.abs(rows) < height) & (np.abs(columns) < width)
    kernels = np.zeros((len(degrees), 2 * length - 1, 2 * length - 1))
    numbers = np.broadcast_to(np.arange(len(degrees))[:, None], rows.shape)
    at = (numbers, rows + length - 1, columns + length - 1)
    np.add.at(kernels, at, np.where(inside, weights, 0.0))
    found: NDArray[np.float64] = kernels / kernels.sum(axis=(1, 2), keepdims=True)
    return found


def zoomed(images: Images, factor: float) -> Images:
    """Enlarge the centre by a factor of at least 1, linearly, to the same size.

    As published, the central part of ceil(side / factor) pixels is scaled to round(part · factor) and cropped to the
    image's size from the top left. Below 32 pixels this part is often the whole, so there the centre is kept fixed.
    """
    along_rows = _interpolated(images, _coordinates(images.shape[2], factor), axis=2)
    return _interpolated(along_rows, _coordinates(images.shape[3], factor), axis=3)


def _coordinates(side: int, factor: float) -> Images:
    pixels = np.arange(side)
    if side < SMALL:
        middle = (side - 1) / 2
        return middle + (pixels - middle) / factor
    part = int(np.ceil(side / factor))
    enlarged = round(part * factor)
    return (side - part) // 2 + pixels * ((part - 1) / max(enlarged - 1, 1))


def _interpolated(images: Images, coordinates: Images, *, axis: int) -> Images:
    """Sample one axis linearly at coordinates within it, (N, C, H, W)."""
    low = np.floor(coordinates).astype(np.int64)
    high = np.minimum(low + 1, images.shape[axis] - 1)
    share = (coordinates - low).astype(np.float32)
    share = share[:, None] if axis == 2 else share
    first = images.take(low, axis=axis)
    found: Images = first + share * (images.take(high, axis=axis) - first)
    return found


def displaced(images: Images, down: Images, right: Images) -> Images:
    """Sample each image linearly at its pixels moved by (N, H, W) fields, mirrored at the border."""
    count, _, height, width = images.shape
    rows = _mirrored(np.arange(height)[:, None] + down, height)  # (N, H, W)
    columns = _mirrored(np.arange(width) + right, width)
    top, left = np.floor(rows).astype(np.int64), np.floor(columns).astype(np.int64)
    below, beside = np.minimum(top + 1, height - 1), np.minimum(left + 1, width - 1)
    of_rows, of_columns = (rows - top)[:, None], (columns - left)[:, None]
    flat = images.reshape(count, images.shape[1], -1)

    def pixels(row: NDArray[np.int64], column: NDArray[np.int64]) -> Images:
        index = (row * width + column).reshape(count, 1, -1)
        return np.take_along_axis(flat, index, axis=2).reshape(images.shape)

    upper = pixels(top, left) * (1 - of_columns) + pixels(top, beside) * of_columns
    lower = pixels(below, left) * (1 - of_columns) + pixels(below, beside) * of_columns
    found: Images = upper * (1 - of_rows) + lower * of_rows
    return found


def _mirrored(positions: Images, side: int) -> Images:
    """Reflect positions about the outer edges of the pixels until they lie within the axis."""
    period = 2 * side
    wrapped = np.mod(positions + 0.5, period)
    found: Images = np.clip(np.minimum(wrapped, period - wrapped) - 0.5, 0, side - 1)
    return found


def plasma(generators: Generators, shape: tuple[int, int], decay: float) -> Images:
    """Draw fractal clouds by the diamond-square algorithm, (N, H, W), each scaled to 0..1.

    The fields are on a torus whose side is the next power of two. From one scale to the next, the noise is divided by
    decay², because the published code applies the decay twice.
    """
    side = 1 << (max(shape) - 1).bit_length()
    fields = np.zeros((len(generators), side, side), dtype=np.float32)
    step, amplitude = side, 100.0
    while step >= 2:
        half = step // 2
        corners = fields[:, ::step, ::step]
        count = corners[0].size
        noise = drawn(generators, lambda g, n=3 * count: g.uniform(-1, 1, n)) * np.float32(amplitude**2)  # type: ignore[misc]
        of_squares, of_rows, of_columns = noise.reshape(len(fields), 3, *corners.shape[1:]).transpose(
            1, 0, 2, 3
        )
        pairs = corners + np.roll(corners, -1, axis=1)
        squares = (pairs + np.roll(pairs, -1, axis=2)) / 4 + of_squares
        fields[:, half::step, half::step] = squares
        across = squares + np.roll(squares, 1, axis=1) + corners + np.roll(corners, -1, axis=2)
        fields[:, ::step, half::step] = across / 4 + of_rows
        down = squares + np.roll(squares, 1, axis=2) + corners + np.roll(corners, -1, axis=1)
        fields[:, half::step, ::step] = down / 4 + of_columns
        step, amplitude = half, amplitude / decay
    low = fields.min(axis=(1, 2), keepdims=True)
    scaled = (fields - low) / (fields.max(axis=(1, 2), keepdims=True) - low)
    found: Images = scaled[:, : shape[0], : shape[1]]
    return found


def luma(images: Images) -> Images:
    """Compute brightness from the channels (ITU-R BT.601), (N, 1, H, W); grey images stay unchanged."""
    if images.shape[1] == 1:
        return images
    found: Images = np.einsum("nchw,c->nhw", images, np.array([0.299, 0.587, 0.114], dtype=np.float32))[
        :, None
    ]
    return found
