import math

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist, pdist
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.metrics import roc_auc_score

import harness
from harness_plugins.scorers.dse import Dse, class_balanced


def fit(penultimate, labels, **parameters):
    features = harness.Features(penultimate=torch.as_tensor(penultimate), labels=torch.as_tensor(labels))
    return Dse(**parameters).fit(harness.FitData(train=harness.FeatureSet.of(features)))


def score(scorer, queries):
    return scorer.score(harness.Features(penultimate=torch.as_tensor(queries))).numpy()


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def gram(left, right, sigma):
    return np.exp(-cdist(left, right, "sqeuclidean") / (2 * sigma**2))


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    return (
        rng.normal(size=(30, 8)),
        np.arange(30) % 3,
        rng.normal(size=(40, 8)),
    )  # 435 pairs: one is the median


@pytest.mark.parametrize("scale", [0.3, 0.5])
def test_with_all_modes_it_is_the_variance_of_a_gaussian_process(data, scale):
    train, labels, queries = data
    sigma = scale * np.median(pdist(unit(train)))
    inner, cross = gram(unit(train), unit(train), sigma), gram(unit(queries), unit(train), sigma)
    assert np.linalg.cond(inner) < 1e4
    expected = 1 - np.einsum("ij,ji->i", cross, np.linalg.solve(inner, cross.T))
    np.testing.assert_allclose(
        score(fit(train, labels, modes=30, scale=scale), queries), expected, atol=1e-11
    )


@pytest.mark.parametrize("modes", [1, 7, 29])
def test_with_fewer_modes_it_is_the_sum_over_the_leading_ones(data, modes):
    train, labels, queries = data
    sigma = np.median(pdist(unit(train)))
    inner, cross = gram(unit(train), unit(train), sigma), gram(unit(queries), unit(train), sigma)
    degrees = inner.sum(axis=1)
    vectors, values, _ = np.linalg.svd(inner / np.sqrt(np.outer(degrees, degrees)))
    shares = ((cross / np.sqrt(degrees)) @ vectors) ** 2 / values
    expected = 1 - shares[:, :modes].sum(axis=1)
    np.testing.assert_allclose(score(fit(train, labels, modes=modes), queries), expected, atol=1e-10)


def test_more_modes_express_more(data):
    train, labels, queries = data
    residuals = np.stack([score(fit(train, labels, modes=modes), queries) for modes in (1, 3, 10, 30)])
    assert (np.diff(residuals, axis=0) <= 1e-12).all()


def test_scores_lie_between_a_training_feature_and_a_stranger(data):
    train, labels, queries = data
    scorer = fit(train, labels, modes=30, scale=0.05)
    assert (score(scorer, train) <= 1e-9).all()
    np.testing.assert_allclose(score(scorer, -train.mean(axis=0, keepdims=True)), 1, atol=1e-6)
    scores = score(scorer, queries)
    assert ((scores >= 0) & (scores <= 1)).all()


def test_repeated_training_features_are_dropped_modes_and_no_failure(data):
    train, labels, queries = data
    twice = fit(np.tile(train, (2, 1)), np.tile(labels, 2), modes=60, scale=0.4)
    assert twice.modes.shape == (60, 30)
    assert np.isfinite(score(twice, queries)).all()


def test_length_does_not_matter(data):
    train, labels, queries = data
    plain = score(fit(train, labels), queries)
    np.testing.assert_allclose(score(fit(9 * train, labels), 0.1 * queries), plain, atol=1e-12)


def test_the_reference_takes_as_many_of_each_class():
    labels = np.repeat([0, 1, 2, -1], [1000, 500, 40, 100])
    chosen = class_balanced(labels, 90, seed=0)
    assert np.bincount(labels[chosen]).tolist() == [30, 30, 30]
    assert (np.diff(chosen) > 0).all()


def test_small_classes_leave_their_places_to_others():
    labels = np.repeat([0, 1, 2], [1000, 500, 10])
    assert np.bincount(labels[class_balanced(labels, 90, seed=0)]).tolist() == [40, 40, 10]
    assert len(class_balanced(labels, 5000, seed=0)) == 1510


def test_more_classes_than_places_take_any_of_them():
    chosen = np.stack([class_balanced(np.arange(100), 10, seed=seed) for seed in range(50)])
    assert chosen.shape == (50, 10)
    assert len(np.unique(chosen)) > 90


def test_the_reference_depends_on_the_seed_alone():
    labels = np.arange(500) % 7
    np.testing.assert_array_equal(class_balanced(labels, 70, seed=3), class_balanced(labels, 70, seed=3))
    assert (class_balanced(labels, 70, seed=3) != class_balanced(labels, 70, seed=4)).any()


@pytest.mark.parametrize("modes", [10, 50])
@pytest.mark.parametrize("width", [{"scale": 1.0}, {"scale": 0.5}, {"width": "neighbour"}])
def test_digits_never_seen_are_told_from_those_of_training(width, modes):
    images, labels = load_digits(return_X_y=True)
    known = np.flatnonzero(labels < 5)
    train, test = known[::2], known[1::2]
    components = PCA(32, random_state=0).fit(images[train])
    scorer = fit(components.transform(images[train]), labels[train], modes=modes, **width)
    rows = components.transform(images[np.concatenate([test, np.flatnonzero(labels >= 5)])])
    is_ood = np.arange(len(rows)) >= len(test)
    assert roc_auc_score(is_ood, score(scorer, rows)) > 0.9


def test_training_features_that_do_not_differ_are_refused(data):
    _, labels, _ = data
    with pytest.raises(harness.InputError, match="median distance of 30"):
        fit(np.ones((30, 8)), labels)
    with pytest.raises(harness.InputError, match="0 labelled"):
        fit(np.ones((30, 8)), np.full(30, -1))


@pytest.mark.parametrize("parameters", [{"modes": 0}, {"scale": 0.0}, {"scale": math.nan}, {"size": 1}])
def test_an_invalid_hyperparameter_is_named(parameters):
    ((name, value),) = parameters.items()
    with pytest.raises(harness.InputError, match=f"{name}={value}.*Give"):
        Dse(**parameters)


def test_nan_is_refused(data):
    train, labels, queries = data
    scorer = fit(train, labels)
    with pytest.raises(harness.InputError, match="1 of 41 features hold NaN or infinity"):
        score(scorer, np.concatenate([queries, np.full((1, 8), np.nan)]))
    with pytest.raises(harness.InputError, match="30 of 30 features hold NaN or infinity"):
        fit(np.full((30, 8), np.nan), labels)
