"""Accuracy from disagreement: with another training of the model, and of the model with itself under dropout."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

import harness
from harness_plugins.adapters.tent import require_whole
from harness_plugins.estimators.outputs import clipped, of_mean

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor


@dataclass(frozen=True)
class Agreement:
    """The share of images on which the model and another training of it predict the same (Jiang et al., ICLR 2022)."""

    def estimate(self, target: harness.Unlabelled) -> harness.Estimate:
        """Compute the share, with a bootstrap interval over images. Raises InputError without a peer."""
        if target.peer is None:
            raise harness.InputError(
                "agreement needs another training of the model. Give the model two seeds"
            )
        pairs = zip(target.features.chunks(), target.peer.chunks(), strict=True)
        same = [mine.logits.argmax(dim=1) == other.logits.argmax(dim=1) for mine, other in pairs]
        return of_mean(torch.cat(same).double().cpu().numpy(), target.seed, clipped)


@dataclass(frozen=True)
class Aetta:
    """1 - error, error = PDD / (H(p̄) / ln C)³, at most 1 - 1/C (Lee et al., CVPR 2024, AETTA, eqs. 6-9).

    PDD is the share of dropout predictions that differ from the model's own, over `passes` passes; p̄ is the mean
    probability under dropout, so that a collapse to few classes raises the error. Dropout of `rate` is on the
    penultimate features, with a generator of the set's seed; the authors' networks have their own dropout.
    """

    passes: int = 10
    rate: float = 0.4

    def __post_init__(self) -> None:
        require_whole("passes", self.passes)
        if not 0 < self.rate < 1:
            raise harness.InputError(f"rate is {self.rate}. Give a share between 0 and 1")

    def fit(self, data: harness.FitData) -> FittedAetta:
        """Keep the head."""
        return FittedAetta(self, data.head)


@dataclass(frozen=True, eq=False)
class FittedAetta:
    """Dropout in front of a known head."""

    settings: Aetta
    head: Callable[[Tensor], Tensor]

    def estimate(self, target: harness.Unlabelled) -> harness.Estimate:
        """Compute the accuracy; its interval is the bootstrap of PDD, with H(p̄) fixed."""
        differing, total = [], None
        generator = torch.Generator().manual_seed(target.seed)
        for chunk in target.features.chunks():
            own = chunk.logits.argmax(dim=1)
            count = torch.zeros(len(own), dtype=torch.float64, device=own.device)
            for _ in range(self.settings.passes):
                kept = torch.rand(chunk.penultimate.shape, generator=generator) >= self.settings.rate
                dropped = chunk.penultimate * kept.to(own.device) / (1 - self.settings.rate)
                with torch.no_grad():
                    p = self.head(dropped).double().softmax(dim=1)
                count += p.argmax(dim=1) != own
                total = p.sum(dim=0) if total is None else total + p.sum(dim=0)
            differing.append(count / self.settings.passes)
        if total is None:
            raise harness.InputError("there are no images. Give some")
        mean = total / total.sum()
        classes = len(mean)
        evenness = float(-torch.special.xlogy(mean, mean).sum()) / math.log(classes)
        scale = max(evenness, 1e-12) ** 3
        most = 1 - 1 / classes
        values = torch.cat(differing).cpu().numpy()
        return of_mean(values, target.seed, lambda means: 1 - (means / scale).clip(0, most))
