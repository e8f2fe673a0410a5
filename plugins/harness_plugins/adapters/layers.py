"""Shared operations of adapters: choose the weights to update, use batch statistics, and forward."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

import harness

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor
    from torch.optim import Optimizer

    OptimizerName = Literal["adam", "sgd"]

NORMALISATIONS = (_BatchNorm, nn.LayerNorm, nn.GroupNorm)
LARGE = 64  # pixels; from here on, settings published for ImageNet are used; below, those for CIFAR


def module_of(classifier: harness.Classifier) -> nn.Module:
    """Return a classifier, typed as a torch module."""
    module: Any = classifier
    return module  # type: ignore[no-any-return]


def forward(classifier: harness.Classifier, images: Tensor) -> harness.Features:
    """Compute logits (n, C) and penultimate features (n, D) of normalised images, with gradients where enabled."""
    maps = classifier.forward_features(images)
    return harness.Features(
        logits=classifier.forward_head(maps), penultimate=classifier.forward_head(maps, pre_logits=True)
    )


def detached(features: harness.Features) -> harness.Features:
    """Return features without their graph."""
    return harness.Features(logits=features.logits.detach(), penultimate=features.penultimate.detach())


def entropy(logits: Tensor) -> Tensor:
    """Compute H(softmax(z)) of each row, (n, C) -> (n,), in nats."""
    log_p = logits.log_softmax(dim=1)
    return -(log_p.exp() * log_p).sum(dim=1)


def normalisation_layers(classifier: harness.Classifier) -> list[nn.Module]:
    """List the BatchNorm, LayerNorm and GroupNorm layers, in the network's order."""
    return [module for module in module_of(classifier).modules() if isinstance(module, NORMALISATIONS)]


def use_batch_statistics(classifier: harness.Classifier) -> None:
    """Make every BatchNorm layer normalise by batch statistics, permanently.

    A later batch with one value per channel raises InputError, because it has no variance.
    """
    for module in module_of(classifier).modules():
        if isinstance(module, _BatchNorm):
            module.track_running_stats = False
            module.running_mean = module.running_var = None
            module.register_forward_pre_hook(_require_several_values)


def _require_several_values(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    (given,) = inputs
    if given.numel() == given.shape[1]:
        raise harness.InputError(
            f"a batch of {len(given)} gives a {type(module).__name__} layer one value per channel, "
            "so it has no variance. Give larger batches, or an adapter without batch statistics"
        )


def only_affine_moves(
    classifier: harness.Classifier, layers: Sequence[nn.Module] | None = None
) -> list[nn.Parameter]:
    """Freeze all weights except scale and shift of normalisation layers, and return these.

    Raises InputError for a network that has none.
    """
    module_of(classifier).requires_grad_(False)
    chosen = normalisation_layers(classifier) if layers is None else layers
    parameters = [p for layer in chosen for p in (layer.weight, layer.bias) if isinstance(p, nn.Parameter)]
    if not parameters:
        raise harness.InputError(
            f"the network {type(classifier).__name__} has no BatchNorm, LayerNorm or GroupNorm layer with weights, so "
            "there is nothing to adapt. Choose an adapter that changes no weights, like lame, or another network"
        )
    for parameter in parameters:
        parameter.requires_grad_(True)
    return parameters


def require_optimizer(optimizer: str | None, lr: float | None) -> None:
    """Raise InputError for an optimiser or a rate that an adapter does not take."""
    if optimizer not in (None, "adam", "sgd"):
        raise harness.unknown_name("optimizer", str(optimizer), ["adam", "sgd"], valid_label="Valid")
    if lr is not None and not 0 < lr < float("inf"):
        raise harness.InputError(f"lr is {lr}. Give a number above 0")


def make_optimizer(
    parameters: Sequence[nn.Parameter],
    name: OptimizerName,
    lr: float,
) -> Optimizer:
    """Make Adam with betas .9 and .999, or SGD with momentum .9, both without weight decay."""
    if name == "adam":
        return torch.optim.Adam(parameters, lr=lr)
    return torch.optim.SGD(parameters, lr=lr, momentum=0.9)


def is_large(images: Tensor) -> bool:
    """Return whether images (n, channels, H, W) are large enough for the settings for ImageNet."""
    return max(images.shape[2:]) >= LARGE


@dataclass(frozen=True, eq=False)
class Snapshot:
    """A copy of a network's and its optimiser's state, to restore later."""

    network: dict[str, Tensor]
    optimizer: dict[str, Any]

    @classmethod
    def of(cls, classifier: harness.Classifier, optimizer: Optimizer) -> Snapshot:
        """Copy the current state. The optimiser should not have stepped yet."""
        network = {name: value.clone() for name, value in module_of(classifier).state_dict().items()}
        return cls(network, optimizer.state_dict())

    def restore(self, classifier: harness.Classifier, optimizer: Optimizer) -> None:
        """Restore the state."""
        module_of(classifier).load_state_dict(self.network)
        optimizer.load_state_dict(self.optimizer)
