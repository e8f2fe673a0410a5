import numpy as np
import pytest
import torch
from scipy.special import logsumexp

import harness
from harness_plugins.scorers.vim import Vim, default_dim


def features(rows, weight, bias):
    logits = rows @ weight.T + bias
    return harness.Features(penultimate=torch.as_tensor(rows), logits=torch.as_tensor(logits))


def fit(train, weight, bias, **parameters):
    head = harness.LinearHead(torch.as_tensor(weight), torch.as_tensor(bias))
    data = harness.FitData(
        train=harness.FeatureSet.of(features(train, weight, bias), chunk_size=99), head=head
    )
    return Vim(**parameters).fit(data)


def peer(train, queries, weight, bias, dim):
    """The paper's formula, by the projection on the principal space and not by its complement."""
    origin = -np.linalg.pinv(weight) @ bias
    principal = np.linalg.svd(train - origin, full_matrices=False)[2][:dim]

    def residual(rows):
        centred = rows - origin
        return np.linalg.norm(centred - centred @ principal.T @ principal, axis=1)

    alpha = (train @ weight.T + bias).max(axis=1).mean() / residual(train).mean()
    return alpha * residual(queries) - logsumexp(queries @ weight.T + bias, axis=1)


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    scales = np.geomspace(5, 0.1, 16)
    train, queries = rng.normal(size=(500, 16)) * scales + 1, 2 * rng.normal(size=(80, 16))
    return train, queries, rng.normal(size=(7, 16)), rng.normal(size=7)


@pytest.mark.parametrize("dim", [1, 5, 15])
def test_scores_are_the_papers_formula(data, dim):
    train, queries, weight, bias = data
    found = fit(train, weight, bias, dim=dim).score(features(queries, weight, bias))
    np.testing.assert_allclose(found.numpy(), peer(train, queries, weight, bias, dim), rtol=1e-9)


def test_half_of_few_features_is_the_default_dimension(data):
    train, queries, weight, bias = data
    found = fit(train, weight, bias).score(features(queries, weight, bias))
    np.testing.assert_allclose(found.numpy(), peer(train, queries, weight, bias, 8), rtol=1e-9)


@pytest.mark.parametrize(
    ("num_features", "dim"), [(2048, 1000), (2047, 512), (768, 512), (767, 383), (64, 32)]
)
def test_the_default_dimension_is_the_papers(num_features, dim):
    assert default_dim(num_features) == dim


@pytest.mark.parametrize("dim", [16, 17, 1000])
def test_a_dimension_that_leaves_no_residual_is_refused(data, dim):
    train, _, weight, bias = data
    with pytest.raises(harness.InputError, match=f"dim={dim} .*16 features.*dim < 16"):
        fit(train, weight, bias, dim=dim)


def test_training_features_inside_the_principal_space_are_refused(data):
    train, _, weight, _ = data
    flat = np.where(np.arange(16) < 4, train, 0)
    with pytest.raises(harness.InputError, match=r"dim=4.*no residual"):
        fit(flat, weight, np.zeros(7), dim=4)


def test_an_alpha_that_is_not_positive_is_refused(data):
    train, _, weight, _ = data
    with pytest.raises(harness.InputError, match=r"alpha=-.*positive"):
        fit(train, weight, np.full(7, -1e4))


@pytest.mark.parametrize("dim", [0, -3])
def test_an_invalid_dimension_is_named(dim):
    with pytest.raises(harness.InputError, match=f"dim={dim}.*Give"):
        Vim(dim)
