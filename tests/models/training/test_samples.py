from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from training_data import selected

import harness
from harness.base.seeding import library_seeds_restored
from harness.models.training import samples as module
from harness.models.training.augmentation import Augmentation
from harness.models.training.recipe import AugmentationTable
from harness.models.training.samples import Samples

GREY = harness.Preprocessing((1, 8, 8))
RGB = harness.Preprocessing((3, 8, 8), mean=(0.0,) * 3, std=(1.0,) * 3)
IMAGES = np.random.default_rng(0).integers(0, 256, (10, 8, 8), dtype=np.uint8)
COLOURED = np.random.default_rng(1).integers(0, 256, (10, 12, 10, 3), dtype=np.uint8)


def augmented(images: np.ndarray = IMAGES, preprocessing: Any = GREY, seed: int = 0, **table: Any) -> Samples:
    augmentation = Augmentation(AugmentationTable.model_validate(table), preprocessing)
    return Samples.of(selected(images, [0, 1] * 5, "x"), preprocessing, augmentation=augmentation, seed=seed)


def read(samples: Samples, *, epoch: int = 0, order: tuple[int, ...] = tuple(range(10))) -> torch.Tensor:
    with harness.seeded(0), library_seeds_restored():
        batches = torch.split(torch.tensor(order), 4)
        return torch.cat(list(samples.batches(batches, epoch=epoch)))


def test_without_augmentation_images_come_as_they_are_in_the_order_asked_for() -> None:
    samples = Samples.of(selected(IMAGES, [0, 1] * 5, "x"), GREY)
    found = read(samples, order=(9, 3, 3, 0, 5))
    assert found.tolist() == IMAGES[[9, 3, 3, 0, 5]][:, None].tolist()


def test_what_does_not_fit_into_memory_is_decoded_as_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    held = Samples.of(selected(COLOURED, [0, 1] * 5, "x"), RGB)
    assert held.held is not None
    monkeypatch.setattr(module, "HELD_BYTES", 1)
    streamed = Samples.of(selected(COLOURED, [0, 1] * 5, "x"), RGB)
    assert streamed.held is None
    assert torch.equal(read(held), read(streamed))


def test_the_same_seed_epoch_and_position_give_the_same_pixels_in_any_order() -> None:
    table = {"crop_padding": 2, "hflip": 0.5, "auto_augment": "rand-m9-mstd0.5"}
    whole = read(augmented(**table))
    assert torch.equal(read(augmented(**table), order=(7, 2, 9)), whole[[7, 2, 9]])
    assert not torch.equal(read(augmented(**table), epoch=1), whole)
    assert not torch.equal(read(augmented(**table, seed=1)), whole)
    assert whole.dtype == torch.uint8


def test_workers_change_no_pixel() -> None:
    table = {"crop_padding": 2, "hflip": 0.5}
    alone = augmented(**table)
    beside = Samples(**{**vars(alone), "workers": 2})
    assert torch.equal(read(beside), read(alone))


def test_a_padded_crop_is_a_shift_with_black_borders() -> None:
    found = read(augmented(crop_padding=1))
    padded = np.pad(IMAGES, ((0, 0), (1, 1), (1, 1)))
    for image, whole in zip(found[:, 0].numpy(), padded, strict=True):
        shifts = [whole[i : i + 8, j : j + 8] for i in range(3) for j in range(3)]
        assert any(np.array_equal(image, shift) for shift in shifts)
    assert not np.array_equal(found[:, 0].numpy(), IMAGES)


def test_flips_are_flips() -> None:
    assert read(augmented(hflip=1.0))[:, 0].tolist() == IMAGES[:, :, ::-1].tolist()
    assert read(augmented(vflip=1.0))[:, 0].tolist() == IMAGES[:, ::-1].tolist()
    assert read(augmented())[:, 0].tolist() == IMAGES.tolist(), (
        "a table that asks for nothing changes nothing"
    )


def test_a_random_resized_crop_reads_the_originals() -> None:
    samples = augmented(COLOURED, RGB, scale=[0.2, 0.5], ratio=[0.8, 1.25])
    assert samples.held is None
    assert read(samples).shape == (10, 3, 8, 8)


def test_colour_jitter_and_auto_augment_take_grey_and_colour() -> None:
    for images, preprocessing in ((IMAGES, GREY), (COLOURED, RGB)):
        for table in ({"color_jitter": 0.4}, {"auto_augment": "augmix-m3"}, {"auto_augment": "original"}):
            changed = read(augmented(images, preprocessing, **table))
            assert not torch.equal(changed, read(Samples.of(selected(images, [0] * 10, "x"), preprocessing)))


def test_random_erasing_erases_a_part_of_some_images() -> None:
    erase = Augmentation(AugmentationTable(re_prob=0.5), GREY).erase
    assert erase is not None
    with harness.seeded(0), library_seeds_restored():
        random.seed(0)
        erased = erase(torch.ones(100, 1, 8, 8))
    share = float((erased.flatten(1).min(dim=1).values == 0).double().mean())
    assert 0.35 < share < 0.65
    assert Augmentation(AugmentationTable(), GREY).erase is None


def test_held_images_are_cropped_once(monkeypatch: pytest.MonkeyPatch) -> None:
    ramp = np.tile(np.linspace(0, 255, 32).astype(np.uint8), (10, 32, 1))
    inner = harness.Preprocessing((1, 16, 16), crop_pct=0.75)
    fitted = read(Samples.of(selected(ramp, [0, 1] * 5, "x"), inner))
    held = augmented(ramp, inner)
    assert held.held is not None
    assert torch.equal(read(held), fitted)
    monkeypatch.setattr(module, "HELD_BYTES", 1)
    assert torch.equal(read(augmented(ramp, inner)), fitted)


def test_what_is_no_square_is_not_distorted() -> None:
    wide = np.random.default_rng(2).integers(0, 256, (10, 8, 16), dtype=np.uint8)
    found = read(augmented(wide, harness.Preprocessing((1, 8, 16)), hflip=1.0))
    assert found[:, 0].tolist() == wide[:, :, ::-1].tolist()


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"scale": [0.5, 0.2]}, "must be two numbers above 0, the smaller first"),
        ({"ratio": [0.0, 1.0]}, "must be two numbers above 0, the smaller first"),
        ({"scale": [0.5, 2.0]}, "must be shares of the area, at most 1"),
        ({"scale": [0.5, 1.0], "crop_padding": 2}, "are two random crops. Give only one"),
    ],
)
def test_crops_that_make_no_sense_are_refused(table: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AugmentationTable.model_validate(table)
