"""ER's loss against plain formulas in NumPy and SciPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import ive, logsumexp, softmax
from torch import nn

import harness
from harness_plugins.objectives.er import EntropyReconstruction

RNG = np.random.default_rng(0)
OUTPUTS = RNG.normal(size=(2, 2, 6, 4))  # student and teacher, views, images, dimensions
NO_TARGETS = torch.zeros(6, dtype=torch.int64)
KAPPA, FLOOR = 5.0, 1e-7


def log_density(points: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Compute log densities, (n, d), (m, d) -> (n, m): κ z·μ + ln[κ^v / ((2π)^(d/2) I_v(κ))], v = d/2 - 1."""
    half = points.shape[1] / 2
    bessel = np.log(ive(half - 1, KAPPA)) + KAPPA
    return KAPPA * points @ centres.T + (half - 1) * np.log(KAPPA) - half * np.log(2 * np.pi) - bessel


def unit(points: np.ndarray) -> np.ndarray:
    return points / np.linalg.norm(points, axis=-1, keepdims=True)


def sphere_entropy(points: np.ndarray, reduction: str) -> float:
    log_p = logsumexp(log_density(points, points), axis=1) - np.log(len(points))
    weights = softmax(log_p) if reduction == "expectation" else np.full(len(points), 1 / len(points))
    return float(-(weights * log_p).sum())


def sphere_reconstruction(first: np.ndarray, second: np.ndarray) -> float:
    return float(-np.diag(log_density(first, second)).mean())


def classes_entropy(shares: np.ndarray, reduction: str) -> float:
    mean = shares.mean(axis=0)
    weights = mean if reduction == "expectation" else np.full(len(mean), 1 / len(mean))
    return float(-(weights * np.log(mean + FLOOR)).sum())


def classes_reconstruction(first: np.ndarray, second: np.ndarray) -> float:
    both = -(first * np.log(second)).sum(axis=1) - (second * np.log(first)).sum(axis=1)
    return float(both.mean() / 2)


def loss_of(outputs: np.ndarray, **params: Any) -> float:
    return float(EntropyReconstruction(**params).loss(torch.from_numpy(outputs), NO_TARGETS))


@pytest.mark.parametrize("reduction", ["expectation", "average"])
def test_on_the_sphere_it_is_reconstruction_minus_entropy(reduction: str) -> None:
    first, second = unit(OUTPUTS[0])
    entropy = (sphere_entropy(first, reduction) + sphere_entropy(second, reduction)) / 2
    expected = sphere_reconstruction(first, second) - entropy
    assert loss_of(OUTPUTS[:1], kappa=KAPPA, reduction=reduction) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("reduction", ["expectation", "average"])
def test_on_classes_it_is_cross_entropy_minus_the_entropy_of_the_mean(reduction: str) -> None:
    first, second = softmax(OUTPUTS[0] / 0.5, axis=-1)
    entropy = (classes_entropy(first, reduction) + classes_entropy(second, reduction)) / 2
    expected = classes_reconstruction(first, second) - entropy
    found = loss_of(OUTPUTS[:1], support="discrete", temperature=0.5, reduction=reduction)
    assert found == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("support", ["sphere", "discrete"])
def test_with_a_teacher_the_student_reconstructs_its_other_view_and_keeps_its_own_entropy(
    support: str,
) -> None:
    points = unit(OUTPUTS) if support == "sphere" else softmax(OUTPUTS, axis=-1)
    entropy_of = sphere_entropy if support == "sphere" else classes_entropy
    reconstruct = sphere_reconstruction if support == "sphere" else classes_reconstruction
    (first, second), (first_target, second_target) = points
    entropy = (entropy_of(first, "expectation") + entropy_of(second, "expectation")) / 2
    reconstruction = (reconstruct(first, second_target) + reconstruct(second, first_target)) / 2
    found = loss_of(OUTPUTS, support=support, kappa=KAPPA, ema=0.9)
    assert found == pytest.approx(reconstruction - entropy, rel=1e-5)


def test_a_collapsed_embedding_is_no_minimum() -> None:
    collapsed = np.broadcast_to(OUTPUTS[0, 0, :1], (1, 2, 6, 4)).copy()
    spread = np.stack([OUTPUTS[0, 0]] * 2)[None]
    for support in ("sphere", "discrete"):
        assert loss_of(spread, support=support) < loss_of(collapsed, support=support)


@pytest.mark.parametrize("broken", [np.nan, np.inf])
@pytest.mark.parametrize("support", ["sphere", "discrete"])
def test_projections_that_are_not_finite_give_a_loss_that_is_not(support: str, broken: float) -> None:
    outputs = OUTPUTS[:1].copy()
    outputs[0, 1, 2, 3] = broken
    assert not np.isfinite(loss_of(outputs, support=support))


def test_it_trains_an_encoder_on_two_views() -> None:
    objective = EntropyReconstruction()
    assert isinstance(objective, harness.ViewObjective)
    assert objective.views == 2
    assert isinstance(objective.head(8, 3), nn.Identity)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"support": "shpere"}, "no support named 'shpere'. Did you mean 'sphere'?"),
        ({"reduction": "mean"}, "no reduction named 'mean'"),
        ({"kappa": 0.0}, r"kappa is 0\.0\. Give a number above 0"),
        ({"temperature": -1.0}, r"temperature is -1\.0\. Give a number above 0"),
        ({"ema": -0.1}, r"ema is -0\.1\. Give a share from 0 to 1"),
        ({"dim": 1}, "dim is 1. Give a whole number of at least 2"),
    ],
)
def test_hyperparameters_out_of_range_are_refused(params: dict[str, Any], message: str) -> None:
    with pytest.raises(harness.HarnessError, match=message):
        EntropyReconstruction(**params)
