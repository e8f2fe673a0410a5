import numpy as np
import pytest
import torch
from scipy.special import logsumexp
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score

import harness
from harness_plugins.scorers import vmf_kde
from harness_plugins.scorers.vmf_kde import VmfKde


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def scored(train, queries, **parameters):
    train, queries = torch.as_tensor(train), torch.as_tensor(queries)
    data = harness.FitData(train=harness.FeatureSet.of(harness.Features(penultimate=train)))
    return VmfKde(**parameters).fit(data).score(harness.Features(penultimate=queries))


@pytest.mark.parametrize("kappa", [0.1, 10.0, 100.0, 5000.0])
def test_score_is_minus_the_log_of_the_summed_kernels(monkeypatch, kappa):
    monkeypatch.setattr(vmf_kde, "TILE", 4)
    rng = np.random.default_rng(0)
    train, queries = rng.normal(size=(30, 6)), rng.normal(size=(11, 6))
    found = scored(train, queries, kappa=kappa)
    expected = -logsumexp(kappa * unit(queries) @ unit(train).T, axis=1)
    assert found.dtype == torch.float64
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-13 * kappa)


@pytest.mark.parametrize("kappa", [50.0, 100.0, 200.0])
def test_unseen_digits_stand_out(kappa):
    digits = load_digits()
    known = digits.target < 5
    train, test = digits.data[known][::2], digits.data[known][1::2]
    scores = [scored(train, rows, kappa=kappa).numpy() for rows in (test, digits.data[~known])]
    truth = np.repeat([0, 1], [len(s) for s in scores])
    assert roc_auc_score(truth, np.concatenate(scores)) > 0.95


def test_length_does_not_count_and_a_zero_vector_is_scored():
    rng = np.random.default_rng(0)
    train, queries = rng.normal(size=(20, 4)), rng.normal(size=(5, 4))
    np.testing.assert_allclose(scored(train, queries), scored(train, 7 * queries), rtol=1e-12)
    assert scored(train, np.zeros((1, 4))).item() == pytest.approx(-np.log(20), abs=1e-12)


@pytest.mark.parametrize(
    "parameters", [{"kappa": 0}, {"kappa": float("nan")}, {"kappa": float("inf")}, {"size": 0}]
)
def test_bad_parameters_are_one_line(parameters):
    with pytest.raises(harness.InputError, match="Give kappa > 0 and size ≥ 1"):
        VmfKde(**parameters)
