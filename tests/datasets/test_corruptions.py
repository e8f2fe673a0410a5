from __future__ import annotations

import colorsys

import numpy as np
import pytest
from images_of import all_images

import harness
from harness.selection import Selection
from harness_plugins.datasets.arrays import ArrayDataset
from harness_plugins.datasets.corruptions import CORRUPTIONS, CorruptedDataset, open_corrupted
from harness_plugins.datasets.digits import open_digits
from harness_plugins.datasets.synthetic import open_patches

SEVERITIES = (1, 2, 3, 4, 5)


def selection(images: np.ndarray) -> Selection:
    return Selection.all_of("base", ArrayDataset(images, np.arange(len(images))))


def corrupted(base: Selection | None, name: str, **params: int) -> CorruptedDataset:
    return open_corrupted(harness.DatasetRequest(f"corrupt:{name}", argument=name, base=base), **params)


def grey(value: int, side: int = 64) -> Selection:
    return selection(np.full((1, side, side), value, dtype=np.uint8))


@pytest.fixture(scope="module")
def patches() -> dict[str, Selection]:
    request = harness.DatasetRequest("patches:china", argument="china")
    return {
        "digits": Selection.all_of("d", open_digits(harness.DatasetRequest("digits", split="test"))).take(
            np.arange(60)
        ),
        "grey 28": Selection.all_of("g", open_patches(request, size=28, count=40)),
        "colour 32": Selection.all_of("c", open_patches(request, size=32, count=40, channels=3)),
        "colour 224": Selection.all_of("l", open_patches(request, size=224, count=2, channels=3)),
    }


@pytest.mark.parametrize("kind", ["digits", "grey 28", "colour 32", "colour 224"])
@pytest.mark.parametrize("name", CORRUPTIONS)
def test_every_severity_lies_farther_from_the_original(
    patches: dict[str, Selection], kind: str, name: str
) -> None:
    base = patches[kind]
    original = np.stack(base.images(range(len(base)))).astype(float)
    images = [all_images(corrupted(base, name, severity=severity)) for severity in SEVERITIES]
    assert all(image.shape == original.shape and image.dtype == np.uint8 for image in images)
    distances = [np.abs(image - original).mean() for image in images]
    assert distances[0] > 0
    assert distances == sorted(set(distances))


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_an_image_is_the_same_in_any_order_and_under_any_global_seed(
    patches: dict[str, Selection], name: str
) -> None:
    base = patches["digits"]
    np.random.seed(0)
    forward = all_images(corrupted(base, name))
    np.random.seed(1)
    again = corrupted(base, name)
    backward = np.stack([again[index] for index in reversed(range(len(base)))])[::-1]
    alone = corrupted(base.take(np.array([7])), name)
    assert (forward == backward).all()
    assert (alone[0] == forward[7]).all()
    assert alone.identity(0) == forward[7].tobytes()


def test_labels_length_and_order_are_the_selections() -> None:
    base = selection(np.random.default_rng(0).integers(0, 256, (5, 8, 8), dtype=np.uint8)).take(
        np.array([3, 1])
    )
    dataset = corrupted(base, "contrast")
    assert dataset.labels.tolist() == [3, 1]
    assert len(dataset) == 2
    assert isinstance(dataset, harness.ImageDataset)


def test_the_digest_tells_base_type_severity_and_seed_apart() -> None:
    base, other = grey(10), grey(11)
    digests = {
        corrupted(base, "contrast", severity=1).digest,
        corrupted(base, "contrast", severity=2).digest,
        corrupted(base, "contrast", severity=1, seed=1).digest,
        corrupted(base, "brightness", severity=1).digest,
        corrupted(other, "contrast", severity=1).digest,
    }
    assert len(digests) == 5
    assert corrupted(grey(10), "contrast", severity=1).digest in digests


def test_the_seed_changes_noise() -> None:
    base = grey(128)
    assert (
        corrupted(base, "gaussian_noise", seed=1)[0] != corrupted(base, "gaussian_noise", seed=2)[0]
    ).any()


@pytest.mark.parametrize(("severity", "deviation"), [(1, 0.08), (2, 0.12)])
def test_gaussian_noise_has_the_published_deviation(severity: int, deviation: float) -> None:
    noise = corrupted(grey(128), "gaussian_noise", severity=severity)[0] / 255 - 128 / 255
    assert noise.std() == pytest.approx(deviation, rel=0.05)
    assert noise.mean() == pytest.approx(0, abs=0.01)


@pytest.mark.parametrize(("severity", "photons"), [(1, 60), (2, 25)])
def test_shot_noise_has_a_poisson_variance(severity: int, photons: int) -> None:
    value = 102 / 255
    noisy = corrupted(grey(102), "shot_noise", severity=severity)[0] / 255
    assert noisy.mean() == pytest.approx(value, abs=0.01)
    assert noisy.var() == pytest.approx(value / photons, rel=0.1)


@pytest.mark.parametrize(("severity", "share"), [(1, 0.03), (5, 0.27)])
def test_impulse_noise_sets_the_published_share_to_black_or_white(severity: int, share: float) -> None:
    noisy = corrupted(grey(128), "impulse_noise", severity=severity)[0]
    assert set(np.unique(noisy)) == {0, 128, 255}
    assert np.mean(noisy != 128) == pytest.approx(share, abs=0.02)
    assert np.mean(noisy == 0) == pytest.approx(share / 2, abs=0.02)


@pytest.mark.parametrize(("side", "sigma"), [(33, 1.0), (64, 1.0), (16, 0.5), (8, 0.4)])
def test_blur_is_a_gaussian_that_shrinks_below_32_pixels(side: int, sigma: float) -> None:
    point = np.zeros((side, side))
    point[side // 2, side // 2] = 1.0
    response = CORRUPTIONS["gaussian_blur"](point, 1, np.random.default_rng(0))
    offsets = np.arange(side) - side // 2
    assert response.sum() == pytest.approx(1.0)
    assert response.max() == pytest.approx(np.exp(-(offsets**2) / (2 * sigma**2)).sum() ** -2, rel=1e-3)


def test_blur_keeps_channels_apart() -> None:
    red = np.zeros((32, 32, 3))
    red[..., 0] = np.random.default_rng(0).random((32, 32))
    blurred = CORRUPTIONS["gaussian_blur"](red, 5, np.random.default_rng(0))
    assert (blurred[..., 1:] == 0).all()
    assert blurred[..., 0].mean() == pytest.approx(red[..., 0].mean(), abs=0.05)


def test_contrast_shrinks_deviations_by_the_published_factor_and_keeps_each_channels_mean() -> None:
    image = np.random.default_rng(0).random((8, 8, 3))
    low = CORRUPTIONS["contrast"](image, 5, np.random.default_rng(0))
    np.testing.assert_allclose(low.mean(axis=(0, 1)), image.mean(axis=(0, 1)))
    np.testing.assert_allclose(low.std(axis=(0, 1)), 0.05 * image.std(axis=(0, 1)))


def test_brightness_raises_the_value_and_keeps_hue_and_saturation() -> None:
    image = np.random.default_rng(0).random((4, 4, 3))
    image[0, 0] = 0
    bright = CORRUPTIONS["brightness"](image, 2, np.random.default_rng(0))
    for before, after in zip(image.reshape(-1, 3), bright.reshape(-1, 3), strict=True):
        hue, saturation, value = colorsys.rgb_to_hsv(*before)
        np.testing.assert_allclose(
            after, colorsys.hsv_to_rgb(hue, saturation, min(value + 0.2, 1)), atol=1e-12
        )
    assert corrupted(grey(100), "brightness", severity=2)[0].max() == 151


def test_pixelate_replaces_blocks_by_their_means() -> None:
    image = np.random.default_rng(0).random((32, 32))
    blocks = image.reshape(8, 4, 8, 4).mean(axis=(1, 3))
    pixelated = CORRUPTIONS["pixelate"](image, 5, np.random.default_rng(0))
    np.testing.assert_allclose(pixelated, np.kron(blocks, np.ones((4, 4))))


def test_pixelate_keeps_the_mean_where_blocks_do_not_fit() -> None:
    image = np.random.default_rng(0).random((28, 21, 3))
    pixelated = CORRUPTIONS["pixelate"](image, 2, np.random.default_rng(0))
    np.testing.assert_allclose(pixelated.mean(axis=(0, 1)), image.mean(axis=(0, 1)))


def test_an_unknown_corruption_names_the_nearest() -> None:
    with pytest.raises(harness.HarnessError, match="Did you mean 'gaussian_blur'"):
        corrupted(grey(0), "gausian_blur")


def test_a_corruption_without_id_samples_says_where_it_belongs() -> None:
    with pytest.raises(harness.DatasetError, match="none were given"):
        corrupted(None, "contrast")


@pytest.mark.parametrize("severity", [0, 6, True, 2.0])
def test_a_severity_out_of_range_is_refused(severity: int) -> None:
    with pytest.raises(harness.InputError, match="Give 1, 2, 3, 4 or 5"):
        corrupted(grey(0), "contrast", severity=severity)
