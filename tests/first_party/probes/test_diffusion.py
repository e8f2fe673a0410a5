"""DSE and DSMI: the authors' values, their limits, and what refuses."""

import json
import math
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist, pdist

import harness
from harness_plugins.probes.clouds import input_clusters, resolve_width, scalar_bins
from harness_plugins.probes.diffusion import (
    diffusion_spectral_entropy,
    diffusion_spectral_mutual_information,
    estimate_information,
)
from harness_plugins.probes.spectrum import diffusion_matrix

GOLDEN = Path(__file__).parents[2] / "golden"
DSE, DSMI = (json.loads((GOLDEN / f"{name}.json").read_text()) for name in ("dse", "dsmi"))


@pytest.fixture(scope="module")
def x():
    i, j = np.arange(DSE["n"])[:, None], np.arange(DSE["d"])[None, :]
    return np.sin(0.1 * i * j + 0.3 * i) + 1.5 * (i % 3) * np.cos(j)


@pytest.mark.parametrize("case", DSE["dse"])
def test_entropies_are_those_of_the_authors_code(x, case):
    found = diffusion_spectral_entropy(x, sigma=case["sigma"], t=case["t"])
    assert found == pytest.approx(case["out"], abs=1e-9)


def test_kernel_and_eigenvalues_are_those_of_the_authors_code(x):
    matrix = diffusion_matrix(torch.as_tensor(x), sigma=1.0)
    np.testing.assert_allclose(matrix[0], DSE["K_sigma1_row0"], atol=1e-12)
    values = torch.linalg.eigvalsh(matrix).flip(0)
    np.testing.assert_allclose(values, DSE["eigvals_sigma1_desc"], atol=1e-12)


def test_a_subsample_is_the_one_that_the_authors_draw(x):
    case = DSE["max_N"]
    assert random.Random(case["random_seed"]).sample(range(len(x)), case["max_N"]) == case["indices"]
    found = diffusion_spectral_entropy(x, sigma=case["sigma"], t=case["t"], size=case["max_N"])
    assert found == pytest.approx(case["out"], abs=1e-9)


def test_the_authors_float16_cache_is_not_reproduced(x):
    assert abs(diffusion_spectral_entropy(x, sigma=1.0) - DSE["float16_cache_reload_sigma1_t1"]) > 1e-6


@pytest.mark.parametrize("case", [c for c in DSMI["out"] if c["kind"] == "DSMI discrete"])
def test_information_is_that_of_the_authors_code(x, case):
    labels = np.array(DSMI["labels"])
    for y in (labels, labels[:, None], torch.as_tensor(labels)):
        found = diffusion_spectral_mutual_information(x, y, sigma=case["sigma"], t=case["t"])
        assert found == pytest.approx(case["out"], abs=1e-9)


def test_information_about_numbers_is_that_of_the_authors_code(x):
    (case,) = [c for c in DSMI["out"] if c["kind"] == "DSMI continuous scalar"]
    numbers = np.sin(np.arange(30.0))
    assert scalar_bins(numbers, case["n_clusters"]).tolist() == case["clusters"]
    found = diffusion_spectral_mutual_information(
        x, numbers, sigma=case["sigma"], clusters=case["n_clusters"]
    )
    assert found == pytest.approx(case["out"], abs=1e-9)


def test_subsets_are_those_that_the_authors_draw():
    sizes = np.bincount(DSMI["labels"])
    for label, subsets in DSMI["subset_indices_per_class"].items():
        draw = random.Random(DSMI["random_seed"])
        assert [draw.sample(range(DSMI["n"]), int(sizes[int(label)])) for _ in subsets] == subsets


def test_without_the_whole_kernel_information_is_the_same(x):
    y = np.array(DSMI["labels"])
    whole = diffusion_spectral_mutual_information(x, y, sigma=2.0)
    assert diffusion_spectral_mutual_information(x, y, sigma=2.0, exact_rows=29) == pytest.approx(
        whole, abs=1e-12
    )


def test_information_about_vectors_clusters_them(x):
    rng = np.random.default_rng(0)
    inputs = np.repeat(np.eye(3), 10, axis=0) * 10 + rng.normal(size=(30, 3)) * 0.01
    clusters = input_clusters(inputs, 3)
    assert len({tuple(clusters[i : i + 10]) for i in (0, 10, 20)}) == 3
    assert all(len(set(clusters[i : i + 10].tolist())) == 1 for i in (0, 10, 20))
    expected = diffusion_spectral_mutual_information(inputs, clusters, sigma=1.0)
    assert diffusion_spectral_mutual_information(inputs, inputs, sigma=1.0, clusters=3) == pytest.approx(
        expected
    )
    assert expected == pytest.approx(math.log2(3), abs=0.1)  # z tells the cluster


def test_entropy_of_tight_clusters_counts_them():
    rng = np.random.default_rng(0)
    for k in (2, 4, 8):
        points = np.repeat(100 * np.eye(k), 20, axis=0) + 1e-4 * rng.normal(size=(20 * k, k))
        assert diffusion_spectral_entropy(points, sigma=1.0) == pytest.approx(math.log2(k), abs=1e-3)


@pytest.mark.parametrize("sigma", ["median", "neighbour", 0.7])
@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_only_the_ratio_of_points_and_width_counts(x, sigma, alpha):
    doubled = sigma if isinstance(sigma, str) else 2 * sigma
    once = diffusion_spectral_entropy(x, sigma=sigma, alpha=alpha)
    assert diffusion_spectral_entropy(2 * x, sigma=doubled, alpha=alpha) == pytest.approx(once, abs=1e-9)


def test_alpha_divides_by_the_density_first(x):
    gram = np.exp(-cdist(x, x, "sqeuclidean") / 2)
    density = gram.sum(axis=1)
    kernel = gram / np.outer(density, density) ** 0.5
    markov = kernel / kernel.sum(axis=1, keepdims=True)
    shares = np.abs(np.linalg.eigvals(markov).real)
    shares /= shares.sum()
    expected = -(shares * np.log2(shares)).sum()
    assert diffusion_spectral_entropy(x, sigma=1.0, alpha=0.5) == pytest.approx(expected, abs=1e-9)


def test_data_driven_widths_are_medians(x):
    points = torch.as_tensor(x)
    assert resolve_width(points, "median") == pytest.approx(np.sort(pdist(x))[(435 - 1) // 2])
    tenth = np.sort(cdist(x, x), axis=1)[:, 10]
    assert resolve_width(points, "neighbour") == pytest.approx(np.sort(tenth)[14])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_limits(dtype):
    one = np.ones((1, 3), dtype=dtype)
    assert diffusion_spectral_entropy(one) == 0
    assert diffusion_spectral_entropy(np.repeat(one, 50, axis=0)) == pytest.approx(
        0, abs=1e-9
    )  # coinciding points
    far = np.arange(16, dtype=dtype)[:, None] * 1e3
    assert diffusion_spectral_entropy(far, sigma=1.0) == pytest.approx(4)
    assert diffusion_spectral_mutual_information(far, np.zeros(16, dtype=int)) == 0  # one class


def test_duplicates_change_nothing_but_their_weight(x):
    twice = diffusion_spectral_entropy(np.concatenate([x, x]), sigma=1.0)
    assert twice == pytest.approx(diffusion_spectral_entropy(x, sigma=1.0), abs=1e-6)


@pytest.mark.parametrize(
    ("points", "parameters", "message"),
    [
        (np.ones((3, 2)) * np.nan, {}, "3 of 3 points hold NaN or infinity"),
        (np.array([[1.0], [np.inf]]), {}, "1 of 2 points hold NaN or infinity"),
        (np.empty((0, 2)), {}, r"shape \(0, 2\)"),
        (np.ones(5), {}, r"shape \(5,\)"),
        (np.ones((3, 2)), {"sigma": 0}, "sigma is 0. Give a number above 0"),
        (np.ones((3, 2)), {"sigma": -1.0}, "sigma is -1.0"),
        (np.ones((3, 2)), {"sigma": math.nan}, "sigma is nan"),
        (np.ones((3, 2)), {"sigma": "mean"}, "sigma is 'mean'"),
        (np.ones((3, 2)), {"sigma": "median"}, "the median distance of 3 points is 0"),
        (np.ones((1, 2)), {"sigma": "median"}, "the median distance of 1 points is 0"),
        (np.ones((3, 2)), {"sigma": "neighbour"}, "the neighbour distance of 3 points is 0"),
        (np.ones((3, 2)), {"t": 0}, "t is 0. Give a diffusion time above 0"),
        (np.ones((3, 2)), {"t": -2}, "t is -2"),
        (np.ones((3, 2)), {"size": 0}, "size is 0. Give a whole number of at least 1"),
        (np.ones((3, 2)), {"size": 1.5}, "size is 1.5"),
        (np.ones((3, 0)), {}, r"shape \(3, 0\)"),
        (np.ones((3, 2)), {"sigma": 1e-170}, "sigma is 1e-170"),
        (np.zeros((30_001, 1)), {"exact_rows": 40_000}, "30001 rows make a matrix of 7 GiB"),
        (np.ones((3, 2)), {"alpha": -0.1}, "alpha is -0.1"),
        (
            np.ones((30, 2)),
            {"t": 0.5, "exact_rows": 20},
            "t is 0.5, below 1, and 30 rows are too many for it",
        ),
    ],
)
def test_bad_input_is_one_line(points, parameters, message):
    with pytest.raises(harness.InputError, match=message) as raised:
        diffusion_spectral_entropy(points, **parameters)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (np.zeros(4, dtype=int), r"y has shape \(4,\) for 5 points"),
        (np.full(5, np.nan), r"y \(float64\) holds values that are not finite"),
        (np.array(list("abcde")), "holds values that are not finite"),
        (np.ones((5, 3)), "5 vectors for 10 clusters"),
        (np.full((12, 3), np.nan), r"y has shape \(12, 3\) for 5 points"),
    ],
)
def test_bad_references_are_one_line(y, message):
    with pytest.raises(harness.InputError, match=message):
        diffusion_spectral_mutual_information(np.eye(5), y)


@pytest.mark.parametrize(
    ("z", "parameters", "message"),
    [
        (np.full((5, 2), np.nan), {}, "5 of 5 points hold NaN or infinity"),
        (np.eye(5), {"sigma": 0}, "sigma is 0"),
        (np.eye(5), {"t": 0}, "t is 0"),
        (np.ones((5, 2)), {"sigma": "median"}, "the median distance of 5 points is 0"),
        (np.eye(5), {"clusters": 0}, "0 bins of numbers"),
    ],
)
def test_bad_representations_are_one_line(z, parameters, message):
    with pytest.raises(harness.InputError, match=message):
        diffusion_spectral_mutual_information(z, np.arange(5.0), **parameters)


def test_information_of_one_row_and_of_constant_features_is_nothing():
    assert diffusion_spectral_mutual_information(np.ones((1, 3)), np.zeros(1, dtype=int)) == 0
    constant = diffusion_spectral_mutual_information(np.ones((20, 3)), np.arange(20) % 2)
    assert constant == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("offset", [1e6, 1e8])
def test_where_the_points_lie_does_not_matter(x, offset):
    moved = x + offset
    back = moved - offset  # what of them is left in float64
    for sigma in (1.0, "median", "neighbour"):
        expected = diffusion_spectral_entropy(back, sigma=sigma)
        assert diffusion_spectral_entropy(moved, sigma=sigma) == pytest.approx(expected, abs=1e-6)


def test_a_long_time_leaves_the_largest_eigenvalue(x):
    assert diffusion_spectral_entropy(x, sigma=1.0, t=1e30) == pytest.approx(0, abs=1e-9)


def test_views_of_arrays_and_half_precision_are_points(x):
    expected = diffusion_spectral_entropy(x, sigma=1.0)
    frozen = x.copy()
    frozen.flags.writeable = False
    assert diffusion_spectral_entropy(frozen[::-1], sigma=1.0) == pytest.approx(expected)
    halved = torch.as_tensor(x).bfloat16()
    assert diffusion_spectral_entropy(halved, sigma=1.0) == diffusion_spectral_entropy(
        halved.double(), sigma=1.0
    )


@pytest.mark.parametrize("sigma", ["median", "neighbour"])
def test_a_width_of_many_points_does_not_depend_on_their_order(sigma):
    rng = np.random.default_rng(0)
    count = 3999  # every second of which would be of one cluster
    points = torch.as_tensor(10 * np.eye(4)[np.arange(count) % 2] + rng.normal(size=(count, 4)))
    shuffled = points[torch.randperm(count, generator=torch.Generator().manual_seed(0))]
    assert resolve_width(points, sigma) == pytest.approx(resolve_width(shuffled, sigma), rel=0.05)


def test_estimated_information_has_an_error_that_holds():
    rng = np.random.default_rng(0)
    labels = np.arange(600) % 2
    z = rng.normal(size=(600, 6)) + 3 * labels[:, None]
    exact = estimate_information(z, labels, sigma=3.0)
    assert exact.standard_error is None
    found = estimate_information(z, labels, sigma=3.0, exact_rows=10)
    assert 0 < found.standard_error < 0.05 * exact.value
    assert abs(found.value - exact.value) < 4.5 * found.standard_error


def test_no_global_random_state_is_touched(x):
    before = random.getstate(), torch.random.get_rng_state(), np.random.get_state()[1].copy()
    diffusion_spectral_mutual_information(x, np.array(DSMI["labels"]))
    diffusion_spectral_entropy(x, exact_rows=10)
    assert random.getstate() == before[0]
    assert torch.equal(torch.random.get_rng_state(), before[1])
    assert (np.random.get_state()[1] == before[2]).all()
