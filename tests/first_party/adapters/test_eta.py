"""ETA, EATA and RDumb against autograd, sample by sample, on the tiny networks written out."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from first_party.adapters.by_hand import WITH_NORM, ByHand, assert_same, entropies, moved, run, state
from first_party.adapters.conftest import CLASSES, tiny, twin
from torch import Tensor, nn
from torch.nn import functional

import harness
from harness_plugins.adapters.eta import Eata, Eta, PreparedEata, RDumb
from harness_plugins.adapters.tent import Tent

WEIGHTS = {"norm.weight", "norm.bias"}
CHOOSY: dict[str, Any] = {"margin": 0.6, "lr": 0.01}  # some samples of each batch count, not all


def by_hand(
    model: ByHand,
    batches: list[Tensor],
    *,
    margin: float = 0.4,
    epsilon: float = 1.3 / math.sqrt(CLASSES),
    optimize: Callable[[list[Tensor]], torch.optim.Optimizer] = lambda p: torch.optim.Adam(p, lr=0.01),
    penalty: Callable[[], Tensor] = lambda: torch.zeros(()),
) -> list[tuple[Tensor, int]]:
    """Return each batch's logits and the number of samples that counted."""
    optimizer, average, seen = optimize([model.weight, model.bias]), None, []
    limit = margin * math.log(CLASSES)
    for images in batches:
        logits = model.logits(images)
        entropy, p = entropies(logits), logits.detach().softmax(dim=1)
        kept = []
        for i in range(len(images)):
            cosine = 0.0 if average is None else p[i] @ average / (p[i].norm() * average.norm())
            if entropy[i] < limit and abs(cosine) < epsilon:
                kept.append(i)
        seen.append((logits.detach(), len(kept)))
        if kept:
            mean = sum(p[i] for i in kept) / len(kept)
            average = mean if average is None else 0.9 * average + 0.1 * mean
            weighted = [math.exp(limit - entropy[i].item()) * entropy[i] for i in kept]
            model.descend(sum(weighted) / len(kept) + penalty(), optimizer)
    return seen


def assert_same_course(
    found: list[harness.Adapted], expected: list[tuple[Tensor, int]], network: Any, model: ByHand
) -> None:
    for adapted, (logits, kept) in zip(found, expected, strict=True):
        assert_same(adapted.before.logits, logits)
        assert (adapted.updated, adapted.forwards, adapted.backwards) == (kept > 0, len(logits), kept)
    assert_same(network.norm.weight, model.weight)
    assert_same(network.norm.bias, model.bias)


def fisher_by_hand(network: Any, norm: str, batches: list[Tensor]) -> list[Tensor]:
    """Compute the mean squared gradient of the mean cross-entropy to the predicted classes, batch by batch."""
    model = ByHand(network, norm)
    squares = []
    for images in batches:
        logits = model.logits(images)
        log_p = (logits - logits.logsumexp(dim=1, keepdim=True)).max(dim=1).values
        gradients = torch.autograd.grad(-log_p.mean(), [model.weight, model.bias])
        squares.append([gradient**2 for gradient in gradients])
    return [torch.stack(of_one).mean(dim=0) for of_one in zip(*squares, strict=True)]


def diverse(norm: str = "batch") -> Any:
    """Make a tiny network that is often confident, and of another class from image to image."""
    network = tiny(norm, scale=20)
    images = torch.randn(100, 1, 5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        network.fc.bias -= ByHand(network, norm).logits(images).mean(dim=0)
    return network


class Confident(nn.Module):
    """One channel a class; the logits are the normalised channels' means, three times."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.norm, self.fc = nn.GroupNorm(1, classes), nn.Identity()

    def forward_features(self, images: Tensor) -> Tensor:
        return self.norm(images)

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        return 3 * features.mean(dim=(2, 3))

    def get_classifier(self) -> nn.Module:
        return self.fc


def confident_batches(classes: int, number: int = 20) -> list[Tensor]:
    """Draw batches of 32 images, of random classes, whose own channel is bright."""
    generator = torch.Generator().manual_seed(classes)
    drawn = [torch.randint(classes, (32,), generator=generator) for _ in range(number)]
    noise = [0.1 * torch.randn(32, classes, 2, 2, generator=generator) for _ in range(number)]
    return [
        functional.one_hot(c, classes)[:, :, None, None] + around
        for c, around in zip(drawn, noise, strict=True)
    ]


# ETA ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("norm", WITH_NORM)
def test_the_first_step_is_on_the_weighted_entropy_of_confident_samples(
    norm: str, batches: list[Tensor]
) -> None:
    network = diverse(norm)
    model = ByHand(network, norm)
    expected = by_hand(model, batches[:1])
    found = run(Eta(lr=0.01), network, batches[:1])
    assert 0 < expected[0][1] < len(batches[0])
    assert_same_course(found, expected, network, model)


@pytest.mark.parametrize("norm", WITH_NORM)
def test_later_steps_leave_out_what_is_like_earlier_predictions(norm: str, batches: list[Tensor]) -> None:
    network = diverse(norm)
    model, unfiltered = ByHand(network, norm), ByHand(network, norm)
    expected = by_hand(model, batches, margin=0.6)
    without = by_hand(unfiltered, batches, margin=0.6, epsilon=2.0)
    found = run(Eta(**CHOOSY), network, batches)
    assert sum(kept for _, kept in expected) < sum(kept for _, kept in without)
    assert all(kept for _, kept in expected)
    assert_same_course(found, expected, network, model)


@pytest.mark.parametrize(("shape", "optimizer", "lr"), [((63, 8), "adam", 1e-3), ((8, 64), "sgd", 2.5e-4)])
def test_optimiser_and_rate_are_tent_s_for_the_images_size(
    shape: tuple[int, int], optimizer: str, lr: float
) -> None:
    generator = torch.Generator().manual_seed(2)
    batches = [torch.randn(2, 1, *shape, dtype=torch.float64, generator=generator) for _ in range(3)]
    default, given = diverse(), diverse()
    run(Eta(margin=1.0, epsilon=2.0), default, batches)
    run(Eta(margin=1.0, epsilon=2.0, optimizer=optimizer, lr=lr), given, batches)
    assert moved(state(default), given) == set()
    assert moved(state(diverse()), default) == WEIGHTS


def test_the_published_settings_for_cifar_can_be_given(batches: list[Tensor]) -> None:
    network = diverse()
    model = ByHand(network, "batch")
    expected = by_hand(
        model, batches, epsilon=0.4, optimize=lambda p: torch.optim.SGD(p, lr=1e-3, momentum=0.9)
    )
    found = run(Eta(epsilon=0.4, optimizer="sgd", lr=1e-3), network, batches)
    assert_same_course(found, expected, network, model)


@pytest.mark.parametrize("classes", [2, 5, 10])
def test_confident_predictions_update_nearly_every_step_at_any_number_of_classes(classes: int) -> None:
    found = run(Eta(), Confident(classes), confident_batches(classes))
    assert sum(f.updated for f in found) >= 0.9 * len(found)
    assert sum(f.backwards for f in found) >= 0.3 * sum(f.forwards for f in found)


def test_epsilon_for_imagenet_updates_at_five_classes_only_until_there_is_an_average() -> None:
    found = run(Eta(epsilon=0.05), Confident(5), confident_batches(5))
    assert [f.updated for f in found] == [True] + [False] * 19


def test_cosines_pass_as_long_as_no_sample_has_counted() -> None:
    unsure, alike = torch.zeros(4, 5, 2, 2), confident_batches(5)[0][:1].expand(4, -1, -1, -1)
    found = run(Eta(), Confident(5), [unsure, alike, alike])
    assert [f.backwards for f in found] == [0, 4, 0]


def test_a_batch_without_a_sample_that_counts_moves_nothing(network: Any, batches: list[Tensor]) -> None:
    source = state(network)
    found = run(Eta(margin=1e-9), network, batches)
    assert moved(source, network) == set()
    assert [(f.updated, f.forwards, f.backwards) for f in found] == [(False, 8, 0)] * 3
    assert all(f.after is f.before for f in found)


@pytest.mark.parametrize("norm", WITH_NORM)
def test_only_scale_and_shift_move(norm: str, batches: list[Tensor]) -> None:
    network, source = diverse(norm), state(diverse(norm))
    run(Eta(**CHOOSY), network, batches)
    assert moved(source, network) == WEIGHTS
    assert {name for name, p in network.named_parameters() if p.requires_grad} == WEIGHTS


def test_predictions_of_before_the_step_are_scored(batches: list[Tensor]) -> None:
    network = diverse()
    for found in run(Eta(**CHOOSY), network, batches):
        assert (found.after, found.scored, found.reset) == (None, "before", False)
        assert not found.before.logits.requires_grad
        assert_same(network.fc(found.before.penultimate), found.before.logits)


# RDumb ----------------------------------------------------------------------------------------------------------


def test_after_a_reset_the_stream_s_course_is_that_of_a_new_one(batches: list[Tensor]) -> None:
    found = run(RDumb(**CHOOSY, reset_every=2), diverse(), [*batches[:2], *batches[:2], batches[0]])
    assert [f.reset for f in found] == [False, True, False, True, False]
    for again, first in zip(found[2:], found, strict=False):
        assert torch.equal(again.before.logits, first.before.logits)
        assert again.backwards == first.backwards


def test_weights_are_the_source_s_when_a_reset_is_told(batches: list[Tensor]) -> None:
    network, source = diverse(), state(diverse())
    for found in RDumb(**CHOOSY, reset_every=3).adapt(network, batches):
        assert moved(source, network) == (set() if found.reset else WEIGHTS)


def test_what_was_learnt_from_the_batch_of_a_reset_is_in_its_after(batches: list[Tensor]) -> None:
    network = diverse()
    run(Eta(**CHOOSY), network, batches)
    found = run(RDumb(**CHOOSY, reset_every=3), diverse(), batches)
    assert [f.after is None for f in found] == [True, True, False]
    assert torch.equal(found[-1].after.logits, network(batches[-1]))


def test_rdumb_is_eta_until_its_first_reset(batches: list[Tensor]) -> None:
    reset, never = run(RDumb(**CHOOSY), diverse(), batches), run(Eta(**CHOOSY), diverse(), batches)
    for a, b in zip(reset, never, strict=True):
        assert torch.equal(a.before.logits, b.before.logits)
        assert not a.reset


# EATA -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("norm", WITH_NORM)
def test_fisher_information_is_the_mean_squared_gradient_of_the_batches(
    norm: str, batches: list[Tensor]
) -> None:
    network = diverse(norm)
    prepared = Eata().prepare(network, batches)
    for found, expected in zip(prepared.fisher, fisher_by_hand(network, norm, batches), strict=True):
        assert_same(found, expected)
        assert not found.requires_grad
    assert_same(prepared.source[0], network.norm.weight)
    assert_same(prepared.source[1], network.norm.bias)


@pytest.mark.parametrize("norm", WITH_NORM)
def test_the_loss_holds_weights_that_mattered_near_the_source(norm: str, batches: list[Tensor]) -> None:
    network = diverse(norm)
    prepared = Eata(**CHOOSY, beta=500.0).prepare(network, batches)
    fisher, model, source = fisher_by_hand(network, norm, batches), ByHand(network, norm), diverse(norm).norm

    def penalty() -> Tensor:
        moved_by = [model.weight - source.weight.detach(), model.bias - source.bias.detach()]
        return 500 * sum((f * m**2).sum() for f, m in zip(fisher, moved_by, strict=True))

    expected = by_hand(model, batches, margin=0.6, penalty=penalty)
    assert_same_course(run(prepared, network, batches), expected, network, model)
    held = penalty().item()
    free = ByHand(diverse(norm), norm)
    by_hand(free, batches, margin=0.6)
    model.weight, model.bias = free.weight, free.bias
    assert 0 < held < penalty().item()


def test_without_its_penalty_eata_is_eta(batches: list[Tensor]) -> None:
    prepared = Eata(**CHOOSY, beta=0.0).prepare(diverse(), batches)
    held, free = run(prepared, diverse(), batches), run(Eta(**CHOOSY), diverse(), batches)
    for a, b in zip(held, free, strict=True):
        assert_same(a.before.logits, b.before.logits)


def test_preparing_takes_as_many_images_as_it_needs_and_asks_for_no_more(batches: list[Tensor]) -> None:
    asked = []

    def stream() -> Iterator[Tensor]:
        for number, images in enumerate(batches):
            asked.append(number)
            yield images

    prepared = Eata(clean=13).prepare(diverse(), stream())
    expected = Eata().prepare(diverse(), [batches[0], batches[1][:5]])
    assert asked == [0, 1]
    assert all(torch.equal(a, b) for a, b in zip(prepared.fisher, expected.fisher, strict=True))


def test_preparing_stops_at_the_end_of_a_batch_that_fits(batches: list[Tensor]) -> None:
    stream = iter(batches)
    Eata(clean=8).prepare(diverse(), stream)
    assert torch.equal(next(stream), batches[1])


def test_preparing_leaves_the_classifier_as_it_was(network: Any, batches: list[Tensor]) -> None:
    source, logits = state(network), network(batches[0])
    Eata().prepare(network, batches)
    assert moved(source, network) == set()
    assert torch.equal(network(batches[0]), logits)
    assert all(p.requires_grad and p.grad is None for p in network.parameters())
    assert network.norm.track_running_stats
    assert not network.norm._forward_pre_hooks


@pytest.mark.parametrize(("size", "beta"), [(63, 1), (64, 2000)])
def test_beta_left_out_is_as_published_for_the_images_size(size: int, beta: float) -> None:
    images = torch.zeros(2, 1, size, 4, dtype=torch.float64)
    assert Eata().prepare(diverse(), [images]).beta == beta
    assert Eata(beta=7.0).prepare(diverse(), [images]).beta == 7


def test_a_layer_that_is_never_used_has_no_fisher_information(batches: list[Tensor]) -> None:
    network = diverse()
    network.unused = nn.LayerNorm(3).double()
    fisher = Eata().prepare(network, batches).fisher
    assert [bool(f.any()) for f in fisher] == [True, True, False, False]


def test_eata_asks_to_be_prepared_and_what_it_returns_does_not(batches: list[Tensor]) -> None:
    prepared = Eata().prepare(diverse(), batches)
    assert isinstance(Eata(), harness.PreparedAdapter)
    assert isinstance(prepared, harness.Adapter)
    assert not isinstance(prepared, harness.PreparedAdapter)


def test_eata_that_is_not_prepared_is_refused(network: Any, batches: list[Tensor]) -> None:
    with pytest.raises(
        harness.InputError, match=r"eata has seen no clean images\. Adapt with the result of prepare"
    ):
        run(Eata(), network, batches)


def test_eata_without_clean_images_is_refused(network: Any) -> None:
    with pytest.raises(harness.InputError, match=r"eata was given no clean images.*Give ID training images"):
        Eata().prepare(network, [])


# All ------------------------------------------------------------------------------------------------------------


def eata(batches: list[Tensor], **params: Any) -> PreparedEata:
    return Eata(**params).prepare(diverse(), batches)


EACH = pytest.mark.parametrize("make", [lambda _, **p: Eta(**p), lambda _, **p: RDumb(**p), eata])


@EACH
def test_an_adapter_used_again_begins_anew(make: Any, batches: list[Tensor]) -> None:
    adapter = make(batches, **CHOOSY)
    networks = [diverse(), diverse()]
    first, second = (run(adapter, network, batches) for network in networks)
    assert all(torch.equal(a.before.logits, b.before.logits) for a, b in zip(first, second, strict=True))
    assert moved(state(networks[0]), networks[1]) == set()


@EACH
def test_another_adapter_before_it_leaves_no_trace(make: Any, batches: list[Tensor]) -> None:
    source, adapter = diverse(), make(batches, **CHOOSY)
    alone = run(adapter, diverse(), batches)
    for other in (Tent(lr=0.1), Eta(**CHOOSY), RDumb(**CHOOSY, reset_every=2)):
        run(other, twin(source), batches)
    after = run(adapter, twin(source), batches)
    assert torch.equal(alone[-1].before.logits, after[-1].before.logits)


@EACH
@pytest.mark.parametrize("number", [1, 3])
def test_one_sample_without_an_entropy_stops_before_the_step(
    make: Any, number: int, batches: list[Tensor]
) -> None:
    network, reference, adapter = diverse("group"), diverse("group"), make(batches, **CHOOSY)
    broken = [images.clone() for images in batches]
    broken[number - 1][0] = float("nan")
    message = rf"the loss of batch {number} is nan: the model has diverged\. Give an lr below 0\.01"
    with pytest.raises(harness.InputError, match=message) as caught:
        run(adapter, network, broken)
    run(adapter, reference, batches[: number - 1])
    assert "\n" not in str(caught.value)
    assert torch.equal(network.norm.weight, reference.norm.weight)


@EACH
def test_a_network_without_normalisation_is_refused_in_one_line(make: Any, batches: list[Tensor]) -> None:
    with pytest.raises(harness.InputError, match="Tiny has no BatchNorm, LayerNorm or GroupNorm") as caught:
        run(make(batches), tiny("none"), batches)
    assert "\n" not in str(caught.value)


@EACH
def test_one_value_a_channel_is_refused_in_one_line(make: Any, batches: list[Tensor]) -> None:
    with pytest.raises(
        harness.InputError, match="a batch of 1 gives a BatchNorm2d layer one value"
    ) as caught:
        run(make(batches), diverse(), [torch.zeros(1, 1, 1, 1, dtype=torch.float64)])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "params", "message"),
    [
        (Eta, {"margin": 0.0}, r"margin is 0\.0\. Give a share of ln C above 0, up to 1"),
        (Eta, {"margin": 1.1}, r"margin is 1\.1\. Give a share of ln C above 0, up to 1"),
        (Eta, {"epsilon": 0.0}, r"epsilon is 0\.0\. Give a number above 0"),
        (Eta, {"epsilon": float("nan")}, r"epsilon is nan\. Give a number above 0"),
        (Eta, {"lr": -1.0}, r"lr is -1\.0\. Give a number above 0"),
        (Eta, {"optimizer": "sdg"}, "no optimizer named 'sdg'. Did you mean 'sgd'"),
        (RDumb, {"reset_every": 0}, r"reset_every is 0\. Give a whole number of at least 1"),
        (RDumb, {"margin": -1.0}, r"margin is -1\.0\. Give a share of ln C"),
        (Eata, {"beta": -1.0}, r"beta is -1\.0\. Give a number of at least 0"),
        (Eata, {"clean": 0}, r"clean is 0\. Give a whole number of at least 1"),
        (Eata, {"epsilon": -0.1}, r"epsilon is -0\.1\. Give a number above 0"),
    ],
)
def test_a_parameter_out_of_range_is_refused(kind: Any, params: dict[str, Any], message: str) -> None:
    with pytest.raises(harness.HarnessError, match=message):
        kind(**params)
