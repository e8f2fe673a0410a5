"""CoTTA against autograd on every weight, its three networks as tables of tensors."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from first_party.adapters.by_hand import WITH_NORM, assert_same, moved, run, state
from first_party.adapters.conftest import tiny, twin
from torch import Tensor
from torch.func import functional_call

import harness
from harness_plugins.adapters.cotta import CoTTA
from harness_plugins.adapters.views import augmented

SURE, UNSURE = {"threshold": 0.0}, {"threshold": 1.0}
QUICK: dict[str, Any] = {"lr": 0.01, "ema": 0.9, "augmentations": 3}
WEIGHTS = {f"{layer}.{kind}" for layer in ("conv", "norm", "fc") for kind in ("weight", "bias")}

Weights = dict[str, Tensor]


class CottaByHand:
    """Student, teacher and source of a tiny network, whose BatchNorm takes statistics from the batch."""

    def __init__(self, network: Any, **params: Any) -> None:
        self.network = twin(network).train()  # for the batch's statistics
        self.source, self.teacher, self.student = (
            {name: p.detach().clone() for name, p in network.named_parameters()} for _ in range(3)
        )
        for p in self.student.values():
            p.requires_grad_()
        weights, lr = list(self.student.values()), params.get("lr", 1e-3)
        adam = params.get("optimizer", "adam") == "adam"
        self.optimizer: torch.optim.Optimizer = (
            torch.optim.Adam(weights, lr) if adam else torch.optim.SGD(weights, lr, momentum=0.9)
        )
        self.generator = torch.Generator().manual_seed(params.get("seed", 0))
        self.ema, self.restore = params.get("ema", 0.999), params.get("restore", 0.01)
        self.threshold, self.views = params.get("threshold", 0.92), params.get("augmentations", 32)
        self.flip = params.get("flip", True)

    def logits(self, weights: Weights, images: Tensor) -> Tensor:
        return functional_call(self.network, weights, (images,))

    def learn(self, images: Tensor) -> tuple[Tensor, bool]:
        """Return the teacher's logits, and whether they are of views."""
        confidence = self.logits(self.source, images).softmax(dim=1).max(dim=1).values.mean()
        unsure = bool(confidence < self.threshold)
        target = self.logits(self.teacher, images)
        if unsure:
            draws = (augmented(images, self.generator, flip=self.flip) for _ in range(self.views))
            target = torch.stack([self.logits(self.teacher, views) for views in draws]).mean(dim=0)
        log_p = self.logits(self.student, images).log_softmax(dim=1)
        loss = -(target.softmax(dim=1) * log_p).sum(dim=1).mean()
        gradients = torch.autograd.grad(loss, list(self.student.values()))
        for p, gradient in zip(self.student.values(), gradients, strict=True):
            p.grad = gradient
        self.optimizer.step()
        with torch.no_grad():
            for name, p in self.student.items():
                self.teacher[name] = self.ema * self.teacher[name] + (1 - self.ema) * p
                goes_back = torch.rand(p.shape, generator=self.generator) < self.restore
                p[goes_back] = self.source[name][goes_back]
        return target, unsure


def assert_adapts_as(params: dict[str, Any], norm: str, batches: list[Tensor]) -> list[bool]:
    network = tiny(norm)
    by_hand = CottaByHand(network, **params)
    course = []
    for found, images in zip(CoTTA(**params).adapt(network, batches), batches, strict=True):
        target, unsure = by_hand.learn(images)
        course.append(unsure)
        assert_same(found.before.logits, target)
        assert found.forwards == (3 + unsure * by_hand.views) * len(images)
        for name, p in network.named_parameters():
            assert_same(p, by_hand.teacher[name])
    return course


@pytest.mark.parametrize("norm", [*WITH_NORM, "none"])
def test_one_step_is_adam_s_on_the_cross_entropy_to_the_teacher(norm: str, batches: list[Tensor]) -> None:
    assert assert_adapts_as({**UNSURE, "ema": 0.5}, norm, batches[:1]) == [True]


@pytest.mark.parametrize("norm", [*WITH_NORM, "none"])
@pytest.mark.parametrize("views", [SURE, UNSURE])
def test_networks_follow_and_forget_batch_after_batch(
    norm: str, views: dict[str, float], batches: list[Tensor]
) -> None:
    # while the student is its teacher, the gradient is rounding, which Adam would blow up
    params = {**QUICK, **views, "restore": 0.3, "optimizer": "sgd", "lr": 0.1}
    assert assert_adapts_as(params, norm, batches) == [views == UNSURE] * 3


@pytest.mark.parametrize("flip", [True, False])
def test_as_published_for_small_images(batches: list[Tensor], flip: bool) -> None:
    assert assert_adapts_as({"flip": flip, "seed": 4}, "group", batches) == [True] * 3


def test_as_published_for_large_images() -> None:
    generator = torch.Generator().manual_seed(3)
    batches = [torch.randn(2, 1, 64, 64, dtype=torch.float64, generator=generator) for _ in range(2)]
    published = {"lr": 0.01, "optimizer": "sgd", "restore": 0.001, "threshold": 0.1}
    reference = CottaByHand(tiny(), **published)
    for found, images in zip(CoTTA().adapt(tiny(), batches), batches, strict=True):
        assert_same(found.before.logits, reference.learn(images)[0])
        assert found.forwards == 6  # confidence is never below 1/C = .25


def test_views_are_averaged_where_the_source_is_less_sure_than_the_threshold(batches: list[Tensor]) -> None:
    source = tiny().train()
    confidences = [source(images).softmax(dim=1).amax(dim=1).mean().item() for images in batches]
    between = sorted(confidences)[1] - 1e-6  # the least sure batch alone is below
    course = assert_adapts_as({**QUICK, "optimizer": "sgd", "threshold": between}, "batch", batches)
    assert course == [confidence < between for confidence in confidences]
    assert sum(course) == 1


@pytest.mark.parametrize("norm", [*WITH_NORM, "none"])
def test_all_weights_move_and_the_source_s_statistics_do_not(norm: str, batches: list[Tensor]) -> None:
    network = tiny(norm)
    run(CoTTA(**QUICK), network, batches)
    source = state(tiny(norm))
    assert moved(source, network) == WEIGHTS & set(source)
    assert not network.training


@pytest.mark.parametrize("restore", [0.0, 1.0])
def test_a_student_may_forget_nothing_or_all(restore: float, batches: list[Tensor]) -> None:
    params = {**QUICK, **UNSURE, "restore": restore, "optimizer": "sgd", "lr": 0.1}
    assert len(assert_adapts_as(params, "batch", batches)) == 3


def test_predictions_are_the_teacher_s_of_before_the_step(network: Any, batches: list[Tensor]) -> None:
    plain = twin(network).train()
    (found,) = run(CoTTA(**QUICK, **SURE), network, batches[:1])
    assert (found.after, found.scored, found.updated, found.reset) == (None, "before", True, False)
    assert (found.forwards, found.backwards) == (24, 8)
    assert_same(found.before.logits, plain(batches[0]))
    assert not found.before.logits.requires_grad


def test_penultimate_features_are_the_teacher_s_of_the_plain_images(
    network: Any, batches: list[Tensor]
) -> None:
    teacher = twin(network).train()
    for found, images in zip(CoTTA(**QUICK, **UNSURE).adapt(network, batches), batches, strict=True):
        expected = teacher.forward_head(teacher.forward_features(images), pre_logits=True)
        assert_same(found.before.penultimate, expected)
        assert found.before.logits.shape == (8, 4)
        teacher = twin(network).train()


def test_it_learns_where_gradients_are_switched_off(batches: list[Tensor]) -> None:
    first = run(CoTTA(**QUICK), tiny(), batches)
    with torch.no_grad():
        second = run(CoTTA(**QUICK), tiny(), batches)
    assert all(torch.equal(a.before.logits, b.before.logits) for a, b in zip(first, second, strict=True))


def test_an_adapter_used_again_begins_anew_and_another_seed_gives_another_course(
    batches: list[Tensor],
) -> None:
    adapter = CoTTA(**QUICK)
    first, second = (run(adapter, tiny(), batches) for _ in range(2))
    assert all(torch.equal(a.before.logits, b.before.logits) for a, b in zip(first, second, strict=True))
    (other, *_) = run(CoTTA(**QUICK, seed=1), tiny(), batches)
    assert not torch.equal(other.before.logits, first[0].before.logits)


def test_the_global_random_state_is_left_alone(network: Any, batches: list[Tensor]) -> None:
    before = torch.get_rng_state()
    run(CoTTA(**QUICK), network, batches)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("number", [1, 3])
def test_a_loss_that_is_not_finite_stops_before_the_step(batches: list[Tensor], number: int) -> None:
    network, reference = tiny(), tiny()
    run(CoTTA(**QUICK), reference, batches[: number - 1])
    batches[number - 1][0] = float("nan")
    message = rf"the loss of batch {number} is nan: the model has diverged\. Give an lr below 0\.01"
    with pytest.raises(harness.InputError, match=message) as caught:
        run(CoTTA(**QUICK), network, batches)
    assert "\n" not in str(caught.value)
    assert moved(state(reference), network) == set()


def test_one_value_a_channel_is_refused_under_batchnorm_alone() -> None:
    batch = torch.zeros(1, 1, 1, 1, dtype=torch.float64)
    with pytest.raises(harness.InputError, match="a batch of 1 gives a BatchNorm2d layer one value"):
        run(CoTTA(), tiny(), [batch])
    assert len(run(CoTTA(), tiny("layer"), [batch])) == 1


def test_an_empty_stream_is_answered_by_nothing(network: Any) -> None:
    assert run(CoTTA(), network, []) == []


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"lr": -1.0}, r"lr is -1\.0\. Give a number above 0"),
        ({"optimizer": "adamw"}, "no optimizer named 'adamw'. Did you mean 'adam'"),
        ({"ema": 1.1}, r"ema is 1\.1\. Give a share from 0 to 1"),
        ({"restore": -0.1}, r"restore is -0\.1\. Give a share from 0 to 1"),
        ({"threshold": float("nan")}, r"threshold is nan\. Give a share from 0 to 1"),
        ({"augmentations": 0}, r"augmentations is 0\. Give a whole number of at least 1"),
        ({"seed": 0.5}, r"seed is 0\.5\. Give a whole number of at least 0"),
    ],
)
def test_a_parameter_out_of_range_is_refused(params: dict[str, Any], message: str) -> None:
    with pytest.raises(harness.HarnessError, match=message):
        CoTTA(**params)
