from __future__ import annotations

import colorsys
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from golden.make_corruptions import GRID, picture
from images_of import all_images
from scipy import ndimage

import harness
from harness.contract.selection import Selection
from harness_plugins.datasets.arrays import ArrayDataset
from harness_plugins.datasets.corruptions import dataset as dataset_module
from harness_plugins.datasets.corruptions.arrays import convolved, displaced, line_kernels, plasma
from harness_plugins.datasets.corruptions.blur import scattered
from harness_plugins.datasets.corruptions.dataset import CORRUPTIONS, CorruptedDataset
from harness_plugins.datasets.corruptions.offered import open_corrupted
from harness_plugins.datasets.digits import open_digits
from harness_plugins.datasets.synthetic import open_patches

SEVERITIES = (1, 2, 3, 4, 5)
# The published constants of these trade one property for another from one severity to the next.
UNEVEN = ("glass_blur", "snow", "frost", "fog", "spatter")


def selection(images: np.ndarray) -> Selection:
    return Selection.all_of("base", ArrayDataset(images, np.arange(len(images))))


def corrupted(base: Selection | None, name: str, **params: int) -> CorruptedDataset:
    return open_corrupted(harness.DatasetRequest(f"corrupt:{name}", argument=name, base=base), **params)


class ListDataset:
    """Images of any shapes."""

    digest = "0"

    def __init__(self, images: list[np.ndarray]) -> None:
        self._images = images

    @property
    def labels(self) -> np.ndarray:
        return np.zeros(len(self), dtype=np.int64)

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> np.ndarray:
        return self._images[index]

    def identity(self, index: int) -> bytes:
        return self[index].tobytes()


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
    if name == "saturate":  # there are two ways from the original: to less colour, and to more
        assert all(distance > 0 for distance in distances) == (original.ndim == 4)
        return
    assert distances[0] > 0
    if name in UNEVEN:
        assert distances[0] < max(distances)
        return
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


def changed(name: str, image: np.ndarray, severity: int, seed: int = 0) -> np.ndarray:
    """Corrupt one image (H, W) or (H, W, 3) of numbers in 0..1, unrounded."""
    channels_first = image[None] if image.ndim == 2 else image.transpose(2, 0, 1)
    generators = [np.random.default_rng(seed)]
    corrupt = CORRUPTIONS[name].corrupt
    assert corrupt is not None
    found = corrupt(channels_first[None].astype(np.float32), severity, generators)[0]
    return np.asarray(found[0] if image.ndim == 2 else found.transpose(1, 2, 0), dtype=float)


@pytest.mark.parametrize(("side", "sigma"), [(33, 1.0), (64, 1.0), (16, 0.5), (8, 0.4)])
def test_gaussian_blur_shrinks_below_32_pixels(side: int, sigma: float) -> None:
    point = np.zeros((side, side))
    point[side // 2, side // 2] = 1.0
    response = changed("gaussian_blur", point, 1)
    offsets = np.arange(side) - side // 2
    assert response.sum() == pytest.approx(1.0, rel=1e-5)
    assert response.max() == pytest.approx(np.exp(-(offsets**2) / (2 * sigma**2)).sum() ** -2, rel=1e-3)


@pytest.mark.parametrize("name", ["gaussian_blur", "defocus_blur", "motion_blur", "zoom_blur", "glass_blur"])
@pytest.mark.parametrize("side", [8, 28, 40])
def test_blurs_keep_channels_apart_and_a_flat_image_flat(name: str, side: int) -> None:
    red = np.zeros((side, side, 3))
    red[..., 0] = np.random.default_rng(0).random((side, side))
    blurred = changed(name, red, 5)
    np.testing.assert_allclose(blurred[..., 1:], 0, atol=1e-6)
    assert blurred[..., 0].std() < 0.8 * red[..., 0].std()
    np.testing.assert_allclose(changed(name, np.full((side, side), 0.5), 5), 0.5, atol=0.01)


@pytest.mark.parametrize(("reach", "rounds"), [(1, 1), (2, 3), (4, 2)])
def test_glass_replaces_pixels_one_after_the_other_from_the_last(reach: int, rounds: int) -> None:
    found = scattered(40, 30, reach, rounds, np.random.default_rng(0)).reshape(40, 30)
    draw = np.random.default_rng(0)
    expected = np.arange(1200).reshape(40, 30)
    for _ in range(rounds):
        moves = iter(draw.integers(-reach, reach, size=(2, (40 - 2 * reach) * (30 - 2 * reach))).T)
        for row in range(40 - reach, reach, -1):
            for column in range(30 - reach, reach, -1):
                down, right = next(moves)
                expected[row, column] = expected[row + down, column + right]
    np.testing.assert_array_equal(found, expected)


def test_motion_follows_its_angle_and_falls_off_as_half_a_gaussian() -> None:
    kernels = line_kernels(np.array([0.0, -90.0]), sigma=3.0, length=11, height=40, width=40)
    weights = np.exp(-(np.arange(11) ** 2) / 18)
    expected = np.zeros((21, 21))
    expected[10, :11] = weights[::-1] / weights.sum()
    np.testing.assert_allclose(kernels[0], expected, atol=1e-12)
    np.testing.assert_allclose(kernels[1], expected.T[::-1], atol=1e-12)


@pytest.mark.parametrize("border", ["reflect", "edge"])
def test_convolution_is_the_sum_over_the_kernel(border: Any) -> None:
    rng = np.random.default_rng(0)
    images, kernels = rng.random((2, 3, 9, 12)).astype(np.float32), rng.random((2, 5, 3))
    found = convolved(images, kernels, border)
    mode = {"reflect": "mirror", "edge": "nearest"}[border]
    for image, kernel, result in zip(images, kernels, found, strict=True):
        for plane, of_plane in zip(image, result, strict=True):
            np.testing.assert_allclose(of_plane, ndimage.convolve(plane, kernel, mode=mode), atol=1e-5)


def test_elastic_samples_between_pixels_and_mirrors_at_the_border() -> None:
    rng = np.random.default_rng(0)
    images = rng.random((2, 3, 9, 12)).astype(np.float32)
    down, right = rng.uniform(-14, 14, (2, 2, 9, 12)).astype(np.float32)
    found = displaced(images, down, right)
    rows, columns = np.meshgrid(np.arange(9), np.arange(12), indexing="ij")
    for n in range(2):
        for c in range(3):
            at = (rows + down[n], columns + right[n])
            expected = ndimage.map_coordinates(images[n, c], at, order=1, mode="reflect")
            np.testing.assert_allclose(found[n, c], expected, atol=1e-4)


def test_clouds_fill_0_to_1_and_are_rougher_with_a_smaller_decay() -> None:
    generators = [[np.random.default_rng(seed) for seed in range(5)] for _ in range(2)]
    smooth, rough = (plasma(g, (50, 60), decay) for g, decay in zip(generators, (3.0, 1.2), strict=True))
    assert smooth.shape == (5, 50, 60)
    whole = plasma([np.random.default_rng(0)], (64, 64), 2.0)
    assert (whole.min(), whole.max()) == (0, 1)
    assert np.abs(np.diff(smooth)).mean() < np.abs(np.diff(rough)).mean() / 3


def test_contrast_shrinks_deviations_by_the_published_factor_and_keeps_each_channels_mean() -> None:
    image = np.random.default_rng(0).random((8, 8, 3))
    low = changed("contrast", image, 5)
    np.testing.assert_allclose(low.mean(axis=(0, 1)), image.mean(axis=(0, 1)), rtol=1e-5)
    np.testing.assert_allclose(low.std(axis=(0, 1)), 0.05 * image.std(axis=(0, 1)), rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "severity", "change"),
    [
        ("brightness", 2, lambda h, s, v: (h, s, min(v + 0.2, 1))),
        ("saturate", 1, lambda h, s, v: (h, 0.3 * s, v)),
        ("saturate", 5, lambda h, s, v: (h, min(20 * s + 0.2, 1), v)),
    ],
)
def test_brightness_and_saturation_change_one_part_of_hsv(name: str, severity: int, change: Any) -> None:
    image = np.random.default_rng(0).random((4, 4, 3))
    image[0, 0], image[0, 1] = 0, 0.5
    bright = changed(name, image, severity)
    for before, after in zip(image.reshape(-1, 3), bright.reshape(-1, 3), strict=True):
        expected = colorsys.hsv_to_rgb(*change(*colorsys.rgb_to_hsv(*before)))
        np.testing.assert_allclose(after, expected, atol=1e-5)


def test_saturation_leaves_grey_images_as_they_are() -> None:
    base = grey(100)
    assert (corrupted(base, "saturate", severity=5)[0] == 100).all()


def test_pixelate_replaces_blocks_by_their_means() -> None:
    image = np.random.default_rng(0).integers(0, 256, (32, 32), dtype=np.uint8)
    blocks = image.reshape(8, 4, 8, 4).mean(axis=(1, 3))
    pixelated = corrupted(selection(image[None]), "pixelate", severity=5)[0].astype(float)
    np.testing.assert_allclose(pixelated, np.kron(blocks, np.ones((4, 4))), atol=1.01)


def test_pixelate_keeps_the_mean_of_a_small_image_where_blocks_do_not_fit() -> None:
    image = np.random.default_rng(0).random((28, 21, 3))
    pixelated = changed("pixelate", image, 2)
    np.testing.assert_allclose(pixelated.mean(axis=(0, 1)), image.mean(axis=(0, 1)), rtol=1e-5)


def test_fog_keeps_the_brightest_value_in_sight() -> None:
    dark, bright = (np.full((32, 32), value) for value in (0.2, 0.9))
    assert changed("fog", dark, 5).max() <= 0.2 + 1e-6
    assert changed("fog", bright, 5).max() > 0.85


def test_snow_falls_in_the_upright_and_in_the_turned_image() -> None:
    flat = np.full((40, 40), 0.0)
    fallen = changed("snow", flat, 1) - changed("snow", flat, 1).min()
    np.testing.assert_allclose(fallen, fallen[::-1, ::-1], atol=1e-6)
    assert fallen.std() > 0.01


def test_batches_are_the_same_as_one_by_one_and_may_mix_shapes(patches: dict[str, Selection]) -> None:
    for name in CORRUPTIONS:
        dataset = corrupted(patches["colour 32"], name)
        together = dataset.images_at([5, 2, 11])
        for image, index in zip(together, (5, 2, 11), strict=True):
            np.testing.assert_array_equal(image, dataset[index])
    images = [np.full(shape, 90, dtype=np.uint8) for shape in ((20, 30), (40, 33, 3), (20, 30))]
    mixed = corrupted(Selection.all_of("m", ListDataset(images)), "gaussian_noise")
    assert [image.shape for image in mixed.images_at([0, 1, 2])] == [image.shape for image in images]
    assert (mixed.images_at([2, 1])[1] == mixed[1]).all()


def test_few_images_are_in_memory_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    base = selection(np.random.default_rng(0).integers(0, 256, (7, 16, 16), dtype=np.uint8))
    expected = corrupted(base, "fog").images_at(range(7))
    monkeypatch.setattr(dataset_module, "AT_ONCE", 2 * 16 * 16)
    sizes = []
    real = CORRUPTIONS["fog"]

    def watched(images: Any, severity: int, generators: Any) -> Any:
        sizes.append(len(images))
        assert real.corrupt is not None
        return real.corrupt(images, severity, generators)

    monkeypatch.setitem(CORRUPTIONS, "fog", replace(real, corrupt=watched))
    np.testing.assert_array_equal(corrupted(base, "fog").images_at(range(7)), expected)
    assert sizes == [2, 2, 2, 1]


GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "corruptions.json").read_text())["cases"]
# How far a statistic may be off, over 20 runs of either: more where images vary much between runs, or are drawn by us.
ALLOWED = {"glass_blur": 0.1, "motion_blur": 0.1, "fog": 0.15, "frost": 0.25, "spatter": 0.45}


@pytest.mark.parametrize("case", [c for c in GOLDEN if "pixels" in c], ids=str)
def test_without_randomness_pixels_are_those_of_a_peer(case: dict[str, Any]) -> None:
    image = picture(*case["shape"])
    found = corrupted(selection(image[None]), case["type"], severity=case["severity"])[0]
    difference = found[::GRID, ::GRID].ravel()[:300].astype(int) - case["pixels"]
    assert np.abs(difference).max() <= 1  # they cut decimals off, we round
    assert np.abs(difference).mean() < 0.75


@pytest.mark.parametrize(
    "case", [c for c in GOLDEN if "mean" in c], ids=lambda c: f"{c['type']}-{c['shape']}"
)
def test_random_corruptions_have_the_statistics_of_a_peer(case: dict[str, Any]) -> None:
    image = picture(*case["shape"])
    base = selection(image[None])
    runs = np.stack(
        [corrupted(base, case["type"], severity=case["severity"], seed=seed)[0] for seed in range(20)]
    ).astype(float)
    allowed = ALLOWED.get(case["type"], 0.06)
    assert runs.mean() == pytest.approx(case["mean"], rel=allowed)
    assert runs.std(axis=(1, 2, 3)).mean() == pytest.approx(case["deviation"], rel=allowed)
    difference = np.sqrt(((runs - image) ** 2).mean(axis=(1, 2, 3))).mean()
    assert difference == pytest.approx(case["difference"], rel=allowed)


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
