"""Batch normalisation by the batch at hand (Schneider et al., NeurIPS 2020): adapts statistics, not weights."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch.nn.modules.batchnorm import _BatchNorm

import harness
from harness_plugins.adapters.layers import forward, module_of, use_batch_statistics

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from torch import Tensor, nn


@dataclass(frozen=True)
class Norm:
    """Make BatchNorm normalise by (1 - α)·source + α·batch, means and biased variances alike (eq. 1).

    The paper's α is n / (N + n) for a batch of n images and a source that counts as N images.
    """

    alpha: float = 1.0  # α, the share of the batch in the statistics, 0 to 1

    def __post_init__(self) -> None:
        if not 0 <= self.alpha <= 1:
            raise harness.InputError(f"alpha is {self.alpha}. Give a share from 0 to 1")

    def adapt(self, classifier: harness.Classifier, batches: Iterable[Tensor]) -> Iterator[harness.Adapted]:
        """Forward each batch once. Raises InputError for a network without BatchNorm."""
        _mix_statistics(classifier, self.alpha)
        for images in batches:
            with torch.no_grad():
                found = forward(classifier, images)
            yield harness.Adapted(before=found, after=found, forwards=len(images))


def _mix_statistics(classifier: harness.Classifier, alpha: float) -> None:
    source = [
        (module, module.running_mean, module.running_var)
        for module in module_of(classifier).modules()
        if isinstance(module, _BatchNorm)
    ]
    if all(mean is None for _, mean, _ in source):
        raise harness.InputError(
            f"the network {type(classifier).__name__} has no BatchNorm layer with statistics of its own, so norm would "
            "change nothing. Choose another adapter, like tent or lame, or another network"
        )
    use_batch_statistics(classifier)
    for module, mean, variance in source:
        if alpha < 1 and mean is not None and variance is not None:
            # runs after the check, which use_batch_statistics registered first
            module.register_forward_pre_hook(
                partial(_assign_mixture, alpha=alpha, mean=mean, variance=variance)
            )


def _assign_mixture(
    module: nn.Module, inputs: tuple[Tensor, ...], *, alpha: float, mean: Tensor, variance: Tensor
) -> None:
    """Set the running statistics, by which BatchNorm and its subclasses normalise, to the mixture."""
    given = inputs[0].detach().to(mean.dtype)  # (n, channels, ...)
    of_batch = torch.var_mean(given, dim=[0, *range(2, given.ndim)], correction=0)
    module.running_var, module.running_mean = (
        (1 - alpha) * source + alpha * batch  # (channels,)
        for source, batch in zip((variance, mean), of_batch, strict=True)
    )
