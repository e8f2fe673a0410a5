"""DeYO against autograd, sample by sample, on the tiny networks written out."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from first_party.adapters.by_hand import WITH_NORM, ByHand, assert_same, entropies, moved, run, state
from first_party.adapters.conftest import CLASSES, tiny
from torch import Tensor
from torchvision.transforms.functional import resize

import harness
from harness_plugins.adapters.deyo import DeYO, shuffle_patches
from harness_plugins.models.networks import cnn

WEIGHTS = {"norm.weight", "norm.bias"}
CHOOSY: dict[str, dict[str, Any]] = {  # some samples are confident, and some of these count
    "batch": {"margin": 0.4, "plpd": 0.05, "scale": 4.0},
    "group": {"margin": 0.4, "plpd": 0.1, "scale": 2.0},
    "layer": {"margin": 0.5, "plpd": 0.0, "scale": 1.0},
}
EASY: dict[str, Any] = {"margin": 1.0, "plpd": -1.0}  # all samples count
LN_C = math.log(CLASSES)


def shuffled_by_hand(images: Tensor, patches: int, generator: torch.Generator) -> Tensor:
    """Put each patch where the image's own permutation has it."""
    height, width = (side // patches for side in images.shape[2:])
    cut = resize(images, [height * patches, width * patches], antialias=True)
    order = torch.rand(len(images), patches**2, generator=generator).argsort(dim=1)
    found = torch.empty_like(cut)
    for i in range(len(images)):
        for to, origin in enumerate(order[i].tolist()):
            (row, column), (old_row, old_column) = divmod(to, patches), divmod(origin, patches)
            found[i, :, row * height : (row + 1) * height, column * width : (column + 1) * width] = cut[
                i,
                :,
                old_row * height : (old_row + 1) * height,
                old_column * width : (old_column + 1) * width,
            ]
    return resize(found, list(images.shape[2:]), antialias=True)


def deyo_by_hand(
    model: ByHand,
    batches: list[Tensor],
    optimizer: torch.optim.Optimizer,
    *,
    margin: float = 0.5,
    plpd: float = 0.2,
    weight_margin: float = 0.4,
    patches: int = 4,
    seed: int = 0,
) -> list[tuple[Tensor, int, int]]:
    """Return each batch's logits, and how many samples were confident and how many counted."""
    generator, seen = torch.Generator().manual_seed(seed), []
    for images in batches:
        logits = model.logits(images)
        entropy, p = entropies(logits), logits.detach().softmax(dim=1)
        confident = [i for i in range(len(images)) if entropy[i] < margin * LN_C]
        terms = []
        if confident:
            changed = model.logits(shuffled_by_hand(images[confident], patches, generator)).detach()
            for i, other in zip(confident, changed.softmax(dim=1), strict=True):
                lost = (p[i].max() - other[p[i].argmax()]).item()
                if lost > plpd:
                    h = entropy[i].item()
                    terms.append((1 / math.exp(h - weight_margin * LN_C) + 1 / math.exp(-lost)) * entropy[i])
        seen.append((logits.detach(), len(confident), len(terms)))
        if terms:
            model.descend(sum(terms) / len(terms), optimizer)
    return seen


def assert_adapts_as(
    params: dict[str, Any], norm: str, batches: list[Tensor], optimize: Any = None, **tiny_: Any
) -> list[list[int]]:
    network = tiny(norm, **tiny_)
    model = ByHand(network, norm)
    optimizer = (optimize or (lambda p: torch.optim.Adam(p, lr=params.get("lr", 1e-3))))(
        [model.weight, model.bias]
    )
    by_hand = {name: value for name, value in params.items() if name not in ("lr", "optimizer")}
    expected = deyo_by_hand(model, batches, optimizer, **by_hand)
    for found, (logits, confident, kept) in zip(run(DeYO(**params), network, batches), expected, strict=True):
        assert_same(found.before.logits, logits)
        assert (found.updated, found.backwards) == (kept > 0, kept)
        assert found.forwards == len(logits) + confident
    assert_same(network.norm.weight, model.weight)
    assert_same(network.norm.bias, model.bias)
    return [counts for _, *counts in expected]


@pytest.mark.parametrize("norm", WITH_NORM)
def test_one_step_is_adam_s_on_the_weighted_entropy_of_all_samples(norm: str, batches: list[Tensor]) -> None:
    assert assert_adapts_as(EASY, norm, batches[:1]) == [[8, 8]]


@pytest.mark.parametrize("norm", WITH_NORM)
def test_samples_count_that_are_confident_and_lose_by_shuffled_patches(
    norm: str, batches: list[Tensor]
) -> None:
    params = dict(CHOOSY[norm])
    scale = params.pop("scale")
    counts = assert_adapts_as(params | {"lr": 0.01}, norm, batches, scale=scale)
    assert any(0 < kept < confident < 8 for confident, kept in counts)


@pytest.mark.parametrize(
    "params", [{"weight_margin": 0.9}, {"patches": 2}, {"patches": 5}, {"seed": 3}, {"lr": 0.05}]
)
def test_parameters_mean_what_they_say(params: dict[str, Any], batches: list[Tensor]) -> None:
    assert len(assert_adapts_as(EASY | params, "batch", batches)) == 3


@pytest.mark.parametrize("norm", WITH_NORM)
def test_large_images_take_sgd_with_momentum(norm: str) -> None:
    generator = torch.Generator().manual_seed(3)
    batches = [torch.randn(2, 1, 64, 64, dtype=torch.float64, generator=generator) for _ in range(2)]
    counts = assert_adapts_as(EASY, norm, batches, lambda p: torch.optim.SGD(p, lr=2.5e-4, momentum=0.9))
    assert counts == [[2, 2]] * 2


@pytest.mark.parametrize("shape", [(3, 2, 8, 8), (3, 2, 4, 12), (2, 1, 7, 10)])
def test_patches_are_shuffled_image_by_image_and_other_sizes_are_resized(shape: tuple[int, ...]) -> None:
    images = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(6))
    found = shuffle_patches(images, 4, torch.Generator().manual_seed(0))
    assert_same(found, shuffled_by_hand(images, 4, torch.Generator().manual_seed(0)))
    assert not torch.equal(found, images)


def test_patches_keep_what_is_in_them_and_channels_stay_together() -> None:
    images = (
        torch.arange(64.0).reshape(1, 1, 8, 8).repeat(2, 3, 1, 1) + torch.tensor([0, 100, 200])[:, None, None]
    )
    found = shuffle_patches(images, 4, torch.Generator().manual_seed(0))
    assert torch.equal(found[:, 1], found[:, 0] + 100)
    assert not torch.equal(found[0], found[1])
    for image in found[:, 0]:
        corners = image[::2, ::2].flatten()
        assert sorted(corners.tolist()) == sorted(images[0, 0, ::2, ::2].flatten().tolist())
        assert torch.equal(image[1::2, 1::2].flatten(), corners + 9)


def test_images_with_fewer_pixels_than_patches_are_refused_in_one_line(network: Any) -> None:
    batch = torch.randn(4, 1, 3, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    message = "images of 3x9 pixels have no 4x4 patches. Give fewer patches"
    with pytest.raises(harness.InputError, match=message) as caught:
        run(DeYO(**EASY), network, [batch])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("params", "confident"), [({"margin": 0.1, "plpd": -1.0}, 0), ({"margin": 1.0, "plpd": 0.99}, 8)]
)
def test_a_batch_without_samples_worth_it_takes_no_step(
    network: Any, batches: list[Tensor], params: dict[str, Any], confident: int
) -> None:
    source = state(network)
    for found in run(DeYO(**params), network, batches):
        assert (found.updated, found.reset, found.backwards) == (False, False, 0)
        assert found.forwards == 8 + confident
    assert moved(source, network) == set()


@pytest.mark.parametrize("norm", WITH_NORM)
def test_only_scale_and_shift_move_and_the_source_s_statistics_do_not(
    norm: str, batches: list[Tensor]
) -> None:
    network = tiny(norm)
    run(DeYO(**EASY), network, batches)
    assert moved(state(tiny(norm)), network) == WEIGHTS
    assert not network.training


def test_weights_of_the_last_stage_stay(batches: list[Tensor]) -> None:
    network = cnn((1, 5, 5), 4, width=2).double().eval()
    source = state(network)
    run(DeYO(**EASY), network, batches)
    assert {name.split(".")[1] for name in moved(source, network)} == {"stage1", "stage2"}


def test_predictions_of_before_the_step_are_scored(network: Any, batches: list[Tensor]) -> None:
    for found in run(DeYO(**EASY), network, batches):
        assert (found.after, found.scored, found.reset) == (None, "before", False)
        assert not found.before.logits.requires_grad
        assert_same(network.fc(found.before.penultimate), found.before.logits)


def test_it_learns_where_gradients_are_switched_off(network: Any, batches: list[Tensor]) -> None:
    with torch.no_grad():
        assert all(found.updated for found in DeYO(**EASY).adapt(network, batches))


def test_an_adapter_used_again_begins_anew(batches: list[Tensor]) -> None:
    adapter = DeYO(**EASY, lr=0.1)
    first, second = (run(adapter, tiny(), batches) for _ in range(2))
    assert all(torch.equal(a.before.logits, b.before.logits) for a, b in zip(first, second, strict=True))


def test_the_global_random_state_is_left_alone(network: Any, batches: list[Tensor]) -> None:
    before = torch.get_rng_state()
    run(DeYO(**EASY), network, batches)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("number", [1, 3])
def test_a_loss_that_is_not_finite_stops_before_the_step(batches: list[Tensor], number: int) -> None:
    network, reference = tiny(), tiny()
    run(DeYO(**EASY), reference, batches[: number - 1])
    batches[number - 1][0] = float("nan")
    message = rf"the loss of batch {number} is nan: the model has diverged\. Give an lr below 0\.001"
    with pytest.raises(harness.InputError, match=message) as caught:
        run(DeYO(**EASY), network, batches)
    assert "\n" not in str(caught.value)
    assert torch.equal(network.norm.weight, reference.norm.weight)


def test_a_network_without_normalisation_is_refused_in_one_line(batches: list[Tensor]) -> None:
    with pytest.raises(harness.InputError, match="Tiny has no BatchNorm, LayerNorm or GroupNorm") as caught:
        run(DeYO(), tiny("none"), batches)
    assert "\n" not in str(caught.value)


def test_an_empty_stream_is_answered_by_nothing(network: Any) -> None:
    assert run(DeYO(), network, []) == []


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"lr": 0.0}, r"lr is 0\.0\. Give a number above 0"),
        ({"optimizer": "adamw"}, "no optimizer named 'adamw'. Did you mean 'adam'"),
        ({"margin": 1.5}, r"margin is 1\.5\. Give a share of ln C above 0, up to 1"),
        ({"weight_margin": 0.0}, r"weight_margin is 0\.0\. Give a share of ln C above 0, up to 1"),
        ({"plpd": 1.0}, r"plpd is 1\.0\. Give a number from -1 to below 1"),
        ({"patches": 0}, r"patches is 0\. Give a whole number of at least 1"),
        ({"seed": -1}, r"seed is -1\. Give a whole number of at least 0"),
    ],
)
def test_a_parameter_out_of_range_is_refused(params: dict[str, Any], message: str) -> None:
    with pytest.raises(harness.HarnessError, match=message):
        DeYO(**params)
