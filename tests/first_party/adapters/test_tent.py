"""Tent against autograd on the tiny networks written out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from first_party.adapters.by_hand import WITH_NORM, ByHand, assert_same, entropies, moved, run, state
from first_party.adapters.conftest import tiny, twin
from torch import Tensor

import harness
from harness_plugins.adapters.tent import Tent

LARGE = (64, 64)
WEIGHTS = {"norm.weight", "norm.bias"}


def adam(parameters: list[Tensor]) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=1e-3, betas=(0.9, 0.999), weight_decay=0)


def sgd(parameters: list[Tensor], lr: float = 2.5e-4) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=lr, momentum=0.9, weight_decay=0)


def tent_by_hand(
    model: ByHand, batches: list[Tensor], optimizer: torch.optim.Optimizer, steps: int = 1
) -> list[Tensor]:
    """Return the logits of each batch's first step."""
    seen = []
    for images in batches:
        for step in range(steps):
            logits = model.logits(images)
            if step == 0:
                seen.append(logits.detach())
            model.descend(entropies(logits).mean(), optimizer)
    return seen


def assert_adapts_as(
    adapter: Tent, norm: str, batches: list[Tensor], optimize: Any = adam, steps: int = 1
) -> None:
    network = tiny(norm)
    model = ByHand(network, norm)
    logits = tent_by_hand(model, batches, optimize([model.weight, model.bias]), steps)
    for found, expected in zip(run(adapter, network, batches), logits, strict=True):
        assert_same(found.before.logits, expected)
    assert_same(network.norm.weight, model.weight)
    assert_same(network.norm.bias, model.bias)


@pytest.mark.parametrize("norm", WITH_NORM)
def test_one_step_is_adam_s_on_the_mean_entropy(norm: str, batches: list[Tensor]) -> None:
    assert_adapts_as(Tent(), norm, batches[:1])


@pytest.mark.parametrize("norm", WITH_NORM)
def test_what_is_learnt_from_a_batch_serves_the_next(norm: str, batches: list[Tensor]) -> None:
    assert_adapts_as(Tent(), norm, batches)


@pytest.mark.parametrize("norm", WITH_NORM)
def test_several_steps_a_batch_predict_by_the_first(norm: str, batches: list[Tensor]) -> None:
    assert_adapts_as(Tent(steps=3), norm, batches, steps=3)


@pytest.mark.parametrize("norm", WITH_NORM)
def test_large_images_take_sgd_with_momentum(norm: str) -> None:
    generator = torch.Generator().manual_seed(3)
    batches = [torch.randn(2, 1, *LARGE, dtype=torch.float64, generator=generator) for _ in range(3)]
    assert_adapts_as(Tent(), norm, batches, sgd)


def test_optimiser_and_rate_can_be_given(batches: list[Tensor]) -> None:
    assert_adapts_as(Tent(lr=0.05, optimizer="sgd"), "batch", batches, lambda p: sgd(p, 0.05))


def test_an_optimiser_alone_keeps_the_rate_of_the_images_size(batches: list[Tensor]) -> None:
    assert_adapts_as(Tent(optimizer="sgd"), "batch", batches, lambda p: sgd(p, 1e-3))


@pytest.mark.parametrize("norm", WITH_NORM)
def test_only_scale_and_shift_move_and_the_source_s_statistics_do_not(
    norm: str, batches: list[Tensor]
) -> None:
    network, source = tiny(norm), tiny(norm)
    before = state(source)
    adapted = twin(network)
    run(Tent(), adapted, batches)
    assert moved(before, adapted) == WEIGHTS
    assert moved(before, network) == set()
    assert {name for name, p in adapted.named_parameters() if p.requires_grad} == WEIGHTS
    assert not adapted.training


def test_predictions_of_before_the_step_are_scored(network: Any, batches: list[Tensor]) -> None:
    for found in run(Tent(steps=2), network, batches):
        assert (found.after, found.scored) == (None, "before")
        assert (found.updated, found.reset, found.forwards, found.backwards) == (True, False, 16, 16)
        assert not found.before.logits.requires_grad
        assert not found.before.penultimate.requires_grad
        assert_same(network.fc(found.before.penultimate), found.before.logits)


def test_a_batch_is_answered_before_the_next_is_asked_for(network: Any, batches: list[Tensor]) -> None:
    asked = []

    def stream() -> Iterator[Tensor]:
        for number, images in enumerate(batches):
            asked.append(number)
            yield images

    answered = [list(asked) for _ in Tent().adapt(network, stream())]
    assert answered == [[0], [0, 1], [0, 1, 2]]


def test_it_learns_where_gradients_are_switched_off_and_leaves_them_off(
    network: Any, batches: list[Tensor]
) -> None:
    with torch.no_grad():
        for found in Tent().adapt(network, batches):
            assert found.updated
            assert not torch.is_grad_enabled()
    assert network.norm.weight.requires_grad


def test_an_adapter_used_again_begins_anew(batches: list[Tensor]) -> None:
    adapter = Tent(lr=0.01)
    first, second = (run(adapter, tiny(), batches) for _ in range(2))
    assert all(torch.equal(a.before.logits, b.before.logits) for a, b in zip(first, second, strict=True))


def test_another_adapter_before_it_leaves_no_trace(batches: list[Tensor]) -> None:
    alone = run(Tent(), tiny(), batches)
    source = tiny()
    run(Tent(lr=0.1, optimizer="sgd"), twin(source), batches)
    after = run(Tent(), twin(source), batches)
    assert torch.equal(alone[-1].before.logits, after[-1].before.logits)


@pytest.mark.parametrize("number", [1, 3])
def test_a_loss_that_is_not_finite_stops_before_the_step(batches: list[Tensor], number: int) -> None:
    network, reference = tiny(), tiny()
    run(Tent(), reference, batches[: number - 1])
    batches[number - 1][0] = float("nan")
    message = rf"the loss of batch {number} is nan: the model has diverged\. Give an lr below 0\.001"
    with pytest.raises(harness.InputError, match=message) as caught:
        run(Tent(), network, batches)
    assert "\n" not in str(caught.value)
    assert torch.equal(network.norm.weight, reference.norm.weight)


def test_a_network_without_normalisation_is_refused_in_one_line(batches: list[Tensor]) -> None:
    with pytest.raises(harness.InputError, match="Tiny has no BatchNorm, LayerNorm or GroupNorm") as caught:
        run(Tent(), tiny("none"), batches)
    assert "\n" not in str(caught.value)


def test_one_value_a_channel_is_refused_under_batchnorm_alone() -> None:
    batch = torch.zeros(1, 1, 1, 1, dtype=torch.float64)
    with pytest.raises(
        harness.InputError, match="a batch of 1 gives a BatchNorm2d layer one value"
    ) as caught:
        run(Tent(), tiny(), [batch])
    assert "\n" not in str(caught.value)
    assert len(run(Tent(), tiny("layer"), [batch])) == 1


def test_an_empty_stream_is_answered_by_nothing(network: Any) -> None:
    assert run(Tent(), network, []) == []


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"lr": 0.0}, r"lr is 0\.0\. Give a number above 0"),
        ({"lr": float("inf")}, r"lr is inf\. Give a number above 0"),
        ({"steps": 0}, r"steps is 0\. Give a whole number of at least 1"),
        ({"steps": True}, r"steps is True\. Give a whole number of at least 1"),
        ({"steps": 1.5}, r"steps is 1\.5\. Give a whole number of at least 1"),
        ({"optimizer": "adamw"}, "no optimizer named 'adamw'. Did you mean 'adam'"),
    ],
)
def test_a_parameter_out_of_range_is_refused(params: dict[str, Any], message: str) -> None:
    with pytest.raises(harness.HarnessError, match=message):
        Tent(**params)
