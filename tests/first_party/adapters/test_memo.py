"""MEMO against autograd on every weight, image by image."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import pytest
import torch
from first_party.adapters.by_hand import WITH_NORM, assert_same, moved, run, state
from first_party.adapters.conftest import tiny, twin
from torch import Tensor
from torch.func import functional_call

import harness
from harness_plugins.adapters.memo import Memo, marginal_entropy
from harness_plugins.adapters.views import augmented

QUICK: dict[str, Any] = {"lr": 0.1, "views": 4}


def memo_by_hand(
    network: Any,
    batches: list[Tensor],
    *,
    lr: float = 2.5e-4,
    views: int = 32,
    steps: int = 1,
    flip: bool = True,
    seed: int = 0,
    optimizer: str = "sgd",
) -> list[Tensor]:
    """Return each batch's logits after each image's own step down H(mean p)."""
    generator, found = torch.Generator().manual_seed(seed), []
    for images in batches:
        logits = []
        for image in images:
            weights = {name: p.detach().clone().requires_grad_() for name, p in network.named_parameters()}
            kind: Any = {"sgd": partial(torch.optim.SGD, momentum=0.9), "adam": torch.optim.Adam}
            descent = kind[optimizer](list(weights.values()), lr=lr)
            for _ in range(steps):
                augmentations = augmented(torch.stack([image] * views), generator, flip=flip)
                p = functional_call(network, weights, (augmentations,)).softmax(dim=1).mean(dim=0)
                gradients = torch.autograd.grad(-(p * p.log()).sum(), list(weights.values()))
                for weight, gradient in zip(weights.values(), gradients, strict=True):
                    weight.grad = gradient
                descent.step()
            logits.append(functional_call(network, weights, (image[None],)).detach())
        found.append(torch.cat(logits))
    return found


def assert_adapts_as(params: dict[str, Any], norm: str, batches: list[Tensor]) -> None:
    expected = memo_by_hand(tiny(norm), batches, **params)
    for found, logits in zip(run(Memo(**params), tiny(norm), batches), expected, strict=True):
        assert found.after is not None
        assert_same(found.after.logits, logits)


@pytest.mark.parametrize("norm", [*WITH_NORM, "none"])
def test_each_image_is_predicted_after_a_step_of_its_own(norm: str, batches: list[Tensor]) -> None:
    assert_adapts_as({}, norm, batches[:1])
    assert_adapts_as(QUICK, norm, batches)


@pytest.mark.parametrize(
    "params", [{"steps": 3}, {"steps": 2, "optimizer": "adam", "lr": 0.01}, {"flip": False}, {"seed": 2}]
)
def test_parameters_mean_what_they_say(params: dict[str, Any], batches: list[Tensor]) -> None:
    assert_adapts_as(QUICK | params, "batch", [images[:3] for images in batches])


def stepped(network: Any, views: Tensor, lr: float = 0.1) -> Any:
    """Go straight down the gradient of H(mean p)."""
    network = twin(network)
    p = network(views).softmax(dim=1).mean(dim=0)
    (-(p * p.log()).sum()).backward()
    with torch.no_grad():
        for weight in network.parameters():
            weight.sub_(lr * weight.grad)
    return network


def test_steps_have_no_momentum_and_leave_nothing_for_the_next_image(
    network: Any, batches: list[Tensor]
) -> None:
    image = batches[0][:1]
    (found,) = run(Memo(**QUICK), twin(network), [image.repeat(3, 1, 1, 1)])
    generator = torch.Generator().manual_seed(0)
    assert found.after is not None
    for logits in found.after.logits:
        views = augmented(image.expand(4, -1, -1, -1), generator)
        assert_same(logits, stepped(network, views)(image)[0])


def test_the_entropy_of_the_mean_is_written_out_and_stays_finite() -> None:
    logits = torch.tensor([[0.0, 0.0], [math.log(3), 0.0]], dtype=torch.float64)
    p = torch.tensor([5 / 8, 3 / 8], dtype=torch.float64)
    assert_same(marginal_entropy(logits), -(p * p.log()).sum())
    sure = torch.tensor([[2000.0, 0.0], [0.0, 2000.0]], requires_grad=True)
    loss = marginal_entropy(sure)
    loss.backward()
    assert loss.item() == pytest.approx(math.log(2))
    assert sure.grad is not None
    assert bool(sure.grad.isfinite().all())


def test_a_batch_of_one_is_an_image_like_any_other(network: Any, batches: list[Tensor]) -> None:
    whole = run(Memo(**QUICK), twin(network), batches[:1])
    alone = run(Memo(**QUICK), twin(network), [image[None] for image in batches[0]])
    for number, found in enumerate(alone):
        assert found.after is not None and whole[0].after is not None
        assert_same(found.after.logits, whole[0].after.logits[number : number + 1])


@pytest.mark.parametrize("norm", [*WITH_NORM, "none"])
def test_the_source_is_back_after_every_batch(norm: str, batches: list[Tensor]) -> None:
    network, source = tiny(norm), state(tiny(norm))
    for found in Memo(**QUICK).adapt(network, batches):
        assert moved(source, network) == set()
        assert (found.updated, found.reset) == (True, True)
    assert not network.training


def test_predictions_of_after_are_scored_beside_the_source_s(network: Any, batches: list[Tensor]) -> None:
    source = twin(network)
    for found, images in zip(run(Memo(**QUICK, steps=2), network, batches), batches, strict=True):
        assert found.scored == "after"
        assert (found.forwards, found.backwards) == (8 * (2 * 4 + 1), 8 * 2 * 4)
        assert torch.equal(found.before.logits, source(images))
        assert found.after is not None
        assert found.after.penultimate.shape == (8, 6)
        assert not torch.equal(found.after.penultimate, found.before.penultimate)
        assert not found.after.logits.requires_grad


def test_it_learns_where_gradients_are_switched_off(batches: list[Tensor]) -> None:
    (first, *_) = run(Memo(**QUICK), tiny(), batches)
    with torch.no_grad():
        (second, *_) = run(Memo(**QUICK), tiny(), batches)
    assert first.after is not None and second.after is not None
    assert torch.equal(first.after.logits, second.after.logits)


def test_an_adapter_used_again_begins_anew(batches: list[Tensor]) -> None:
    adapter = Memo(**QUICK)
    for first, second in zip(*(run(adapter, tiny(), batches) for _ in range(2)), strict=True):
        assert first.after is not None and second.after is not None
        assert torch.equal(first.after.logits, second.after.logits)


def test_the_global_random_state_is_left_alone(network: Any, batches: list[Tensor]) -> None:
    before = torch.get_rng_state()
    run(Memo(**QUICK), network, batches)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("number", [1, 3])
def test_a_loss_that_is_not_finite_stops_before_the_step(batches: list[Tensor], number: int) -> None:
    network = tiny()
    batches[number - 1][0] = float("nan")
    message = rf"the loss of batch {number} is nan: the model has diverged\. Give an lr below 0\.1"
    with pytest.raises(harness.InputError, match=message) as caught:
        run(Memo(**QUICK), network, batches)
    assert "\n" not in str(caught.value)
    assert moved(state(tiny()), network) == set()


def test_an_empty_stream_is_answered_by_nothing(network: Any) -> None:
    assert run(Memo(), network, []) == []


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"lr": 0.0}, r"lr is 0\.0\. Give a number above 0"),
        ({"optimizer": "adamw"}, "no optimizer named 'adamw'. Did you mean 'adam'"),
        ({"views": 0}, r"views is 0\. Give a whole number of at least 1"),
        ({"steps": 0.5}, r"steps is 0\.5\. Give a whole number of at least 1"),
        ({"seed": -1}, r"seed is -1\. Give a whole number of at least 0"),
    ],
)
def test_a_parameter_out_of_range_is_refused(params: dict[str, Any], message: str) -> None:
    with pytest.raises(harness.HarnessError, match=message):
        Memo(**params)
