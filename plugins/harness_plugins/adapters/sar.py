"""SAR (Niu et al., ICLR 2023): sharpness-aware entropy of reliable samples, and a reset before collapse."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

import harness
from harness_plugins.adapters.layers import (
    NORMALISATIONS,
    Snapshot,
    detached,
    entropy,
    forward,
    is_large,
    make_optimizer,
    module_of,
    normalisation_layers,
    only_affine_moves,
    require_optimizer,
    use_batch_statistics,
)
from harness_plugins.adapters.tent import require_finite

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from torch import Tensor
    from torch.optim import Optimizer

    from harness_plugins.adapters.layers import OptimizerName


@dataclass(frozen=True)
class Sar:
    """Minimise the mean H of reliable samples, those with H < margin·ln C, in flat regions (eqs. 2-4).

    The gradient is taken at θ + ρ g/‖g‖, with g the gradient at θ, over samples that are reliable at both. It updates
    scale and shift of the normalisation layers before the last stage. If the moving average of the second loss,
    m ← momentum·m + (1 - momentum)·loss, falls below `reset_below`, weights, optimiser and m are reset; the authors'
    code keeps m. A batch without reliable samples takes no step.

    Defaults: SGD with momentum .9, lr 1e-3 for small images and 2.5e-4 for large ones. `reset_below` was set for
    C = 1000.
    """

    lr: float | None = None
    optimizer: OptimizerName | None = None  # "adam" or "sgd"; None: as published
    margin: float = 0.4
    rho: float = 0.05  # ρ, the radius of a flat region
    reset_below: float = 0.2
    momentum: float = 0.9

    def __post_init__(self) -> None:
        require_optimizer(self.optimizer, self.lr)
        if not 0 < self.margin <= 1:
            raise harness.InputError(f"margin is {self.margin}. Give a share of ln C above 0, up to 1")
        if not 0 < self.rho < math.inf:
            raise harness.InputError(f"rho is {self.rho}. Give a number above 0")
        if not 0 <= self.reset_below < math.inf:
            raise harness.InputError(f"reset_below is {self.reset_below}. Give a number of at least 0")
        if not 0 <= self.momentum < 1:
            raise harness.InputError(f"momentum is {self.momentum}. Give a share from 0 to below 1")

    def adapt(self, classifier: harness.Classifier, batches: Iterable[Tensor]) -> Iterator[harness.Adapted]:
        """Take one step per batch, or none if no sample is reliable."""
        use_batch_statistics(classifier)
        parameters = only_affine_moves(classifier, layers_below_last_stage(classifier))
        learner = None
        for number, images in enumerate(batches, start=1):
            learner = learner or self._begin(classifier, parameters, images)
            yield learner.learn(images, number)

    def _begin(
        self, classifier: harness.Classifier, parameters: Sequence[nn.Parameter], images: Tensor
    ) -> _Learner:
        lr = self.lr or (2.5e-4 if is_large(images) else 1e-3)
        optimizer = make_optimizer(parameters, self.optimizer or "sgd", lr)
        return _Learner(self, classifier, parameters, optimizer, Snapshot.of(classifier, optimizer))


def layers_below_last_stage(classifier: harness.Classifier) -> list[nn.Module]:
    """List the normalisation layers before the network's last stage, the last of timm's `feature_info`.

    If there are none, or the network has no `feature_info`, list all normalisation layers.
    """
    modules = dict(module_of(classifier).named_modules())
    stages = [entry.get("module") for entry in getattr(classifier, "feature_info", None) or []]
    last = next((name for name in reversed(stages) if name in modules), None)
    names = list(modules)
    below = [modules[name] for name in names[: names.index(last)]] if last else []
    return [layer for layer in below if isinstance(layer, NORMALISATIONS)] or normalisation_layers(classifier)


@dataclass(eq=False)
class _Learner:
    """A network that learns by SAR, with the moving average of its loss."""

    settings: Sar
    classifier: harness.Classifier
    parameters: Sequence[nn.Parameter]
    optimizer: Optimizer
    source: Snapshot
    average: float | None = None  # m

    @torch.enable_grad()
    def learn(self, images: Tensor, number: int) -> harness.Adapted:
        """Take one step on a batch if samples are reliable, and reset to the source if m is too low."""
        found, entropies = self._forward(images, number)
        reliable = self._are_reliable(entropies, classes=found.logits.shape[1])
        twice, loss = 0, None
        if once := int(reliable.sum()):
            twice, loss = self._step(images, entropies[reliable], reliable, number)
        after, reset = None, self._is_low(loss)
        if reset:
            # the harness cannot compute it after the reset
            with torch.no_grad():
                after = forward(self.classifier, images)
            self.source.restore(self.classifier, self.optimizer)
            self.average = None
        passes = 2 if once else 1
        return harness.Adapted(
            detached(found),
            after,
            updated=twice > 0,
            reset=reset,
            forwards=passes * len(images),
            backwards=once + twice,
        )

    def _forward(self, images: Tensor, number: int) -> tuple[harness.Features, Tensor]:
        found = forward(self.classifier, images)
        entropies = entropy(found.logits)  # (n,)
        require_finite(entropies.detach().mean(), self.optimizer, number)
        return found, entropies

    def _are_reliable(self, entropies: Tensor, *, classes: int) -> Tensor:
        return entropies.detach() < self.settings.margin * math.log(classes)

    def _step(
        self, images: Tensor, entropies: Tensor, reliable: Tensor, number: int
    ) -> tuple[int, float | None]:
        """Take one step. Return how many samples are reliable at both weights, and their mean entropy at the second."""
        gradients = self._gradients(entropies.mean())
        length = torch.stack([g.norm() for g in gradients]).norm() + 1e-12
        here = [p.detach().clone() for p in self.parameters]
        self._go([p + self.settings.rho / length * g for p, g in zip(here, gradients, strict=True)])
        found, entropies = self._forward(images, number)
        kept = reliable & self._are_reliable(entropies, classes=found.logits.shape[1])
        loss = entropies[kept].mean()
        twice = int(kept.sum())
        gradients = self._gradients(loss) if twice else gradients
        self._go(here)
        if not twice:
            return 0, None
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            parameter.grad = gradient
        self.optimizer.step()
        return twice, loss.item()

    def _gradients(self, loss: Tensor) -> tuple[Tensor, ...]:
        # zeros for a layer that the forward pass does not use
        return torch.autograd.grad(loss, self.parameters, allow_unused=True, materialize_grads=True)

    @torch.no_grad()
    def _go(self, weights: Sequence[Tensor]) -> None:
        for parameter, weight in zip(self.parameters, weights, strict=True):
            parameter.copy_(weight)

    def _is_low(self, loss: float | None) -> bool:
        """Update m by a loss, and return whether m is too low."""
        if loss is None:
            return False
        share = self.settings.momentum
        self.average = loss if self.average is None else share * self.average + (1 - share) * loss
        return self.average < self.settings.reset_below
