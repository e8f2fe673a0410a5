"""Corruptions by noise. Each takes images (N, C, H, W), a severity of 1 to 5, and one generator per image."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from harness_plugins.datasets.corruptions.arrays import drawn

if TYPE_CHECKING:
    from harness_plugins.datasets.corruptions.arrays import Generators, Images


def gaussian_noise(images: Images, severity: int, generators: Generators) -> Images:
    """Add normal noise to every value."""
    return images + (0.08, 0.12, 0.18, 0.26, 0.38)[severity - 1] * _normal(images, generators)


def shot_noise(images: Images, severity: int, generators: Generators) -> Images:
    """Count photons: a Poisson draw whose mean is the value times the photons of full brightness."""
    photons = (60, 25, 12, 5, 3)[severity - 1]
    means = iter(images * float(photons))
    return drawn(generators, lambda generator: generator.poisson(next(means))) / photons


def impulse_noise(images: Images, severity: int, generators: Generators) -> Images:
    """Replace a share of the values by 0 or 1, with equal probability."""
    share = (0.03, 0.06, 0.09, 0.17, 0.27)[severity - 1]
    chance = drawn(generators, lambda generator: generator.random(images.shape[1:], dtype=np.float32))
    replaced = np.where(chance < share, np.float32(0), images)
    return np.where(chance < share / 2, np.float32(1), replaced)


def speckle_noise(images: Images, severity: int, generators: Generators) -> Images:
    """Add normal noise in proportion to the value."""
    return images * (1 + (0.15, 0.2, 0.35, 0.45, 0.6)[severity - 1] * _normal(images, generators))


def _normal(images: Images, generators: Generators) -> Images:
    return drawn(generators, lambda generator: generator.standard_normal(images.shape[1:], dtype=np.float32))
