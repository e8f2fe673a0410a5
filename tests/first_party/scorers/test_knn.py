import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import normalize

import harness
from harness_plugins.scorers import knn
from harness_plugins.scorers.knn import Knn, kth_distance


def fit(rows, **parameters):
    train = harness.FeatureSet.of(harness.Features(penultimate=torch.as_tensor(rows)))
    return Knn(**parameters).fit(harness.FitData(train=train))


def score(scorer, queries):
    return scorer.score(harness.Features(penultimate=torch.as_tensor(queries))).numpy()


def peer(bank, queries, k):
    index = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(normalize(np.float64(bank)))
    _, neighbours = index.kneighbors(normalize(np.float64(queries)))
    kth = normalize(np.float64(bank))[neighbours[:, -1]]
    return np.linalg.norm(normalize(np.float64(queries)) - kth, axis=1)


@pytest.fixture
def features():
    rng = np.random.default_rng(0)
    return rng.normal(size=(3003, 16)).astype("float32"), rng.normal(size=(700, 16)).astype("float32")


@pytest.mark.parametrize("k", [1, 5, 9, 10, 50, 1000, 2998, 3003])
def test_the_distance_is_that_to_sklearns_kth_neighbour(features, k):
    bank, queries = features
    np.testing.assert_allclose(score(fit(bank, k=k), queries), peer(bank, queries, k), rtol=1e-12)


@pytest.mark.parametrize(("block", "tile", "group"), [(64, 32, 16), (1000, 512, 4), (65536, 1, 32)])
def test_blocks_tiles_and_groups_do_not_change_a_distance(features, monkeypatch, block, tile, group):
    bank, queries = features
    monkeypatch.setattr(knn, "BLOCK", block)
    monkeypatch.setattr(knn, "TILE", tile)
    monkeypatch.setattr(knn, "GROUP", group)
    np.testing.assert_allclose(score(fit(bank, k=7), queries[:50]), peer(bank, queries[:50], 7), rtol=1e-12)


def test_groups_find_the_largest_of_a_row():
    rows = torch.rand(20, 1003, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    values, columns = knn._largest(rows, 11)
    np.testing.assert_array_equal(values.numpy(), -np.sort(-rows.numpy(), axis=1)[:, :11])
    np.testing.assert_array_equal(np.take_along_axis(rows.numpy(), columns.numpy(), axis=1), values.numpy())


def test_a_duplicate_of_a_training_feature_is_at_distance_zero(features):
    bank, _ = features
    assert (score(fit(bank, k=1), bank) == 0).all()
    assert (score(fit(np.repeat(bank[:100], 60, axis=0), k=60), bank[:100]) == 0).all()


@pytest.mark.parametrize("k", [3, 50, 1995])
def test_neighbours_closer_than_float32_can_tell_are_ranked_rightly(k):
    rng = np.random.default_rng(1)
    centre = rng.normal(size=64)
    bank = centre + 1e-6 * rng.normal(size=(2000, 64))
    queries = centre + 1e-6 * rng.normal(size=(20, 64))
    difference = normalize(queries)[:, None] - normalize(bank)
    expected = np.sort(np.linalg.norm(difference, axis=2), axis=1)[:, k - 1]
    np.testing.assert_allclose(score(fit(bank, k=k), queries), expected, rtol=1e-8)


def test_length_does_not_matter(features):
    bank, queries = features
    stretched = queries * np.geomspace(1e-3, 1e3, len(queries), dtype="float32")[:, None]
    np.testing.assert_allclose(score(fit(bank), stretched), score(fit(bank), queries), rtol=1e-6)


def test_a_zero_vector_is_at_distance_one_from_every_direction(features):
    bank, _ = features
    zero = np.zeros((1, 16), dtype="float32")
    assert score(fit(bank, k=3), zero).item() == pytest.approx(1, rel=1e-12)
    query = np.eye(1, 16, dtype="float32")
    wider = 0.2 * query + np.sqrt(0.96) * np.eye(16, dtype="float32")[1:]  # at distance √1.6
    nearest = score(fit(np.concatenate([wider, wider, zero]), k=1), query)
    assert nearest.item() == pytest.approx(1, rel=1e-12)


def test_scores_agree_with_pytorch_ood(features):
    detector = pytest.importorskip("pytorch_ood.detector")
    bank, queries = (torch.as_tensor(part).double() for part in features)
    other = detector.KNN(None, k=50)
    other.fit_features(bank, torch.zeros(len(bank), dtype=torch.int64))
    np.testing.assert_allclose(score(fit(bank), queries), other.predict_features(queries).numpy(), rtol=1e-9)


def test_a_bank_is_a_seeded_part_of_training(features):
    bank, queries = features
    first, again, other = (fit(bank, k=5, bank=200, seed=seed) for seed in (1, 1, 2))
    assert len(first.bank) == 200
    np.testing.assert_array_equal(score(first, queries), score(again, queries))
    assert (score(first, queries) != score(other, queries)).any()
    assert (score(first, queries) >= score(fit(bank, k=5), queries)).all()


def test_no_query_gives_no_score(features):
    bank, queries = features
    assert score(fit(bank), queries[:0]).shape == (0,)
    assert kth_distance(torch.ones(1, 2), torch.ones(1, 2), k=1).tolist() == [0.0]


def test_more_neighbours_than_training_features_are_refused(features):
    bank, _ = features
    with pytest.raises(harness.InputError, match=r"k=3004.*3003 features.*k ≤ 3003"):
        fit(bank, k=3004)
    with pytest.raises(harness.InputError, match=r"k=50.*20 features"):
        fit(bank, k=50, bank=20)


@pytest.mark.parametrize("parameters", [{"k": 0}, {"bank": 0}])
def test_an_invalid_hyperparameter_is_named(parameters):
    ((name, value),) = parameters.items()
    with pytest.raises(harness.InputError, match=f"{name}={value}.*Give"):
        Knn(**parameters)
