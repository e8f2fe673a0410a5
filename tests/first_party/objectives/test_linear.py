"""Losses on a linear head, against NumPy in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import harness
from harness_plugins.objectives.linear import CrossEntropy, LogitNorm, OutlierExposure

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(7, 4)) * 3
TARGETS = np.array([0, 3, 1, 2, 2, 0, 1])


def log_softmax(logits: np.ndarray) -> np.ndarray:
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


def loss_of(objective: harness.Objective, logits: np.ndarray, targets: np.ndarray) -> float:
    return float(objective.loss(torch.from_numpy(logits), torch.from_numpy(targets)))


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.7])
def test_cross_entropy_smooths_labels_over_all_classes(smoothing: float) -> None:
    wanted = (1 - smoothing) * np.eye(4)[TARGETS] + smoothing / 4
    expected = -(wanted * log_softmax(LOGITS)).sum(axis=1).mean()
    assert loss_of(CrossEntropy(smoothing), LOGITS, TARGETS) == pytest.approx(expected, abs=1e-12)


def test_logitnorm_is_cross_entropy_on_the_sphere_of_radius_one_over_the_temperature() -> None:
    units = LOGITS / np.linalg.norm(LOGITS, axis=1, keepdims=True)
    expected = -log_softmax(units / 0.04)[np.arange(7), TARGETS].mean()
    assert loss_of(LogitNorm(), LOGITS, TARGETS) == pytest.approx(expected, rel=1e-6)  # the guard is 1e-7
    assert loss_of(LogitNorm(), 5 * LOGITS, TARGETS) == pytest.approx(expected, rel=1e-6)
    assert np.isfinite(loss_of(LogitNorm(), 0 * LOGITS, TARGETS))


def test_outlier_exposure_adds_the_cross_entropy_to_the_uniform_distribution() -> None:
    targets = np.array([0, 3, -1, 2, -1, -1, 1])
    known = targets >= 0
    on_id = -log_softmax(LOGITS)[known, targets[known]].mean()
    on_outliers = -log_softmax(LOGITS)[~known].mean(axis=1).mean()
    assert loss_of(OutlierExposure(0.5), LOGITS, targets) == pytest.approx(
        on_id + 0.5 * on_outliers, abs=1e-12
    )
    assert loss_of(OutlierExposure(0.5), LOGITS, TARGETS) == pytest.approx(
        loss_of(CrossEntropy(), LOGITS, TARGETS), abs=1e-12
    )


def test_they_keep_the_networks_own_head() -> None:
    for objective in (CrossEntropy(), LogitNorm(), OutlierExposure()):
        assert isinstance(objective, harness.Objective)
        assert objective.head(8, 3) is None


def test_hyperparameters_out_of_range_are_refused() -> None:
    with pytest.raises(harness.InputError, match=r"label_smoothing is 1\.0"):
        CrossEntropy(1.0)
    with pytest.raises(harness.InputError, match=r"temperature is 0\.0"):
        LogitNorm(0.0)
    with pytest.raises(harness.InputError, match=r"weight is -1\.0"):
        OutlierExposure(-1.0)
