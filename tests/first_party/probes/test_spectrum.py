"""The estimate beyond what an eigenvalue decomposition can do, held against that decomposition where it can."""

import numpy as np
import pytest
import torch

from harness_plugins.probes.diffusion import diffusion_spectral_entropy, estimate_entropy
from harness_plugins.probes.spectrum import Operator, diffusion_matrix, lanczos

ROWS = 400


@pytest.fixture(scope="module")
def points():
    rng = np.random.default_rng(0)
    return torch.as_tensor(rng.normal(size=(ROWS, 8)) + 3 * rng.normal(size=(5, 8))[np.arange(ROWS) % 5])


@pytest.mark.parametrize("memory", [2**30, 0])
@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_the_operator_is_the_matrix(points, alpha, memory):
    matrix = diffusion_matrix(points.clone(), sigma=2.0, alpha=alpha)
    operator = Operator.of(points, sigma=2.0, alpha=alpha, memory=memory)
    vectors = torch.randn(ROWS, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    np.testing.assert_allclose(operator @ vectors, matrix @ vectors, atol=1e-5 if memory else 1e-11)
    assert operator.trace == pytest.approx(matrix.trace().item(), rel=1e-6 if memory else 1e-11)
    assert operator.squared_norm() == pytest.approx(
        matrix.square().sum().item(), rel=1e-6 if memory else 1e-11
    )


def test_lanczos_is_exact_for_polynomials(points):
    operator = Operator.of(points, sigma=2.0, memory=0)
    matrix = diffusion_matrix(points.clone(), sigma=2.0)
    starts = torch.randn(ROWS, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    found = lanczos(operator, starts, steps=5)
    for power in range(10):
        expected = (starts * (torch.linalg.matrix_power(matrix, power) @ starts)).sum(dim=0)
        np.testing.assert_allclose(found.of(lambda x, k=power: x**k), expected, rtol=1e-9)


def test_lanczos_ends_in_an_invariant_subspace():
    corners = torch.as_tensor(np.repeat(100 * np.eye(3), 10, axis=0))
    operator = Operator.of(corners, sigma=1.0)
    starts = torch.randn(30, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    found = lanczos(operator, starts, steps=20)
    assert found.of(torch.exp).isfinite().all()
    np.testing.assert_allclose(found.weights.sum(dim=1), starts.square().sum(dim=0), rtol=1e-12)


@pytest.mark.parametrize("t", [1, 2, 5, 1.5])
@pytest.mark.parametrize("sigma", [1.0, 3.0, 10.0])
def test_estimates_are_within_their_errors_of_the_exact_entropy(points, sigma, t):
    exact = diffusion_spectral_entropy(points, sigma=sigma, t=t)
    for seed in range(3):
        found = estimate_entropy(points, sigma=sigma, t=t, seed=seed, exact_rows=1)
        assert found.standard_error <= 1e-2 * exact
        assert abs(found.value - exact) <= 4.5 * found.standard_error + 1e-4 * exact


def test_the_standard_error_is_honest(points):
    exact = diffusion_spectral_entropy(points, sigma=3.0)
    found = [estimate_entropy(points, sigma=3.0, seed=seed, exact_rows=1, tolerance=1) for seed in range(40)]
    squares = np.mean([((f.value - exact) / f.standard_error) ** 2 for f in found])
    assert 0.4 < squares < 2.5  # 1 where errors are what they say; their own noise widens it


@pytest.mark.parametrize("memory", [2**30, 0])
@pytest.mark.parametrize("scale", [0.001, 0.01, 0.1])
def test_features_that_are_small_beside_the_width_are_estimated_as_well(scale, memory):
    x = scale * torch.randn(1500, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    exact = diffusion_spectral_entropy(x, sigma=10.0)
    found = estimate_entropy(x, sigma=10.0, exact_rows=1, memory=memory)
    assert abs(found.value - exact) <= 4.5 * found.standard_error
    assert found.standard_error <= 1e-3 * exact


def test_more_vectors_are_drawn_until_the_tolerance_is_met(points):
    rough, fine = (
        estimate_entropy(points, sigma=3.0, exact_rows=1, tolerance=tolerance) for tolerance in (1.0, 1e-9)
    )
    assert fine.standard_error < rough.standard_error / 2


def test_estimates_repeat_and_do_not_depend_on_where_the_matrix_is_kept(points):
    first, again, blockwise = (
        estimate_entropy(points, sigma=3.0, exact_rows=1, seed=1, memory=memory)
        for memory in (2**30, 2**30, 0)
    )
    assert first == again
    assert blockwise.value == pytest.approx(first.value, rel=1e-6)


def test_an_exact_entropy_has_no_standard_error(points):
    assert estimate_entropy(points).standard_error is None
