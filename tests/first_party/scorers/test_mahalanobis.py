import numpy as np
import pytest
import torch
from sklearn.covariance import EmpiricalCovariance

import harness
from harness_plugins.scorers.mahalanobis import Mahalanobis, MahalanobisPlusPlus


def fit(penultimate, labels, scorer=None, **options):
    features = harness.Features(penultimate=torch.as_tensor(penultimate), labels=torch.as_tensor(labels))
    return (scorer or Mahalanobis()).fit(harness.FitData(train=harness.FeatureSet.of(features, **options)))


def score(scorer, queries):
    return scorer.score(harness.Features(penultimate=torch.as_tensor(queries))).numpy()


def peer(penultimate, labels, queries):
    """One covariance of scikit-learn's, and a loop over the classes."""
    means = {c: penultimate[labels == c].mean(axis=0) for c in np.unique(labels)}
    centred = penultimate - np.stack([means[c] for c in labels])
    covariance = EmpiricalCovariance(assume_centered=True).fit(centred)
    return np.min([covariance.mahalanobis(queries - mean) for mean in means.values()], axis=0)


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    labels = rng.integers(5, size=600)
    mixing = rng.normal(size=(12, 12))
    train = 3 * rng.normal(size=(5, 12))[labels] + rng.normal(size=(600, 12)) @ mixing + 5
    return train, labels, 4 * rng.normal(size=(100, 12)) + 5


def test_the_distance_is_that_of_sklearns_covariance_to_the_nearest_class(data):
    train, labels, queries = data
    found = score(fit(train, labels, chunk_size=77), queries)
    np.testing.assert_allclose(found, peer(train, labels, queries), rtol=1e-9)


def test_plus_plus_is_the_same_on_the_unit_sphere(data):
    train, labels, queries = data
    found = score(fit(train, labels, MahalanobisPlusPlus()), queries)
    np.testing.assert_allclose(found, peer(unit(train), labels, unit(queries)), rtol=1e-8)


def test_scores_are_two_n_times_those_of_pytorch_ood(data):
    detector = pytest.importorskip("pytorch_ood.detector")
    train, labels, queries = (torch.as_tensor(part) for part in data)
    other = detector.Mahalanobis(None).fit_features(train.float(), labels)  # it computes in float32
    expected = 2 * len(train) * other.predict_features(queries.float()).numpy()
    np.testing.assert_allclose(score(fit(train, labels), queries), expected, rtol=1e-3)


def test_dead_units_change_no_score(data):
    train, labels, queries = data
    dead = np.zeros((12, 20))
    dead[:, 3:15] = np.eye(12)
    alive = score(fit(train, labels), queries)
    np.testing.assert_allclose(score(fit(train @ dead, labels), queries @ dead), alive, rtol=1e-9)


def test_copied_units_change_no_score(data):
    train, labels, queries = data
    copies = np.concatenate([np.eye(12), np.eye(12)], axis=1)
    alone = score(fit(train, labels), queries)
    np.testing.assert_allclose(score(fit(train @ copies, labels), queries @ copies), alone, rtol=1e-7)


def test_an_invertible_linear_map_changes_no_score(data):
    train, labels, queries = data
    mapping = np.random.default_rng(1).normal(size=(12, 12))
    plain = score(fit(train, labels), queries)
    np.testing.assert_allclose(score(fit(train @ mapping, labels), queries @ mapping), plain, rtol=1e-7)


def test_tight_classes_far_from_the_origin_lose_no_digits():
    rng = np.random.default_rng(2)
    labels = np.arange(400) % 4
    noise, offset = rng.normal(size=(400, 6)), 1e6 * rng.normal(size=(4, 6))
    train = offset[labels] + noise
    expected = peer(train, labels, train)
    np.testing.assert_allclose(score(fit(train, labels, chunk_size=33), train), expected, rtol=1e-5)


def test_a_class_without_a_sample_and_a_sample_without_a_class_are_left_out(data):
    train, labels, queries = data
    sparse = np.where(labels == 4, 900, labels)
    np.testing.assert_allclose(
        score(fit(train, sparse), queries), score(fit(train, labels), queries), rtol=1e-12
    )
    unlabelled = np.where(labels == 4, -1, labels)
    expected = peer(train[labels != 4], labels[labels != 4], queries)
    np.testing.assert_allclose(score(fit(train, unlabelled), queries), expected, rtol=1e-9)


def test_a_class_mean_scores_zero_and_no_score_is_negative(data):
    train, labels, _ = data
    scores = score(fit(train, labels), np.stack([train[labels == c].mean(axis=0) for c in range(5)]))
    assert (scores >= 0).all()
    np.testing.assert_allclose(scores, 0, atol=1e-10)


def test_training_data_without_labels_or_without_variance_is_refused(data):
    train, labels, _ = data
    with pytest.raises(harness.InputError, match="label"):
        fit(train, np.full_like(labels, -1))
    with pytest.raises(harness.InputError, match="all the same"):
        fit(train[labels] + 0.1, labels)
