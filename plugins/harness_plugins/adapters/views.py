"""Augmented views of normalised images, for adapters that average predictions over views."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

import harness

if TYPE_CHECKING:
    from torch import Tensor

ROTATION = math.radians(15)  # in both directions
SCALE = 0.1
SHIFT = 1 / 16  # of width and height
CONTRAST = 0.3
BRIGHTNESS = 0.4  # in units of normalised pixels
NOISE = 0.02  # standard deviation, in units of normalised pixels


def generator_for(images: Tensor, seed: int) -> torch.Generator:
    """Make a generator of random numbers on the images' device."""
    return torch.Generator(images.device).manual_seed(seed)


def require_seed(seed: int) -> None:
    """Raise InputError unless a seed is a whole number of at least 0."""
    if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
        raise harness.InputError(f"seed is {seed!r}. Give a whole number of at least 0")


def augmented(images: Tensor, generator: torch.Generator, *, flip: bool = True) -> Tensor:
    """Draw one view of each image, (n, channels, H, W) -> the same: moved, lighter or darker, and a little noisy.

    Uniform draws: rotation up to 15° either way, scale .9 to 1.1, shift up to 1/16 of the size, random mirroring if
    `flip` is set, contrast .7 to 1.3 about the image's mean, brightness up to .4 either way; then Gaussian noise of
    .02. Brightness and noise are in units of normalised pixels, whose zero and range are unknown here.
    """
    device, dtype = images.device, images.dtype
    draws = 2 * torch.rand(7, len(images), generator=generator, device=device, dtype=dtype) - 1
    angle, scale, right, down, side = draws[:5]
    contrast, brightness = (draw[:, None, None, None] for draw in draws[5:])
    views = moved(
        images,
        angle=ROTATION * angle,
        scale=1 + SCALE * scale,
        shift=SHIFT * torch.stack((right, down), dim=1),
        mirrored=(side < 0) & flip,
    )
    mean = views.mean(dim=(1, 2, 3), keepdim=True)
    noise = torch.randn(images.shape, generator=generator, device=device, dtype=dtype)
    lit: Tensor = mean + (1 + CONTRAST * contrast) * (views - mean) + BRIGHTNESS * brightness
    return lit + NOISE * noise


def moved(images: Tensor, *, angle: Tensor, scale: Tensor, shift: Tensor, mirrored: Tensor) -> Tensor:
    """Mirror images (n, channels, H, W), turn and scale them about their centre, then shift them.

    One entry per image: `angle` in radians, clockwise, (n,); `scale`, (n,); `shift` to the right and down, in shares of
    width and height, (n, 2); `mirrored` left to right, (n,) bool. Bilinear; outside, border pixels are repeated.
    """
    height, width = images.shape[2:]
    cos, sin = angle.cos() / scale, angle.sin() / scale
    left_right = torch.where(mirrored, -1.0, 1.0).to(images.dtype)
    across = torch.stack((cos, sin * (height / width)), dim=1) * left_right[:, None]
    downwards = torch.stack((-sin * (width / height), cos), dim=1)
    turn = torch.stack((across, downwards), dim=1)  # (n, 2, 2), from the view's coordinates to the image's
    offset = -turn @ (2 * shift)[:, :, None]  # coordinates run from -1 to 1
    grid = functional.affine_grid(torch.cat((turn, offset), dim=2), list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, padding_mode="border", align_corners=False)
