"""Augmented views against SciPy's interpolation, pixel by pixel."""

from __future__ import annotations

import math
import random
from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

import harness
from harness_plugins.adapters.views import augmented, generator_for, moved, require_seed


@pytest.fixture
def images() -> Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.randn(5, 3, 6, 9, dtype=torch.float64, generator=generator)


def moved_by_hand(
    image: np.ndarray, angle: float, scale: float, shift: tuple[float, float], mirrored: bool
) -> np.ndarray:
    """Look up where each pixel of the view comes from: unshift, unturn and unscale about the centre."""
    height, width = image.shape[1:]
    source = image[:, :, ::-1] if mirrored else image
    centre = np.array([(height - 1) / 2, (width - 1) / 2])
    unturn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]) / scale
    offset = centre - unturn @ (centre + np.array([shift[1] * height, shift[0] * width]))
    return np.stack(
        [ndimage.affine_transform(c, unturn, offset=offset, order=1, mode="nearest") for c in source]
    )


def plainly(images: Tensor, **changed: Any) -> Tensor:
    count = len(images)
    still = {
        "angle": torch.zeros(count, dtype=images.dtype),
        "scale": torch.ones(count, dtype=images.dtype),
        "shift": torch.zeros(count, 2, dtype=images.dtype),
        "mirrored": torch.zeros(count, dtype=torch.bool),
    }
    return moved(images, **(still | changed))


def test_images_are_turned_scaled_shifted_and_mirrored_as_scipy_does(images: Tensor) -> None:
    generator = torch.Generator().manual_seed(3)
    draws = 2 * torch.rand(4, 5, generator=generator, dtype=torch.float64) - 1
    angle, scale = draws[0], 1 + 0.3 * draws[1]
    shift, mirrored = 0.2 * draws[2:].T, torch.tensor([True, False, True, False, False])
    found = moved(images, angle=angle, scale=scale, shift=shift, mirrored=mirrored)
    for i, image in enumerate(images.numpy()):
        across, down = shift[i].tolist()
        expected = moved_by_hand(image, angle[i].item(), scale[i].item(), (across, down), bool(mirrored[i]))
        np.testing.assert_allclose(found[i].numpy(), expected, rtol=0, atol=1e-12)


def test_nothing_moves_by_nothing(images: Tensor) -> None:
    torch.testing.assert_close(plainly(images), images, rtol=0, atol=1e-12)


def test_an_image_that_is_mirrored_is_read_from_right_to_left(images: Tensor) -> None:
    found = plainly(images, mirrored=torch.ones(5, dtype=torch.bool))
    torch.testing.assert_close(found, images.flip(3), rtol=0, atol=1e-12)


def test_a_positive_shift_goes_right_and_down_and_the_border_goes_on(images: Tensor) -> None:
    found = plainly(images, shift=torch.tensor([[1 / 9, 1 / 6]], dtype=torch.float64).expand(5, 2))
    torch.testing.assert_close(found[:, :, 1:, 1:], images[:, :, :-1, :-1], rtol=0, atol=1e-12)
    torch.testing.assert_close(found[:, :, 0, 0], images[:, :, 0, 0], rtol=0, atol=1e-12)


def test_a_right_angle_turns_a_square_image_clockwise(images: Tensor) -> None:
    square = images[:, :, :, :6]
    found = plainly(square, angle=torch.full((5,), math.pi / 2, dtype=torch.float64))
    torch.testing.assert_close(found, square.rot90(-1, dims=(2, 3)), rtol=0, atol=1e-12)


@pytest.mark.parametrize("flip", [True, False])
def test_a_view_is_what_the_stated_draws_make_of_an_image(images: Tensor, flip: bool) -> None:
    found = augmented(images, torch.Generator().manual_seed(4), flip=flip)
    generator = torch.Generator().manual_seed(4)
    draws = (2 * torch.rand(7, 5, generator=generator, dtype=torch.float64) - 1).numpy()
    noise = torch.randn(images.shape, generator=generator, dtype=torch.float64).numpy()
    for i, image in enumerate(images.numpy()):
        angle, scale, across, down, side, contrast, brightness = draws[:, i]
        view = moved_by_hand(
            image, angle * math.pi / 12, 1 + scale / 10, (across / 16, down / 16), flip and side < 0
        )
        mean = view.mean()
        expected = mean + (1 + 0.3 * contrast) * (view - mean) + 0.4 * brightness + 0.02 * noise[i]
        np.testing.assert_allclose(found[i].numpy(), expected, rtol=0, atol=1e-12)


def test_half_of_the_images_are_mirrored_and_none_where_flips_are_off() -> None:
    ramp = torch.linspace(-1, 1, 8).expand(400, 1, 8, 8)
    is_mirrored = {
        flip: (views[..., -1].mean(dim=(1, 2)) < views[..., 0].mean(dim=(1, 2))).double().mean().item()
        for flip in (True, False)
        for views in [augmented(ramp, generator_for(ramp, 0), flip=flip)]
    }
    assert is_mirrored[False] == 0
    assert abs(is_mirrored[True] - 0.5) < 0.1  # four standard errors


def test_each_image_is_varied_by_itself_and_each_call_anew() -> None:
    same = torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(1)).expand(3, -1, -1, -1)
    generator = generator_for(same, 0)
    first, second = augmented(same, generator), augmented(same, generator)
    assert len({view.numpy().tobytes() for view in (*first, *second)}) == 6


def test_equal_seeds_give_equal_views_and_other_seeds_others(images: Tensor) -> None:
    first, again, other = (augmented(images, generator_for(images, seed)) for seed in (7, 7, 8))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_shape_and_precision_stay_as_they_are(images: Tensor, dtype: torch.dtype) -> None:
    found = augmented(images.to(dtype), generator_for(images, 0))
    assert (found.shape, found.dtype) == (images.shape, dtype)


def test_views_leave_images_and_global_random_states_alone(images: Tensor) -> None:
    copied, states = images.clone(), (torch.get_rng_state(), np.random.get_state()[1], random.getstate())
    augmented(images, generator_for(images, 0))
    assert torch.equal(images, copied)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.array_equal(np.random.get_state()[1], states[1])
    assert random.getstate() == states[2]


@pytest.mark.parametrize("seed", [-1, 0.5, True, "0"])
def test_a_seed_that_is_no_whole_number_is_refused(seed: Any) -> None:
    with pytest.raises(harness.InputError, match=r"seed is .*\. Give a whole number of at least 0"):
        require_seed(seed)
