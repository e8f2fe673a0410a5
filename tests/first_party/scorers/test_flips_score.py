"""The flips score: a few lines by hand beside it, and an error where nothing flips."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from small_networks import made, target

import harness
from harness_plugins.adapters.eta import Eta
from harness_plugins.estimators.flipping import shuffled_batches
from harness_plugins.scorers.flips import FlipsScorer


@pytest.mark.parametrize("norm", ["batch", "group"])
def test_the_score_counts_checks_that_differ_and_orders_ties_by_confidence(norm: str) -> None:
    network = made(norm, sharp=2.0)
    stream = target(network, count=90)
    found = FlipsScorer(epochs=3, checks=4, batch_size=16, lr=0.05).score_stream(stream)
    model = copy.deepcopy(network).eval()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.track_running_stats, module.running_mean, module.running_var = False, None, None
    whole, cuts = np.arange(90), range(16, 75, 16)

    def predicted() -> torch.Tensor:
        with torch.no_grad():
            return torch.cat([model(stream.batch(part)) for part in np.split(whole, cuts)]).double()

    steps = 3 * (90 // 16)
    first, count = predicted(), torch.zeros(90, dtype=torch.float64)
    checks = {round(steps * number / 4) for number in range(1, 5)}
    batches = (stream.batch(part) for part in shuffled_batches(whole, 16, steps, 0))
    for number, _ in enumerate(Eta(1.0, 2.0, 0.05).adapt(model, batches), start=1):
        if number in checks:
            count += predicted().argmax(dim=1) != first.argmax(dim=1)
    assert count.sum() > 0
    assert torch.equal(found.variants["without_tie_break"], count)
    expected = count + 1 - first.softmax(dim=1).amax(dim=1)
    assert torch.allclose(found.scores, expected, rtol=0, atol=1e-12)
    assert found.facts == {"updated": 1, "flipped": float((count > 0).double().mean()), "steps": steps}
    assert (found.forwards, found.backwards) == (90 * 5 + steps * 16, steps * 16)


def test_the_model_is_untouched_and_the_score_the_same_again() -> None:
    network = made(sharp=2.0)
    state = {name: value.clone() for name, value in network.state_dict().items()}
    stream = target(network, count=90)
    first, again = (FlipsScorer(lr=0.05, batch_size=16).score_stream(stream).scores for _ in range(2))
    assert torch.equal(first, again)
    assert all(torch.equal(state[name], value) for name, value in network.state_dict().items())


def test_no_flip_and_no_update_are_errors_and_not_the_confidence_renamed() -> None:
    stream = target(made(), count=90)
    with pytest.raises(harness.InputError, match="no prediction changed in 5 steps"):
        FlipsScorer(epochs=1, batch_size=16, lr=1e-9).score_stream(stream)
    with pytest.raises(harness.InputError, match="no step updated a weight in 5 steps"):
        FlipsScorer(epochs=1, batch_size=16, margin=0.1).score_stream(target(made(sharp=0.01), count=90))


def test_a_stream_shorter_than_a_batch_is_one_batch() -> None:
    found = FlipsScorer(lr=0.5, epochs=20).score_stream(target(made(sharp=2.0), count=20))
    assert len(found.scores) == 20


@pytest.mark.parametrize(
    "params", [{"epochs": 0}, {"checks": 0}, {"batch_size": 0}, {"margin": 2.0}, {"lr": -1.0}]
)
def test_a_parameter_out_of_range_is_refused(params: dict[str, Any]) -> None:
    with pytest.raises(harness.InputError, match=next(iter(params))):
        FlipsScorer(**params)
