"""SAR against autograd, step by step, on the tiny networks written out."""

from __future__ import annotations

import math
from typing import Any

import pytest
import timm
import torch
from first_party.adapters.by_hand import WITH_NORM, ByHand, assert_same, entropies, moved, run, state
from first_party.adapters.conftest import CLASSES, tiny, twin
from torch import Tensor

import harness
from harness_plugins.adapters.sar import Sar, layers_below_last_stage
from harness_plugins.models.networks import cnn

WEIGHTS = {"norm.weight", "norm.bias"}
CHOOSY = {"batch": (0.6, 2.0), "group": (0.4, 2.0), "layer": (0.6, 1.0)}  # margin and the head's scale


class SarByHand:
    """SAR's steps on a network written out, with the mean loss and the way back."""

    def __init__(
        self,
        network: Any,
        norm: str,
        *,
        margin: float = 0.4,
        rho: float = 0.05,
        lr: float = 1e-3,
        **reset: float,
    ) -> None:
        self.model, self.source = ByHand(network, norm), ByHand(network, norm)
        self.limit, self.rho, self.lr = margin * math.log(CLASSES), rho, lr
        self.reset_below, self.momentum = reset.get("reset_below", 0.2), reset.get("momentum", 0.9)
        self.begin()

    def begin(self) -> None:
        with torch.no_grad():
            self.model.weight.copy_(self.source.weight)
            self.model.bias.copy_(self.source.bias)
        self.velocity, self.average = [torch.zeros(6).double(), torch.zeros(6).double()], None

    def learn(self, images: Tensor) -> tuple[Tensor, int, int, bool, Tensor]:
        """Return logits before, samples reliable once and twice, whether it went back, and logits after."""
        weights = [self.model.weight, self.model.bias]
        logits = self.model.logits(images)
        entropy = entropies(logits)
        once = [i for i in range(len(images)) if entropy[i] < self.limit]
        twice, reset = [], False
        if once:
            g = torch.autograd.grad(sum(entropy[i] for i in once) / len(once), weights)
            length = math.sqrt(sum((part**2).sum().item() for part in g))
            here = [w.detach().clone() for w in weights]
            with torch.no_grad():
                for w, part in zip(weights, g, strict=True):
                    w.add_(self.rho * part / length)
            entropy = entropies(self.model.logits(images))
            twice = [i for i in once if entropy[i] < self.limit]
            if twice:
                loss = sum(entropy[i] for i in twice) / len(twice)
                g = torch.autograd.grad(loss, weights)
                self.velocity = [0.9 * v + part for v, part in zip(self.velocity, g, strict=True)]
                here = [h - self.lr * v for h, v in zip(here, self.velocity, strict=True)]
                m, new = self.average, loss.item()
                self.average = new if m is None else self.momentum * m + (1 - self.momentum) * new
                reset = self.average < self.reset_below
            with torch.no_grad():
                for w, h in zip(weights, here, strict=True):
                    w.copy_(h)
        after = self.model.logits(images)
        if reset:
            self.begin()
        return logits, len(once), len(twice), reset, after


def assert_adapts_as(params: dict[str, Any], norm: str, batches: list[Tensor], **tiny_: Any) -> list[Any]:
    """Compare a whole course with the one by hand, and return the latter's counts and resets."""
    network = tiny(norm, **tiny_)
    by_hand = SarByHand(network, norm, **params)
    course = []
    for found, images in zip(Sar(**params).adapt(network, batches), batches, strict=True):
        logits, once, twice, reset, after = by_hand.learn(images)
        course.append((once, twice, reset))
        assert_same(found.before.logits, logits)
        assert (found.updated, found.reset, found.backwards) == (twice > 0, reset, once + twice)
        assert found.forwards == (16 if once else 8)
        if reset:
            assert found.after is not None
            assert_same(found.after.logits, after)
        else:
            assert found.after is None
    assert_same(network.norm.weight, by_hand.model.weight)
    assert_same(network.norm.bias, by_hand.model.bias)
    return course


@pytest.mark.parametrize("norm", WITH_NORM)
def test_one_step_is_sgd_s_by_the_gradient_at_the_climbed_weights(norm: str, batches: list[Tensor]) -> None:
    ((once, twice, _),) = assert_adapts_as({"margin": 1.0}, norm, batches[:1])
    assert once == twice == 8


@pytest.mark.parametrize("norm", WITH_NORM)
def test_samples_count_that_are_reliable_before_and_after_the_climb(norm: str, batches: list[Tensor]) -> None:
    margin, scale = CHOOSY[norm]
    course = assert_adapts_as({"margin": margin, "lr": 0.05}, norm, batches, scale=scale)
    assert len(course) == 3
    assert any(0 < twice < once < 8 for once, twice, _ in course)


@pytest.mark.parametrize("norm", WITH_NORM)
def test_large_images_take_a_smaller_step(norm: str) -> None:
    generator = torch.Generator().manual_seed(3)
    batches = [torch.randn(2, 1, 64, 64, dtype=torch.float64, generator=generator) for _ in range(2)]
    large, small = tiny(norm), tiny(norm)
    run(Sar(margin=1.0), large, batches)
    run(Sar(margin=1.0, lr=2.5e-4), small, batches)
    assert torch.equal(large.norm.weight, small.norm.weight)
    assert moved(state(tiny(norm)), large) == WEIGHTS


def test_adam_can_be_chosen(network: Any, batches: list[Tensor]) -> None:
    source = twin(network)
    run(Sar(margin=1.0, optimizer="adam", lr=0.01), network, batches[:1])
    steps = (
        network.norm.weight - source.norm.weight
    ).abs()  # the first step of Adam is lr, whatever the gradient
    torch.testing.assert_close(steps, torch.full_like(steps, 0.01), rtol=1e-3, atol=0)


def test_a_batch_without_reliable_samples_takes_no_step(network: Any, batches: list[Tensor]) -> None:
    source = state(network)
    for found in run(Sar(margin=0.5), network, batches):
        assert (found.updated, found.reset, found.forwards, found.backwards) == (False, False, 8, 0)
    assert moved(source, network) == set()


def test_a_climb_after_which_no_sample_is_reliable_takes_no_step(network: Any, batches: list[Tensor]) -> None:
    source = state(network)
    (found,) = run(Sar(margin=0.9, rho=0.5), network, batches[:1])
    assert (found.updated, found.reset, found.forwards, found.backwards) == (False, False, 16, 8)
    assert moved(source, network) == set()


@pytest.mark.parametrize("norm", WITH_NORM)
def test_it_goes_back_to_the_source_when_the_moving_average_is_low(norm: str, batches: list[Tensor]) -> None:
    params = {"margin": 1.0, "lr": 1.0, "momentum": 0.5, "reset_below": 0.5}
    course = assert_adapts_as(params, norm, batches * 3)
    resets = [reset for _, _, reset in course]
    assert resets.index(True) > 0
    assert False in resets[resets.index(True) :]


def test_the_source_is_back_bit_for_bit_and_each_batch_begins_anew(
    network: Any, batches: list[Tensor]
) -> None:
    source, adapter = state(network), Sar(margin=1.0, lr=0.1, reset_below=100.0)
    course = run(adapter, network, batches)
    assert moved(source, network) == set()
    for found, images in zip(course, batches, strict=True):
        (alone,) = run(adapter, tiny(), [images])
        assert (found.updated, found.reset) == (True, True)
        assert torch.equal(found.before.logits, alone.before.logits)
        assert found.after is not None
        assert not torch.equal(found.after.logits, found.before.logits)


@pytest.mark.parametrize("norm", WITH_NORM)
def test_only_scale_and_shift_move_and_the_source_s_statistics_do_not(
    norm: str, batches: list[Tensor]
) -> None:
    network = tiny(norm)
    run(Sar(margin=1.0), network, batches)
    assert moved(state(tiny(norm)), network) == WEIGHTS
    assert not network.training


def test_predictions_of_before_the_step_are_scored(network: Any, batches: list[Tensor]) -> None:
    for found in run(Sar(margin=1.0), network, batches):
        assert (found.after, found.scored, found.updated) == (None, "before", True)
        assert not found.before.logits.requires_grad
        assert_same(network.fc(found.before.penultimate), found.before.logits)


def named(network: Any) -> list[str]:
    names = {module: name for name, module in network.named_modules()}
    return [names[layer] for layer in layers_below_last_stage(network)]


def test_the_last_stage_of_a_network_of_stages_is_left_out() -> None:
    found = named(cnn((1, 8, 8), 4, width=2))
    assert found == ["stages.stage1.1", "stages.stage1.4", "stages.stage2.1", "stages.stage2.4"]


def test_the_last_stage_of_timm_s_networks_is_left_out_with_what_comes_behind_it() -> None:
    resnet = named(timm.create_model("resnet18"))
    assert len(resnet) == 15
    assert not any(name.startswith("layer4") for name in resnet)
    transformer = timm.create_model("vit_tiny_patch16_224", depth=3, embed_dim=12, num_heads=1)
    assert named(transformer) == ["blocks.0.norm1", "blocks.0.norm2", "blocks.1.norm1", "blocks.1.norm2"]


def test_weights_of_the_last_stage_stay(batches: list[Tensor]) -> None:
    network = cnn((1, 5, 5), 4, width=2).double().eval()
    source = state(network)
    run(Sar(margin=1.0), network, batches)
    names = [
        f"stages.stage{s}.{layer}.{kind}" for s in (1, 2) for layer in (1, 4) for kind in ("weight", "bias")
    ]
    assert moved(source, network) == set(names)


@pytest.mark.parametrize(
    "info", [None, [], [{"module": "norm"}], [{"module": "conv"}], [{"module": "nowhere"}]]
)
def test_all_layers_move_where_none_would_remain_or_stages_are_unknown(info: Any) -> None:
    network = tiny()
    network.feature_info = info
    assert named(network) == ["norm"]


def test_layers_that_the_forward_pass_leaves_out_stay(batches: list[Tensor]) -> None:
    network, plain = tiny(), tiny()
    network.aside = torch.nn.LayerNorm(3).double()
    first, second = (run(Sar(margin=1.0), n, batches) for n in (network, plain))
    assert torch.equal(first[-1].before.logits, second[-1].before.logits)
    assert torch.equal(network.aside.weight, torch.ones(3, dtype=torch.float64))


def test_it_learns_where_gradients_are_switched_off(network: Any, batches: list[Tensor]) -> None:
    with torch.no_grad():
        assert all(found.updated for found in Sar(margin=1.0).adapt(network, batches))


def test_an_adapter_used_again_begins_anew(batches: list[Tensor]) -> None:
    adapter = Sar(margin=1.0, lr=0.1)
    first, second = (run(adapter, tiny(), batches) for _ in range(2))
    assert all(torch.equal(a.before.logits, b.before.logits) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("number", [1, 3])
def test_a_loss_that_is_not_finite_stops_before_the_step(batches: list[Tensor], number: int) -> None:
    network, reference = tiny(), tiny()
    run(Sar(margin=1.0), reference, batches[: number - 1])
    batches[number - 1][0] = float("nan")
    message = rf"the loss of batch {number} is nan: the model has diverged\. Give an lr below 0\.001"
    with pytest.raises(harness.InputError, match=message) as caught:
        run(Sar(margin=1.0), network, batches)
    assert "\n" not in str(caught.value)
    assert torch.equal(network.norm.weight, reference.norm.weight)


def test_a_network_without_normalisation_is_refused_in_one_line(batches: list[Tensor]) -> None:
    with pytest.raises(harness.InputError, match="Tiny has no BatchNorm, LayerNorm or GroupNorm") as caught:
        run(Sar(), tiny("none"), batches)
    assert "\n" not in str(caught.value)


def test_one_value_a_channel_is_refused_under_batchnorm_alone() -> None:
    batch = torch.zeros(1, 1, 1, 1, dtype=torch.float64)
    with pytest.raises(harness.InputError, match="a batch of 1 gives a BatchNorm2d layer one value"):
        run(Sar(), tiny(), [batch])
    assert len(run(Sar(), tiny("layer"), [batch])) == 1


def test_an_empty_stream_is_answered_by_nothing(network: Any) -> None:
    assert run(Sar(), network, []) == []


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"lr": 0.0}, r"lr is 0\.0\. Give a number above 0"),
        ({"optimizer": "adamw"}, "no optimizer named 'adamw'. Did you mean 'adam'"),
        ({"margin": 0.0}, r"margin is 0\.0\. Give a share of ln C above 0, up to 1"),
        ({"rho": -1}, r"rho is -1\. Give a number above 0"),
        ({"rho": float("nan")}, r"rho is nan\. Give a number above 0"),
        ({"reset_below": -0.1}, r"reset_below is -0\.1\. Give a number of at least 0"),
        ({"momentum": 1.0}, r"momentum is 1\.0\. Give a share from 0 to below 1"),
    ],
)
def test_a_parameter_out_of_range_is_refused(params: dict[str, Any], message: str) -> None:
    with pytest.raises(harness.HarnessError, match=message):
        Sar(**params)
