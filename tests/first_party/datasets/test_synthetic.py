from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from images_of import all_images

import harness
from harness_plugins.datasets.arrays import ArrayDataset
from harness_plugins.datasets.synthetic import FONTS, LETTERS, harness_datasets

BUILD = {spec.name: spec.build for spec in harness_datasets()}
NAMES = ["uniform", "gaussian", "patches:china", "patches:flower", "letters"]


def make(name: str, split: str | None = None, **params: Any) -> ArrayDataset:
    family, _, argument = name.partition(":")
    made = BUILD[family](harness.DatasetRequest(name, argument=argument, split=split), **params)
    assert isinstance(made, ArrayDataset)
    return made


@pytest.mark.parametrize("name", NAMES)
def test_size_count_and_channels_are_respected(name: str) -> None:
    assert all_images(make(name)).shape == (500, 8, 8)
    assert all_images(make(name, size=28, count=5)).shape == (5, 28, 28)
    assert all_images(make(name, size=16, count=5, channels=3)).shape == (5, 16, 16, 3)
    assert make(name, count=5).labels.tolist() == [-1] * 5


@pytest.mark.parametrize("name", NAMES)
def test_a_set_depends_on_its_seed_and_on_nothing_else(name: str) -> None:
    first = make(name, count=20).digest
    np.random.seed(3)
    assert make(name, count=20).digest == first
    assert make(name, count=20, seed=1).digest != first


@pytest.mark.parametrize("name", NAMES)
def test_a_split_is_refused(name: str) -> None:
    with pytest.raises(harness.DatasetError, match=r"no split 'test'. Leave split out"):
        make(name, split="test")


@pytest.mark.parametrize(
    ("params", "valid"),
    [
        ({"size": 0}, "Give 2 to 1024"),
        ({"size": 8.0}, "Give 2 to 1024"),
        ({"count": 0}, "Give 1 to 1000000"),
        ({"channels": 2}, r"Give 1 \(grey\) or 3 \(RGB\)"),
        ({"seed": -1}, "Give 0 to"),
    ],
)
def test_parameters_out_of_range_are_refused(params: dict[str, Any], valid: str) -> None:
    with pytest.raises(harness.InputError, match=valid):
        make("uniform", **params)


def test_uniform_noise_has_the_mean_and_deviation_of_its_law() -> None:
    pixels = all_images(make("uniform", size=32)).astype(float)
    assert pixels.mean() == pytest.approx(127.5, abs=0.5)
    assert pixels.std() == pytest.approx(np.sqrt((256**2 - 1) / 12), abs=0.5)


def test_gaussian_noise_is_clipped_at_two_deviations() -> None:
    pixels = all_images(make("gaussian", size=32)).astype(float)
    assert pixels.mean() == pytest.approx(127.5, abs=0.5)
    assert np.mean(pixels == 0) == pytest.approx(0.0239, abs=0.002)  # P(N(127.5, 64) < 0.5)
    assert np.mean(np.abs(pixels - 127.5) < 64) == pytest.approx(0.6827, abs=0.01)


def test_patches_come_from_the_photograph_named() -> None:
    china, flower = (all_images(make(f"patches:{name}", channels=3)) for name in ("china", "flower"))
    assert china.mean() > flower.mean() + 40  # a bright sky against a dark ground
    assert len(np.unique(china.reshape(len(china), -1), axis=0)) > 490


def test_large_patches_are_still_cut_from_many_places() -> None:
    patches = all_images(make("patches:china", size=224, count=20))
    assert len(np.unique(patches.reshape(20, -1), axis=0)) == 20


@pytest.mark.parametrize("argument", ["", "chian"])
def test_an_unknown_photograph_names_the_valid_ones(argument: str) -> None:
    with pytest.raises(harness.HarnessError, match="Valid: china, flower"):
        make(f"patches:{argument}")


@pytest.mark.parametrize("size", [8, 28])
def test_letters_are_bright_on_dark_distinct_and_fill_the_image(size: int) -> None:
    images = all_images(make("letters", size=size)).astype(float)
    assert np.all(images.max(axis=(1, 2)) == 255)
    assert np.all(images.mean(axis=(1, 2)) < 150)
    assert np.all(images.std(axis=(1, 2)) > 40)
    assert len(np.unique(images.reshape(len(images), -1), axis=0)) == len(images)
    inked = images > 64
    extent = np.maximum(inked.any(axis=1).sum(axis=1), inked.any(axis=2).sum(axis=1)) / size
    assert extent.min() >= 0.6
    assert extent.mean() >= 0.75


def test_letters_that_look_like_digits_are_left_out() -> None:
    assert not set("oOQDlIijJzZsSbGTBgq") & set(LETTERS)
    assert LETTERS.isascii()
    assert LETTERS.isalpha()
    assert len(set(LETTERS)) == len(LETTERS)
    assert len(set(FONTS)) == 12


def test_letters_in_colour_are_grey_thrice() -> None:
    colour = all_images(make("letters", count=5, channels=3))
    grey = all_images(make("letters", count=5))
    assert all((colour[..., channel] == grey).all() for channel in range(3))
