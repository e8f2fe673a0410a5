"""The estimators that the study of mutual information compares: a kept library in one dimension, and known truths."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.feature_selection import mutual_info_classif, mutual_info_regression

STUDIES = Path(__file__).parents[2] / "benchmarks" / "studies"


@pytest.fixture
def study(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(STUDIES))
    spec = importlib.util.spec_from_file_location("information", STUDIES / "information.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_ksg_is_that_of_scikit_learn_in_one_dimension(study: Any) -> None:
    x, y, _ = study.gaussians(300, 1, np.random.default_rng(0))
    scaled = x / x.std(), y / y.std()  # as scikit-learn does
    (expected,) = mutual_info_regression(x, y[:, 0], n_neighbors=study.NEIGHBOURS, random_state=0)
    assert study.ksg(*scaled) == pytest.approx(expected / math.log(2), abs=1e-6)


def test_ross_is_that_of_scikit_learn_in_one_dimension(study: Any) -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(3, size=300)
    x = labels[:, None] + rng.normal(size=(300, 1))
    (expected,) = mutual_info_classif(x, labels, n_neighbors=study.NEIGHBOURS, random_state=0)
    assert study.ross(x, labels) == pytest.approx(expected / math.log(2), abs=1e-6)


@pytest.mark.parametrize("dimension", [1, 7])
def test_the_gaussians_have_two_bits(study: Any, dimension: int) -> None:
    x, y, truth = study.gaussians(200_000, dimension, np.random.default_rng(0))
    assert truth == pytest.approx(2)
    rho = np.mean([np.corrcoef(x[:, i], y[:, i])[0, 1] for i in range(dimension)])
    assert -dimension / 2 * math.log2(1 - rho**2) == pytest.approx(2, abs=0.02)


def test_the_truth_of_blobs(study: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    monkeypatch.setattr(study, "APART", 100.0)  # never overlap
    apart = study.centres_of(20, rng, in_cube=False)
    assert np.linalg.norm(apart, axis=1) == pytest.approx(np.full(5, 100))
    truths = [study.blobs(10, apart, share, rng)[2] for share in (0.0, 0.5, 1.0)]
    kept, other = 0.5 + 0.5 / 5, 0.5 / 5
    half = math.log2(5) + kept * math.log2(kept) + 4 * other * math.log2(other)
    assert truths == pytest.approx([math.log2(5), half, 0], abs=1e-9)
    assert study.blobs(10, apart / 1e9, 0.0, rng)[2] == pytest.approx(0, abs=1e-9)  # one blob
    cube = study.centres_of(20, rng, in_cube=True)
    assert np.abs(cube).max() < 10
    assert study.blobs(10, cube, 0.0, rng)[2] == pytest.approx(math.log2(5), abs=1e-9)


def test_the_truth_of_two_near_blobs_is_that_of_an_integral(study: Any) -> None:
    """Centres at 0 and at 2 on a line, the other three with the first: I = H(N) of the mixture - H(N), by a grid."""
    centres = np.array([[0.0], [0.0], [0.0], [0.0], [2.0]])
    _, _, found = study.blobs(10, centres, 0.0, np.random.default_rng(0))
    grid = np.linspace(-10, 12, 200_001)
    density = np.exp(-(grid**2) / 2), np.exp(-((grid - 2) ** 2) / 2)
    mixture = (0.8 * density[0] + 0.2 * density[1]) / math.sqrt(2 * math.pi)
    entropy = -(mixture * np.log2(np.maximum(mixture, 1e-300))).sum() * (grid[1] - grid[0])
    assert found == pytest.approx(entropy - math.log2(2 * math.pi * math.e) / 2, abs=0.01)


def test_mine_finds_the_bits_of_one_dimension_and_none_in_independent_data(study: Any) -> None:
    x, y, truth = study.gaussians(2000, 1, np.random.default_rng(0))
    network = study.Mine(x, y, steps=400, seed=0)
    assert network.train() == pytest.approx(truth, abs=0.3)
    assert network.on_others() == pytest.approx(truth, abs=0.4)
    alone = study.Mine(x, np.random.default_rng(1).normal(size=y.shape), steps=100, seed=0)
    alone.train()
    assert alone.on_others() < 0.1
