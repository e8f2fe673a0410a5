"""The flip estimator: its arithmetic by hand, a loop of a few lines beside it, and where the original crashes."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from small_networks import CLASSES, made, target
from torch import Tensor, nn

import harness
from harness_plugins.adapters.eta import Eta
from harness_plugins.estimators.flipping import flip_weights, predict, shuffled_batches
from harness_plugins.estimators.flips import Flips
from harness_plugins.estimators.procedure import tempered


def open_filters(**settings: Any) -> Flips:
    given: dict[str, Any] = {
        "steps": 12,
        "batch_size": 16,
        "margin": 1.0,
        "epsilon": 2.0,
        "lr": 0.05,
        "first": "adapted",
    }
    return Flips(**given | {"optimizer": "adam"} | settings)


# Arithmetic ---------------------------------------------------------------------------------------------------------


def test_weights_are_ranks_from_the_least_confident_with_ties_averaged() -> None:
    weights = flip_weights(torch.tensor([0.9, 0.5, 0.7, 0.5]))
    assert weights.tolist() == [4 / 4, 1.5 / 4, 3 / 4, 1.5 / 4]
    assert flip_weights(torch.rand(101)).sum().item() == pytest.approx(102 / 2)


def test_a_stream_is_in_full_batches_shuffled_anew_by_its_seed() -> None:
    batches = list(shuffled_batches(np.arange(10), 4, 5, seed=0))
    assert [len(batch) for batch in batches] == [4] * 5
    for first in (0, 2):
        assert len(np.unique(np.concatenate(batches[first : first + 2]))) == 8
    again = list(shuffled_batches(np.arange(10), 4, 5, seed=0))
    assert all((a == b).all() for a, b in zip(batches, again, strict=True))


# The procedure ------------------------------------------------------------------------------------------------------


def by_hand(network: Any, given: harness.Unlabelled, flips: Flips) -> tuple[float, float]:
    """Do it in a few lines: the weighted and the plain rate of flips."""
    settings = flips.procedure
    order = np.random.default_rng(given.seed).permutation(len(given))
    size = min(1000, int(len(given) * 0.5))
    probe, stream = order[:size], order[size:]
    model = copy.deepcopy(network).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.track_running_stats, module.running_mean, module.running_var = False, None, None
    cuts = range(settings.batch_size, size - settings.batch_size + 1, settings.batch_size)

    def logits() -> Tensor:
        with torch.no_grad():
            return torch.cat([model(given.batch(part)) for part in np.split(probe, cuts)]).double()

    before = logits()
    batches = [
        given.batch(part)
        for part in shuffled_batches(stream, settings.batch_size, settings.steps, given.seed)
    ]
    eta = Eta(settings.margin, settings.epsilon, settings.lr, settings.optimizer)
    list(eta.adapt(model, batches))
    flips = (before.argmax(dim=1) != logits().argmax(dim=1)).double()
    weights = flip_weights(before.softmax(dim=1).amax(dim=1))
    return float((weights * flips).sum()) / ((size + 1) / 2), float(flips.mean())


@pytest.mark.parametrize("norm", ["batch", "group"])
def test_the_rate_is_that_of_a_loop_by_hand(norm: str) -> None:
    network = made(norm)
    given, settings = target(network), open_filters()
    weighted, plain = by_hand(network, given, settings)
    assert 0 < plain < 1
    found = settings.estimate(given)
    assert (found.score, found.accuracy) == (pytest.approx(weighted), None)
    assert found.facts["flipped"] == pytest.approx(plain)
    assert (found.facts["updated"], found.facts["probe"]) == (1, 100)
    assert found.lo is not None
    assert found.hi is not None
    assert found.lo <= found.score <= found.hi
    assert open_filters(weighted=False).estimate(given).score == pytest.approx(plain)


def test_it_leaves_no_trace() -> None:
    network = made()
    state = {name: value.clone() for name, value in network.state_dict().items()}
    given = target(network)
    first, again = (open_filters().estimate(given) for _ in range(2))
    assert first == again
    assert all(torch.equal(state[name], value) for name, value in network.state_dict().items())


# The two definitions ------------------------------------------------------------------------------------------------


def test_each_definition_is_named() -> None:
    given = target(made())
    assert (
        open_filters(first="source").estimate(given).definition == "first predictions of the model as it is"
    )
    assert open_filters().estimate(given).definition == "first predictions under batch statistics"
    named = Flips(weighted=False, published="linear")
    assert named.definition == "first predictions under batch statistics, published curve of ImageNet models"


def test_a_temperature_divides_the_logits_and_nothing_else() -> None:
    network = made()
    images = torch.randn(5, 1, 6, 6, generator=torch.Generator().manual_seed(3))
    cold = tempered(network, 2.0)
    maps = cold.forward_features(images)
    assert torch.equal(cold.forward_head(maps), network(images) / 2)
    assert torch.equal(cold(images), network(images) / 2)
    assert torch.equal(cold.forward_head(maps, pre_logits=True), network.forward_head(maps, pre_logits=True))
    assert cold.get_classifier() is network.fc


def test_first_predictions_are_the_source_s_own_unless_batch_statistics_are_asked_for() -> None:
    network = made()
    network.norm.running_mean += 1.0
    given, settings = target(network), open_filters(first="source")
    assert Flips().procedure.first == "source"
    order = np.random.default_rng(0).permutation(200)[:100]
    with torch.no_grad():
        source = network(given.batch(order)).argmax(dim=1)
    found = settings.estimate(given)
    assert found.score != open_filters().estimate(given).score
    adapted = copy.deepcopy(network).eval()
    for module in adapted.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.track_running_stats, module.running_mean, module.running_var = False, None, None
    stream = np.random.default_rng(0).permutation(200)[100:]
    list(
        Eta(1.0, 2.0, 0.05, "adam").adapt(
            adapted, [given.batch(p) for p in shuffled_batches(stream, 16, 12, 0)]
        )
    )
    last = predict(adapted, given, order, 16).argmax(dim=1)
    assert found.facts["flipped"] == pytest.approx(float((source != last).double().mean()))


def test_the_original_s_stream_holds_the_probe() -> None:
    given = target(made(), count=60)
    assert (
        open_filters(disjoint=False).estimate(given).facts["probe"] == 60
    )  # a probe larger than the data is cut


# Where the original crashes, or says nothing ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "batch_size", "steps"), [(64, 16, 12), (66, 16, 9), (130, 64, 13), (40, 7, 5)]
)
def test_no_length_of_the_stream_is_any_trouble(count: int, batch_size: int, steps: int) -> None:
    found = open_filters(batch_size=batch_size, steps=steps).estimate(target(made(), count))
    assert 0 <= found.score <= 1


def test_two_classes_update_and_give_a_rate() -> None:
    found = open_filters().estimate(target(made(classes=2)))
    assert found.facts["updated"] == 1


def test_no_update_is_an_error_and_not_a_number() -> None:
    given = target(made(sharp=0.01))  # so uncertain that no sample passes the filter
    with pytest.raises(
        harness.InputError, match=r"0\.0 % of 12 steps updated a weight.*margin than 0\.1"
    ) as raised:
        open_filters(margin=0.1).estimate(given)
    assert "\n" not in str(raised.value)


def test_one_class_throughout_is_a_rate_of_nothing_and_told_by_its_entropy() -> None:
    network = made()
    network.fc.bias.data[0] = 1000.0
    found = open_filters().estimate(target(network))
    assert (found.score, found.facts["class_entropy"]) == (0, 0)


def test_too_few_images_are_refused_with_how_many_are_wanted() -> None:
    with pytest.raises(
        harness.InputError, match=r"20 images are too few.*Give 18 or more, or a smaller batch_size"
    ):
        open_filters().estimate(target(made(), count=20))


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"steps": 0}, "steps is 0"),
        ({"probe_share": 1.0}, r"probe_share is 1\.0"),
        ({"first": "last"}, "no first prediction named 'last'"),
        ({"published": "cubic"}, "no published curve named 'cubic'"),
        ({"published": "linear"}, "without weights. Give weighted = false"),
        ({"published": "weighted_quadratic", "weighted": False}, "Give weighted = true"),
        ({"margin": 0.0}, r"margin is 0\.0"),
        ({"optimizer": "lbfgs"}, "no optimizer named 'lbfgs'"),
        ({"temperature": 0.0}, r"temperature is 0\.0"),
        ({"probe_batch": 0}, "probe_batch is 0"),
    ],
)
def test_a_parameter_out_of_range_is_refused(params: dict[str, Any], message: str) -> None:
    with pytest.raises(harness.HarnessError, match=message):
        Flips(**params)


def test_predictions_are_in_fixed_batches_without_a_batch_of_one() -> None:
    sizes: list[int] = []

    def batch(positions: np.ndarray) -> Tensor:
        sizes.append(len(positions))
        return torch.zeros(len(positions), 1, 6, 6)

    recorder: Callable[..., Tensor] = batch
    given = harness.Unlabelled(harness.FeatureSet({"ids": np.arange(33)}), batch=recorder, model=made)
    assert predict(made(), given, np.arange(33), 16).shape == (33, CLASSES)
    assert sizes == [16, 17]
