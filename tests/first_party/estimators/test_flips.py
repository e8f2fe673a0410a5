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
from harness_plugins.estimators.flipping import flip_weights, predict, published_accuracy, shuffled_batches
from harness_plugins.estimators.flips import Flips, FlipsScaled
from harness_plugins.estimators.procedure import tempered
from harness_plugins.estimators.temperature import fit_temperature


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


@pytest.mark.parametrize(
    ("form", "count", "percent"),
    [
        ("weighted_quadratic", 0, 75.6618580),
        ("weighted_quadratic", 100, 3.55553868 - 32.1445023 + 75.6618580),
        ("linear", 200, 83.55158891 - 20.636454),
        ("quadratic", 300, -0.910498437 - 28.78220997 + 82.5756446),
        ("linear", 900, 0.0),
    ],
)
def test_the_published_polynomials(form: Any, count: float, percent: float) -> None:
    assert published_accuracy(count, form) == pytest.approx(percent / 100)


def test_the_weighted_polynomial_turns_up_again_as_the_original_does() -> None:
    """Its least value is at .321445023 / (2 * 3.55553868e-4) = 452.03: about 3.0 %."""
    assert published_accuracy(452.03, "weighted_quadratic") == pytest.approx(0.0301, abs=1e-4)
    assert published_accuracy(500.5, "weighted_quadratic") > published_accuracy(452.03, "weighted_quadratic")


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

AUTHORS: dict[str, Any] = {
    "first": "adapted",
    "epsilon": 0.05,
    "margin": 0.4,
    "probe": 1000,
    "probe_batch": 100,
    "batch_size": 64,
    "disjoint": False,
    "steps": 990,
    "lr": 2.5e-4,
    "optimizer": "sgd",
}


class Toy(nn.Module):
    """A linear layer, BatchNorm and a head of 200 classes, with weights that a seed fixes."""

    def __init__(self) -> None:
        super().__init__()
        rng = np.random.default_rng(0)
        self.inner, self.norm, self.fc = nn.Linear(16, 32), nn.BatchNorm2d(32).double(), nn.Linear(32, 200)
        for layer, scale in ((self.inner, 0.5), (self.fc, 3.0)):
            layer.weight.data = torch.from_numpy(scale * rng.standard_normal(tuple(layer.weight.shape)))
            layer.bias.data = torch.zeros(len(layer.weight), dtype=torch.float64)

    def forward_features(self, images: Tensor) -> Tensor:
        normalised: Tensor = self.norm(self.inner(images.flatten(1))[:, :, None, None])
        return normalised.relu()

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        pooled = features.flatten(1)
        return pooled if pre_logits else self.fc(pooled)

    def get_classifier(self) -> nn.Module:
        return self.fc

    def forward(self, images: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(images))


@pytest.fixture(scope="module")
def toy_stream() -> harness.Unlabelled:
    """1,200 points around 50 centres, and the toy network."""
    rng = np.random.default_rng(1)
    centres = rng.standard_normal((50, 16))[np.arange(1200) % 50]
    images = torch.from_numpy(centres + rng.standard_normal((1200, 16))).reshape(1200, 1, 4, 4)
    return harness.Unlabelled(
        harness.FeatureSet({"ids": np.arange(1200)}), batch=lambda at: images[at], model=lambda: Toy().eval()
    )


@pytest.mark.parametrize(
    ("temperature", "count"), [(0.5, 213.206), (1, 151.683), (1.5, 168.989), (3, 96.886)]
)
def test_the_authors_counts_on_a_toy_stream_by_temperature(
    toy_stream: harness.Unlabelled, temperature: float, count: float
) -> None:
    """By the authors' own code, run on this network and these batches, with .4 ln 200 for its .4 ln 1000."""
    found = Flips(published="weighted_quadratic", temperature=temperature).estimate(toy_stream)
    assert found.accuracy == pytest.approx(published_accuracy(count, "weighted_quadratic"), abs=2e-4)
    assert found.facts["temperature"] == temperature
    assert found.definition.endswith("published curve of ImageNet models")


def test_the_probe_s_batches_matter_by_so_much(toy_stream: harness.Unlabelled) -> None:
    """The authors' own code gives 151.407 with a probe in batches of 64, which are those of the stream."""
    score = Flips(**AUTHORS | {"probe_batch": 64}).estimate(toy_stream).score
    assert 500.5 * score == pytest.approx(151.407, abs=0.5)


def test_published_implies_the_authors_setting() -> None:
    implied = Flips(published="weighted_quadratic")
    assert implied.procedure == Flips(**AUTHORS).procedure
    assert Flips(published="weighted_quadratic", **AUTHORS).procedure == implied.procedure


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("first", "source"),
        ("epsilon", 0.4),
        ("margin", 0.5),
        ("probe", 500),
        ("probe_batch", 64),
        ("probe_share", 0.5),
        ("batch_size", 50),
        ("disjoint", True),
        ("steps", 40),
        ("lr", 1e-3),
        ("optimizer", "adam"),
    ],
)
def test_published_refuses_another_setting_and_says_why(name: str, value: Any) -> None:
    with pytest.raises(
        harness.InputError, match=rf"^{name} is .*published curve was fitted with .*Leave {name} out"
    ) as raised:
        Flips(published="weighted_quadratic", **{name: value})
    assert "\n" not in str(raised.value)


def test_each_definition_is_named() -> None:
    given = target(made())
    assert (
        open_filters(first="source").estimate(given).definition == "first predictions of the model as it is"
    )
    assert open_filters().estimate(given).definition == "first predictions under batch statistics"
    named = Flips(weighted=False, published="linear")
    assert named.definition == "first predictions under batch statistics, published curve of ImageNet models"


def test_the_scaled_flips_divide_by_the_temperature_of_validation() -> None:
    logits = torch.randn(400, 200, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    labels = torch.distributions.Categorical(logits=logits / 1.5).sample()
    data = harness.FitData(validation=harness.FeatureSet.of(harness.Features(logits=logits, labels=labels)))
    fitted = FlipsScaled().fit(data)
    assert fitted.temperature == fit_temperature(logits, labels) == pytest.approx(1.5, abs=0.3)
    assert fitted == Flips(published="weighted_quadratic", temperature=fitted.temperature)
    assert FlipsScaled(published="linear").fit(data).weighted is False
    with pytest.raises(harness.HarnessError, match="no published curve named 'cubic'"):
        FlipsScaled(published="cubic")  # type: ignore[arg-type]


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
