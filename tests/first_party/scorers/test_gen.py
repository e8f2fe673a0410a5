import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

import harness
from harness_plugins.scorers.gen import Gen

GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "gen.json").read_text())


def score(logits, **parameters):
    return Gen(**parameters).score(harness.Features(logits=torch.as_tensor(logits)))


@pytest.mark.parametrize("case", GOLDEN["cases"])
def test_scores_are_those_of_the_authors_code_with_the_sign_turned(case):
    names = {"i": np.arange(case["n"])[:, None], "j": np.arange(case["C"])[None, :], "np": np}
    logits = eval(case["logits"], names) * 1.0  # the golden file's convention
    found = score(logits, gamma=case["gamma"], top_m=case["M"])
    assert found.dtype == torch.float64
    np.testing.assert_allclose(found.numpy(), case["scores"], rtol=0, atol=1e-9)


def closed_form(margin, others, gamma):
    """One logit stands `margin` above the others, which are equal."""
    rest = others * math.exp(-margin)
    largest, other = 1 / (1 + rest), math.exp(-margin) / (1 + rest)
    return (largest * rest / (1 + rest)) ** gamma + others * (other * (1 - other)) ** gamma


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("margin", [0, 1, 10, 30, 40, 60, 200])
def test_confident_logits_are_scored_exactly(margin, dtype):
    logits = torch.zeros(1, 10, dtype=dtype)
    logits[0, 3] = margin
    assert score(logits).item() == pytest.approx(closed_form(margin, 9, 0.1), rel=1e-12)


def test_a_margin_of_thirty_gives_the_known_value():
    assert score([[30.0] + [0.0] * 9]).item() == pytest.approx(0.5101, abs=5e-5)


def test_no_two_confident_samples_tie():
    margins = torch.arange(30, 300, 0.5)
    logits = torch.zeros(len(margins), 10)
    logits[:, 0] = margins
    scores = score(logits)
    assert scores.isfinite().all()
    assert (scores.diff() < 0).all()


def test_one_class_and_impossible_classes_give_zero():
    assert score([[7.0]]).tolist() == [0.0]
    assert score([[7.0, -math.inf, -math.inf]]).tolist() == [0.0]


def test_only_the_largest_probabilities_count():
    logits = np.log([[0.5, 0.3, 0.2]])
    expected = 0.5 * 0.5 + 0.3 * 0.7
    assert score(logits, gamma=1.0, top_m=2).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("parameters", [{"gamma": 0.0}, {"gamma": -1.0}, {"gamma": math.nan}, {"top_m": 0}])
def test_an_invalid_hyperparameter_is_named(parameters):
    ((name, value),) = parameters.items()
    with pytest.raises(harness.InputError, match=f"{name}={value}.*Give"):
        Gen(**parameters)
