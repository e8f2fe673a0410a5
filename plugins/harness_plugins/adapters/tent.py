"""Tent (Wang et al., ICLR 2021): test entropy minimisation, and the steps shared with its successors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

import harness
from harness_plugins.adapters.layers import (
    detached,
    entropy,
    forward,
    is_large,
    make_optimizer,
    only_affine_moves,
    require_optimizer,
    use_batch_statistics,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from torch import Tensor, nn
    from torch.optim import Optimizer

    from harness_plugins.adapters.layers import OptimizerName


@dataclass(frozen=True)
class Tent:
    """Minimise the batch's mean H(p) = -Σ p ln p over scale and shift of the normalisation layers (section 3).

    Defaults are as published for the image size: Adam, lr 1e-3 for small images; SGD, lr 2.5e-4 for large ones.
    """

    lr: float | None = None
    optimizer: OptimizerName | None = None  # "adam" or "sgd"; None: as published
    steps: int = 1  # of the optimiser per batch

    def __post_init__(self) -> None:
        require_optimizer(self.optimizer, self.lr)
        require_whole("steps", self.steps)

    def adapt(self, classifier: harness.Classifier, batches: Iterable[Tensor]) -> Iterator[harness.Adapted]:
        """Take `steps` steps per batch; its predictions are those before the first step."""
        use_batch_statistics(classifier)
        parameters = only_affine_moves(classifier)
        optimizer = None
        for number, images in enumerate(batches, start=1):
            optimizer = optimizer or optimizer_for(parameters, images, name=self.optimizer, lr=self.lr)
            found = [_step(classifier, images, optimizer, number) for _ in range(self.steps)]
            passed = self.steps * len(images)
            yield harness.Adapted(before=found[0], updated=True, forwards=passed, backwards=passed)


def _step(
    classifier: harness.Classifier, images: Tensor, optimizer: Optimizer, number: int
) -> harness.Features:
    with torch.enable_grad():
        found = forward(classifier, images)
        descend(entropy(found.logits).mean(), optimizer, number)
    return detached(found)


def optimizer_for(
    parameters: Sequence[nn.Parameter], images: Tensor, *, name: OptimizerName | None, lr: float | None
) -> Optimizer:
    """Make the optimiser for a stream that begins with the images; None means as published for their size."""
    published: tuple[OptimizerName, float] = ("sgd", 2.5e-4) if is_large(images) else ("adam", 1e-3)
    return make_optimizer(parameters, name or published[0], lr or published[1])


def descend(loss: Tensor, optimizer: Optimizer, number: int) -> None:
    """Take one step on the loss of batch `number`.

    Raises InputError if the loss is not finite, before any weight changes.
    """
    require_finite(loss, optimizer, number)
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()


def require_finite(loss: Tensor, optimizer: Optimizer, number: int) -> None:
    """Raise InputError if the loss of a batch is not finite."""
    if not bool(loss.isfinite()):
        raise harness.InputError(
            f"the loss of batch {number} is {loss.item()}: the model has diverged. "
            f"Give an lr below {optimizer.param_groups[0]['lr']}"
        )


def require_whole(name: str, value: int) -> None:
    """Raise InputError unless a parameter is a whole number of at least 1."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise harness.InputError(f"{name} is {value!r}. Give a whole number of at least 1")
