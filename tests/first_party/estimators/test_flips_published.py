"""The flips of the published curve: its polynomials, its setting, and the authors' algorithm written out beside it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

import harness
from harness_plugins.estimators.flipping import published_accuracy, shuffled_batches
from harness_plugins.estimators.flips import Flips, FlipsScaled
from harness_plugins.estimators.temperature import fit_temperature

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


# The curve ----------------------------------------------------------------------------------------------------------


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


# The counts ---------------------------------------------------------------------------------------------------------


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


def by_hand(
    network: Toy, given: harness.Unlabelled, *, temperature: float = 1.0, probe_batch: int = 100
) -> float:
    """Compute the authors' weighted count of flips from their description, on plain tensors: no layer, no optimiser.

    Scale and shift of BatchNorm learn by SGD (rate 2.5e-4, momentum .9) in 990 steps of 64 images, from the mean of
    exp(E - H) H over images with entropy H < E = .4 ln C whose prediction has a cosine below .05 to the moving average
    of those that were learnt from. The statistics are those of the batch, also for the 1,000 images that are predicted
    before and after, a hundred at a time. A flip counts by the rank of its first confidence, divided by 1,000.
    """
    inner, head = network.inner.weight.detach(), network.fc.weight.detach()
    learnt = [
        torch.ones(len(inner), dtype=torch.float64, requires_grad=True),
        torch.zeros(len(inner), dtype=torch.float64, requires_grad=True),
    ]

    def logits(positions: np.ndarray) -> Tensor:
        hidden = given.batch(positions).flatten(1) @ inner.T
        centred = hidden - hidden.mean(dim=0)
        normal = centred / (centred.square().mean(dim=0) + 1e-5).sqrt()
        return (learnt[0] * normal + learnt[1]).clamp(min=0) @ head.T / temperature

    def confident() -> pd.DataFrame:
        with torch.no_grad():
            found = torch.cat([logits(part) for part in np.split(order[:1000], cuts)]).softmax(dim=1)
        return pd.DataFrame({"confidence": found.amax(dim=1), "predicted": found.argmax(dim=1)})

    order = np.random.default_rng(given.seed).permutation(len(given))
    cuts = range(probe_batch, 1001 - probe_batch, probe_batch)
    before = confident()
    limit = 0.4 * math.log(len(head))
    velocity: list[Tensor | float] = [0.0, 0.0]
    average: Tensor | None = None
    for positions in shuffled_batches(order, 64, 990, given.seed):
        probabilities = logits(positions).softmax(dim=1)
        entropies = -(probabilities * probabilities.log()).sum(dim=1)
        kept = entropies < limit
        if average is not None:
            lengths = probabilities.norm(dim=1) * average.norm()
            kept &= probabilities @ average / lengths < 0.05
        if not kept.any():
            continue
        loss = (entropies[kept] * (limit - entropies[kept].detach()).exp()).mean()
        slopes = torch.autograd.grad(loss, learnt)
        mean = probabilities[kept].detach().mean(dim=0)
        average = mean if average is None else 0.9 * average + 0.1 * mean
        for number, slope in enumerate(slopes):
            velocity[number] = 0.9 * velocity[number] + slope
            with torch.no_grad():
                learnt[number] -= 2.5e-4 * velocity[number]
    flipped = before["predicted"] != confident()["predicted"]
    return float((before["confidence"].rank() / 1000)[flipped].sum())


TEMPERATURES = {
    0.5: 213.206,
    1.0: 151.683,
    1.5: 168.989,
    3.0: 96.886,
}  # the count of the authors' own code, for each


@pytest.mark.parametrize(("temperature", "count"), TEMPERATURES.items())
def test_the_authors_counts_on_a_toy_stream_by_temperature(
    toy_stream: harness.Unlabelled, temperature: float, count: float
) -> None:
    """By the authors' own code, run on this network and these batches, with .4 ln 200 for its .4 ln 1000."""
    found = Flips(published="weighted_quadratic", temperature=temperature).estimate(toy_stream)
    written_out = by_hand(Toy(), toy_stream, temperature=temperature)
    assert written_out == pytest.approx(count, abs=0.1)
    assert found.accuracy == pytest.approx(published_accuracy(written_out, "weighted_quadratic"), abs=1e-12)
    assert found.facts["temperature"] == temperature
    assert found.definition.endswith("published curve of ImageNet models")


def test_the_probe_s_batches_matter_by_so_much(toy_stream: harness.Unlabelled) -> None:
    """The authors' own code gives 151.407 with a probe in batches of 64, which are those of the stream."""
    score = Flips(**AUTHORS | {"probe_batch": 64}).estimate(toy_stream).score
    written_out = by_hand(Toy(), toy_stream, probe_batch=64)
    assert 500.5 * score == pytest.approx(written_out, abs=1e-9)
    assert written_out == pytest.approx(151.407, abs=0.1)


# The setting --------------------------------------------------------------------------------------------------------


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
