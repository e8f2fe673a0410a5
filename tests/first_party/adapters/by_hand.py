"""The tiny networks written out: normalisation by the batch or the sample, entropy, and the losses on it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

import harness

WITH_NORM = ("batch", "group", "layer")
AXES = {
    "batch": (0, 3, 4),
    "group": (2, 3, 4),
    "layer": (1, 2),
}  # of (n, groups, channels, H, W), that are averaged
GROUPS = {"batch": 6, "group": 2, "layer": 1}


def normalised(maps: Tensor, norm: str) -> Tensor:
    """Normalise (n, 6, H, W) as the named layer does, without scale and shift."""
    grouped = maps.unflatten(1, (GROUPS[norm], -1))
    mean = grouped.mean(dim=AXES[norm], keepdim=True)
    variance = (grouped - mean).square().mean(dim=AXES[norm], keepdim=True)
    return ((grouped - mean) / (variance + 1e-5).sqrt()).flatten(1, 2)


class ByHand:
    """What a tiny network computes, as a function of scale and shift alone."""

    def __init__(self, network: Any, norm: str) -> None:
        self.weight, self.bias = (p.detach().clone().requires_grad_() for p in network.norm.parameters())
        self._conv, self._fc, self._norm = network.conv, network.fc, norm

    def logits(self, images: Tensor) -> Tensor:
        maps = functional.conv2d(images, self._conv.weight, self._conv.bias, padding=1).detach()
        scale, shift = self.weight[:, None, None], self.bias[:, None, None]
        pooled = (normalised(maps, self._norm) * scale + shift).clamp(min=0).mean(dim=(2, 3))
        return pooled @ self._fc.weight.detach().T + self._fc.bias.detach()

    def descend(self, loss: Tensor, optimizer: torch.optim.Optimizer) -> None:
        self.weight.grad, self.bias.grad = torch.autograd.grad(loss, [self.weight, self.bias])
        optimizer.step()


def entropies(logits: Tensor) -> Tensor:
    p = logits.softmax(dim=1)
    return -(p * p.log()).sum(dim=1)


def run(adapter: Any, network: Any, batches: Iterable[Tensor]) -> list[harness.Adapted]:
    """Adapt a network and keep it as it is then."""
    return list(adapter.adapt(network, batches))


def assert_same(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found.detach(), expected.detach(), rtol=0, atol=1e-12)


def state(network: Any) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


def moved(before: dict[str, Tensor], network: Any) -> set[str]:
    """Name what is not bit for bit as it was; what is gone counts as it was."""
    after = network.state_dict()
    return {name for name in before if name in after and not torch.equal(before[name], after[name])}
