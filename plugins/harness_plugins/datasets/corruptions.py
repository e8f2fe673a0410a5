"""Covariate shift: the ID test images under a corruption, computed on access and always the same.

Severities are those that Hendrycks & Dietterich published for ImageNet-C, applied to images of 32 pixels and
more (the shorter side counts). Below 32 pixels those of two corruptions are ours: the blur's width shrinks
with the image (not below 0.3 + 0.1 · severity pixels), and pixelate keeps more pixels, so that five
severities stay five. The published files were JPEG-compressed afterwards and cut off decimals where we round,
so numbers from them are not comparable with numbers from these.

Each image has a generator of its own, seeded by its pixels, the type, the severity and the seed: neither the
order of access nor any global state matters.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

import harness

if TYPE_CHECKING:
    from collections.abc import Iterator

VERSION = 1  # part of every digest: raise it when a corruption's pixels change
SMALL = 32  # pixels on the shorter side, below which our own constants hold

FloatImage = NDArray[np.float64]  # (H, W) or (H, W, 3), 0..1
Corruption = Callable[[FloatImage, int, np.random.Generator], FloatImage]  # severity 1..5; need not clip


def gaussian_noise(image: FloatImage, severity: int, rng: np.random.Generator) -> FloatImage:
    """Add normal noise to every value."""
    return image + rng.normal(0.0, (0.08, 0.12, 0.18, 0.26, 0.38)[severity - 1], image.shape)


def shot_noise(image: FloatImage, severity: int, rng: np.random.Generator) -> FloatImage:
    """Count photons: Poisson with the value, times the photons of full brightness, as its mean."""
    photons = (60, 25, 12, 5, 3)[severity - 1]
    return rng.poisson(image * photons) / photons


def impulse_noise(image: FloatImage, severity: int, rng: np.random.Generator) -> FloatImage:
    """Replace a share of the values by 0 or 1, either with equal chance."""
    share = (0.03, 0.06, 0.09, 0.17, 0.27)[severity - 1]
    replaced = rng.random(image.shape) < share
    return np.where(replaced, rng.integers(0, 2, image.shape), image)


def gaussian_blur(image: FloatImage, severity: int, rng: np.random.Generator) -> FloatImage:
    """Convolve with a Gaussian, the edges repeated."""
    from scipy.ndimage import gaussian_filter

    shrunk = (1.0, 2.0, 3.0, 4.0, 6.0)[severity - 1] * min(1.0, min(image.shape[:2]) / SMALL)
    sigma = max(shrunk, 0.3 + 0.1 * severity)  # less would leave 8-bit pixels as they are
    blurred: FloatImage = gaussian_filter(image, sigma, mode="nearest", axes=(0, 1))
    return blurred


def contrast(image: FloatImage, severity: int, rng: np.random.Generator) -> FloatImage:
    """Draw every value towards the mean of its channel."""
    mean = image.mean(axis=(0, 1), keepdims=True)
    kept: FloatImage = (image - mean) * (0.4, 0.3, 0.2, 0.1, 0.05)[severity - 1] + mean
    return kept


def brightness(image: FloatImage, severity: int, rng: np.random.Generator) -> FloatImage:
    """Raise HSV's value, the largest channel, and keep hue and saturation."""
    rise = (0.1, 0.2, 0.3, 0.4, 0.5)[severity - 1]
    if image.ndim == 2:
        return image + rise
    value = image.max(axis=2, keepdims=True)
    raised = np.minimum(value + rise, 1.0)
    brighter: FloatImage = np.where(value > 0, image / np.where(value > 0, value, 1.0), 1.0) * raised
    return brighter


def pixelate(image: FloatImage, severity: int, rng: np.random.Generator) -> FloatImage:
    """Shrink to fewer pixels and enlarge again, both by averaging areas."""
    small = min(image.shape[:2]) < SMALL
    share = ((0.88, 0.75, 0.63, 0.38, 0.25) if small else (0.6, 0.5, 0.4, 0.3, 0.25))[severity - 1]
    height, width = image.shape[:2]
    fewer = (max(1, int(height * share)), max(1, int(width * share)))
    return _averaged(_averaged(image, fewer), (height, width))


def _averaged(image: FloatImage, shape: tuple[int, int]) -> FloatImage:
    """Resample both axes by area: each new pixel is the mean of what it covers."""
    rows, columns = (_area_weights(old, new) for old, new in zip(image.shape[:2], shape, strict=True))
    if image.ndim == 2:
        return rows @ image @ columns.T
    shrunk = np.tensordot(rows, image, axes=1)  # (new H, W, channels)
    resampled: FloatImage = columns @ shrunk
    return resampled


@lru_cache(maxsize=64)
def _area_weights(old: int, new: int) -> NDArray[np.float64]:
    """Weights (new, old), rows summing to 1: how much of each old pixel lies in each new one."""
    edges = np.arange(new + 1) * (old / new)
    cells = np.arange(old)
    covered = np.minimum(edges[1:, None], cells + 1) - np.maximum(edges[:-1, None], cells)
    weights: NDArray[np.float64] = covered.clip(min=0) / (old / new)
    return weights


CORRUPTIONS: dict[str, Corruption] = {
    "gaussian_noise": gaussian_noise,
    "shot_noise": shot_noise,
    "impulse_noise": impulse_noise,
    "gaussian_blur": gaussian_blur,
    "contrast": contrast,
    "brightness": brightness,
    "pixelate": pixelate,
}


class CorruptedDataset:
    """A selection's images under one corruption, with the selection's labels."""

    def __init__(self, base: harness.Selection, corruption: str, *, severity: int, seed: int = 0) -> None:
        self._base = base
        self._corrupt = CORRUPTIONS[corruption]
        self._severity = severity
        self._recipe = f"{corruption}/{severity}/{seed}/{VERSION}"

    @property
    def digest(self) -> str:
        """BLAKE2b of the selection's digest, type, severity, seed and version."""
        return hashlib.blake2b(f"{self._base.digest}/{self._recipe}".encode(), digest_size=16).hexdigest()

    @property
    def labels(self) -> NDArray[np.int64]:
        """The selection's classes, (N,)."""
        return self._base.labels

    def __len__(self) -> int:
        return len(self._base)

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        image = self._base.dataset[int(self._base.indices[index])]
        corrupted = self._corrupt(image / 255.0, self._severity, self._generator(image))
        return np.rint(np.clip(corrupted, 0.0, 1.0) * 255).astype(np.uint8)

    def identity(self, index: int) -> bytes:
        """Return the corrupted pixels."""
        return self[index].tobytes()

    def _generator(self, image: NDArray[np.uint8]) -> np.random.Generator:
        digest = hashlib.blake2b(f"{self._recipe}/{image.shape}/".encode(), digest_size=16)
        digest.update(image.tobytes())
        return np.random.default_rng(int.from_bytes(digest.digest(), "little"))


def open_corrupted(request: harness.DatasetRequest, *, severity: int = 3, seed: int = 0) -> CorruptedDataset:
    """Corrupt the ID test samples, `request.base`, by the type after the colon, at severity 1 (mild) to 5."""
    if request.argument not in CORRUPTIONS:
        raise harness.unknown_name("corruption", request.argument, CORRUPTIONS, valid_label="Valid")
    if type(severity) is not int or severity not in range(1, 6):
        raise harness.InputError(
            f"severity = {severity!r} of {request.name!r} is not valid. Give 1, 2, 3, 4 or 5"
        )
    if request.base is None:
        raise harness.DatasetError(
            f"{request.name!r} changes the ID test samples and none were given. Use it in a suite's [[shift]]"
        )
    return CorruptedDataset(request.base, request.argument, severity=severity, seed=seed)


@harness.hookimpl
def harness_datasets() -> Iterator[harness.DatasetSpec]:
    """Offer the corruptions."""
    yield harness.DatasetSpec(
        "corrupt",
        open_corrupted,
        cite="Hendrycks & Dietterich, ICLR 2019, arXiv 1903.12261",
        argument=" | ".join(CORRUPTIONS),
    )
