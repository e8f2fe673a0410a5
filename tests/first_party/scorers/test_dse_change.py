"""The change of DSE by a sample: the plain definition one by one, and a sign that turns with the width."""

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist, pdist
from scipy.stats import spearmanr
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.metrics import roc_auc_score

import harness
from harness_plugins.scorers import dse_change
from harness_plugins.scorers.dse import class_balanced
from harness_plugins.scorers.dse_change import DseChange


def fit(penultimate, labels, **parameters):
    features = harness.Features(penultimate=torch.as_tensor(penultimate), labels=torch.as_tensor(labels))
    return DseChange(**parameters).fit(harness.FitData(train=harness.FeatureSet.of(features)))


def score(scorer, queries):
    return scorer.score(harness.Features(penultimate=torch.as_tensor(queries)))


def entropy(points, sigma, t):
    """DSE as its equations 1 to 4 have it, by the Markov matrix itself."""
    kernel = np.exp(-cdist(points, points, "sqeuclidean") / (2 * sigma**2))
    values = np.abs(np.linalg.eigvals(kernel / kernel.sum(axis=1, keepdims=True))) ** t
    shares = values[values > 0] / values.sum()
    return -(shares * np.log2(shares)).sum()


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    return 5 + rng.normal(size=(60, 6)), np.arange(60) % 3, 5 + 1.5 * rng.normal(size=(23, 6))


@pytest.mark.parametrize("sigma", [0.4, 1.0, 3.0])
@pytest.mark.parametrize("t", [1, 2, 5])
def test_it_is_the_definition_computed_one_by_one(data, sigma, t, monkeypatch):
    train, labels, queries = data
    monkeypatch.setattr(dse_change, "MEMORY", 8 * 61**2 * 5)  # five at once: the last of the tiles is smaller
    alone = entropy(train, sigma, t)
    expected = [entropy(np.vstack([train, query]), sigma, t) - alone for query in queries]
    found = score(fit(train, labels, sigma=sigma, t=t, bank=60), queries)
    assert found.dtype == torch.float64
    np.testing.assert_allclose(found, expected, atol=1e-9)


def test_a_far_sample_is_a_cluster_of_its_own(data):
    """Its eigenvalue is 1 and the others stay: q = λ / (Σ + 1), so DSE is H(1 / (Σ + 1)) + Σ / (Σ + 1) DSE(bank)."""
    train, labels, _ = data
    kernel = np.exp(-cdist(train, train, "sqeuclidean") / 2)
    trace = (1 / kernel.sum(axis=1)).sum()
    share, alone = 1 / (trace + 1), entropy(train, 1.0, 1)
    split = -share * np.log2(share) - (1 - share) * np.log2(1 - share)
    expected = split + (1 - share) * alone - alone
    found = score(fit(train, labels, sigma=1.0, bank=60), train[:1] + 1e4)
    assert found.item() == pytest.approx(expected, abs=1e-9)


def test_a_data_driven_width_is_of_the_bank(data):
    train, labels, queries = data
    bank = train[class_balanced(labels, 30, seed=4)]
    by_name = score(fit(train, labels, sigma="median", bank=30, seed=4), queries)
    width = np.sort(pdist(bank))[(30 * 29 // 2 - 1) // 2]
    torch.testing.assert_close(by_name, score(fit(train, labels, sigma=width, bank=30, seed=4), queries))


def test_its_sign_turns_with_the_width():
    """Digits 0 to 4 against 5 to 9, on principal components: this is why it is flagged."""
    pixels, labels = load_digits(return_X_y=True)
    known = labels < 5
    train, rest = pixels[known][::2], pixels[known][1::2]
    components = PCA(20, random_state=0).fit(train)
    queries = components.transform(np.concatenate([rest, pixels[~known]]))
    truth = np.repeat([0, 1], [len(rest), (~known).sum()])
    aurocs = {
        sigma: roc_auc_score(
            truth,
            score(fit(components.transform(train), labels[known][::2], sigma=sigma, t=2, bank=100), queries),
        )
        for sigma in (15.0, 50.0)
    }
    assert aurocs[15.0] > 0.85
    assert aurocs[50.0] < 0.15


def test_with_a_large_width_it_is_the_order_of_the_distance_from_the_banks_mean(data):
    """All points are one cluster, whose second moments are all that is left of it."""
    train, labels, queries = data
    found = score(fit(train, labels, sigma=300.0, bank=60), queries)
    distances = np.linalg.norm(queries - train.mean(axis=0), axis=1)
    assert spearmanr(found, distances).statistic > 0.98


@pytest.mark.parametrize(
    ("parameters", "message"),
    [({"bank": 1}, "bank is 1"), ({"sigma": 0.0}, "sigma is 0"), ({"t": -1}, "t is -1")],
)
def test_bad_parameters_are_one_line(parameters, message):
    with pytest.raises(harness.InputError, match=message):
        DseChange(**parameters)


def test_features_that_are_not_finite_are_refused(data):
    train, labels, queries = data
    queries[3] = np.inf
    with pytest.raises(harness.InputError, match="1 of 23 points hold NaN or infinity"):
        score(fit(train, labels, bank=10), queries)


def test_a_bank_of_one_labelled_sample_is_refused(data):
    train, _, _ = data
    with pytest.raises(harness.InputError, match="1 labelled training samples"):
        fit(train, np.where(np.arange(60) == 7, 0, -1))
