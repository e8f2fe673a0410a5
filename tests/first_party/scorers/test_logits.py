import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import logsumexp, softmax
from scipy.stats import entropy

import harness
from harness_plugins.scorers.logits import Energy, Entropic, MaxLogit, MaxProbability, MinDistance

GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "isomax.json").read_text())
AUTHORS = {"entropic": "ES", "min_distance": "MDS", "msp": "MPS"}  # theirs are ID-high
SCORERS = {"entropic": Entropic(), "min_distance": MinDistance(), "msp": MaxProbability()}


def score(scorer, logits):
    return scorer.score(harness.Features(logits=torch.as_tensor(logits))).numpy()


@pytest.fixture
def logits():
    return np.random.default_rng(0).normal(scale=4, size=(50, 10))


@pytest.mark.parametrize("name", SCORERS)
@pytest.mark.parametrize("case", GOLDEN["cases"], ids=lambda case: case["kind"])
def test_scores_are_those_of_the_isomax_authors_with_the_sign_turned(case, name):
    found = score(SCORERS[name], torch.tensor(case["logits"], dtype=torch.float64))
    np.testing.assert_allclose(-found, case["scores"][AUTHORS[name]], rtol=0, atol=1e-9)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 100.0])
def test_energy_is_minus_the_tempered_logsumexp(logits, temperature):
    expected = -temperature * logsumexp(logits / temperature, axis=1)
    np.testing.assert_allclose(score(Energy(temperature), logits), expected, rtol=1e-13)


def test_msp_and_max_logit_are_minus_the_maxima(logits):
    np.testing.assert_allclose(
        score(MaxProbability(), logits), -softmax(logits, axis=1).max(axis=1), rtol=1e-13
    )
    np.testing.assert_array_equal(score(MaxLogit(), logits), -logits.max(axis=1))


def test_entropic_is_the_entropy_in_nats(logits):
    np.testing.assert_allclose(
        score(Entropic(), logits), entropy(softmax(logits, axis=1), axis=1), rtol=1e-12
    )
    assert score(Entropic(), np.zeros((1, 10))).item() == pytest.approx(math.log(10), rel=1e-15)


def test_entropic_is_a_number_where_probabilities_vanish():
    rows = [[0.0, -math.inf, 0.0], [0.0, -math.inf, -math.inf], [1e6, 0.0, -1e6]]
    np.testing.assert_allclose(score(Entropic(), rows), [math.log(2), 0, 0], rtol=1e-15)


@pytest.mark.parametrize("scorer", [MaxProbability(), MaxLogit(), Energy(), Entropic(), MinDistance()])
def test_half_precision_logits_are_scored_in_float64(scorer, logits):
    half = torch.as_tensor(logits).half()
    assert scorer.score(harness.Features(logits=half)).dtype == torch.float64
    np.testing.assert_array_equal(score(scorer, half), score(scorer, half.double()))


@pytest.mark.parametrize("scorer", [MaxProbability(), MaxLogit(), Energy(), Entropic(), MinDistance()])
def test_a_less_confident_sample_scores_higher(scorer):
    confident, doubtful = score(scorer, [[9.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
    assert doubtful > confident


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan])
def test_an_invalid_temperature_is_named(temperature):
    with pytest.raises(harness.InputError, match=f"temperature={temperature}.*> 0"):
        Energy(temperature)
