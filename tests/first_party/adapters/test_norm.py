"""Norm against BatchNorm written out."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from first_party.adapters.by_hand import assert_same, moved, run, state
from first_party.adapters.conftest import FEATURES, tiny, twin
from timm.layers import BatchNormAct2d
from torch import Tensor, nn
from torch.nn import functional

import harness
from harness_plugins.adapters.norm import Norm
from harness_plugins.adapters.tent import Tent


def mixed_by_hand(network: Any, images: Tensor, alpha: float) -> Tensor:
    """Compute logits with the mixture of the network's statistics and the batch's."""
    norm = network.norm
    maps = functional.conv2d(images, network.conv.weight, network.conv.bias, padding=1)
    of_batch = maps.mean(dim=(0, 2, 3))
    variance_of_batch = (maps - of_batch[:, None, None]).square().mean(dim=(0, 2, 3))
    mean = (1 - alpha) * norm.running_mean + alpha * of_batch
    variance = (1 - alpha) * norm.running_var + alpha * variance_of_batch
    scale = norm.weight / (variance + norm.eps).sqrt()
    maps = (maps - mean[:, None, None]) * scale[:, None, None] + norm.bias[:, None, None]
    return network.fc(maps.clamp(min=0).mean(dim=(2, 3)))


@pytest.mark.parametrize("alpha", [0.0, 0.1, 0.7, 1.0])
def test_statistics_are_the_stated_mixture_for_every_batch(
    network: Any, batches: list[Tensor], alpha: float
) -> None:
    expected = [mixed_by_hand(network, images, alpha) for images in batches]
    for found, logits in zip(run(Norm(alpha), twin(network), batches), expected, strict=True):
        assert_same(found.before.logits, logits)


def test_none_of_the_batch_is_the_source(network: Any, batches: list[Tensor]) -> None:
    (found, *_) = run(Norm(0.0), twin(network), batches)
    assert torch.equal(found.before.logits, network(batches[0]))


def test_all_of_the_batch_is_what_tent_sees_before_it_steps(network: Any, batches: list[Tensor]) -> None:
    (norm, *_), (tent, *_) = (run(adapter, twin(network), batches) for adapter in (Norm(), Tent()))
    assert torch.equal(norm.before.logits, tent.before.logits)


def test_a_subclass_that_acts_after_normalising_is_adapted_too(network: Any, batches: list[Tensor]) -> None:
    acting = twin(network)
    acting.norm = BatchNormAct2d(FEATURES).double().eval()
    acting.norm.load_state_dict(network.norm.state_dict())
    for alpha in (0.3, 1.0):
        found = run(Norm(alpha), twin(acting), batches)[-1]
        assert_same(found.before.logits, mixed_by_hand(network, batches[-1], alpha))


def test_penultimate_features_are_adapted_as_logits_are(network: Any, batches: list[Tensor]) -> None:
    for found in run(Norm(0.5), twin(network), batches):
        assert_same(network.fc(found.before.penultimate), found.before.logits)


def test_no_weight_moves_and_one_pass_serves_before_and_after(network: Any, batches: list[Tensor]) -> None:
    source, copied = state(network), twin(network)
    found = run(Norm(), copied, batches)
    assert moved(source, copied) == set()
    assert all(f.after is f.before and f.scored == "before" for f in found)
    assert [(f.updated, f.reset, f.forwards, f.backwards) for f in found] == [(False, False, 8, 0)] * 3
    assert not any(f.before.logits.requires_grad for f in found)


def test_a_batch_does_not_depend_on_earlier_ones(network: Any, batches: list[Tensor]) -> None:
    adapter = Norm(0.4)
    after_others, alone = run(adapter, twin(network), batches), run(adapter, twin(network), batches[-1:])
    assert torch.equal(after_others[-1].before.logits, alone[0].before.logits)


def test_a_copy_of_an_adapted_network_goes_on_by_itself(network: Any, batches: list[Tensor]) -> None:
    adapted = twin(network)
    run(Norm(0.4), adapted, batches)
    assert_same(twin(adapted)(batches[0]), mixed_by_hand(network, batches[0], 0.4))


@pytest.mark.parametrize("norm", ["group", "layer", "none"])
def test_a_network_without_batchnorm_is_refused_in_one_line(norm: str, batches: list[Tensor]) -> None:
    with pytest.raises(harness.InputError, match="Tiny has no BatchNorm layer.*Choose another") as caught:
        run(Norm(), tiny(norm), batches)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("alpha", [0.5, 1.0])
def test_one_value_a_channel_is_refused_in_one_line(alpha: float) -> None:
    network = tiny()
    with pytest.raises(harness.InputError, match="a batch of 1 gives a BatchNorm2d") as caught:
        run(Norm(alpha), network, [torch.zeros(1, 1, 1, 1, dtype=torch.float64)])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("alpha", [-0.1, 2, float("nan")])
def test_an_alpha_that_is_no_share_is_refused(alpha: float) -> None:
    with pytest.raises(harness.InputError, match=rf"alpha is {alpha}\. Give a share from 0 to 1"):
        Norm(alpha)


def test_a_layer_that_never_had_statistics_keeps_the_batch_s(network: Any, batches: list[Tensor]) -> None:
    without = nn.BatchNorm2d(FEATURES, track_running_stats=False).double()
    network.norm = nn.Sequential(network.norm, without).eval()
    found = run(Norm(0.0), twin(network), batches)
    assert torch.equal(found[0].before.logits, network(batches[0]))


def test_statistics_of_half_precision_maps_are_as_precise_as_the_source_s(batches: list[Tensor]) -> None:
    network, images = tiny().float(), batches[0].float()
    source = network.norm.running_var.clone()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        maps = network.conv(images)
        run(Norm(0.5), network, [images])
    variance = maps.detach().float().var(dim=(0, 2, 3), correction=0)
    assert maps.dtype == torch.bfloat16
    torch.testing.assert_close(network.norm.running_var, (source + variance) / 2, rtol=1e-6, atol=0)
