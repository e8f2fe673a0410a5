"""Scorers that read only a sample's logits, without a fit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import harness

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor


def max_probability(logits: Tensor) -> Tensor:
    """Compute max softmax(logits), (N, C) -> (N,) float64."""
    return logits.double().softmax(dim=1).amax(dim=1)


def max_logit(logits: Tensor) -> Tensor:
    """Compute max logits, (N, C) -> (N,) float64."""
    return logits.double().amax(dim=1)


def free_energy(logits: Tensor, *, temperature: float) -> Tensor:
    """Compute -T logsumexp(logits / T), (N, C) -> (N,) float64."""
    return -temperature * (logits.double() / temperature).logsumexp(dim=1)


def entropy(logits: Tensor) -> Tensor:
    """Compute H(p) = -Σ p ln p of p = softmax(logits) in nats, (N, C) -> (N,) float64; 0 ln 0 is 0."""
    import torch

    terms: Tensor = torch.special.entr(logits.double().softmax(dim=1))  # (N, C)
    return terms.sum(dim=1)


@dataclass(frozen=True)
class MaxProbability:
    """-max p, p = softmax(logits) (Hendrycks & Gimpel, ICLR 2017). Higher = more OOD.

    By definition, scores tie if p rounds to 1 in float64: at logit margins above about 37.
    """

    def score(self, features: harness.Features) -> Tensor:
        """Return minus the largest probability, (N,) float64."""
        return -max_probability(features.logits)


@dataclass(frozen=True)
class MaxLogit:
    """-max logits (Hendrycks et al., ICML 2022). Higher = more OOD."""

    def score(self, features: harness.Features) -> Tensor:
        """Return minus the largest logit, (N,) float64."""
        return -max_logit(features.logits)


@dataclass(frozen=True)
class Energy:
    """Free energy -T logsumexp(logits / T) (Liu et al., NeurIPS 2020). Higher = more OOD."""

    temperature: float = 1.0  # T, above 0

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise harness.InputError(f"temperature={self.temperature}. Give temperature > 0")

    def score(self, features: harness.Features) -> Tensor:
        """Return the free energies, (N,) float64."""
        return free_energy(features.logits, temperature=self.temperature)


@dataclass(frozen=True)
class Entropic:
    """Entropy of softmax(logits), the score of IsoMax (Macêdo et al., IJCNN 2021). Higher = more OOD.

    The entropic scale of IsoMax is part of its loss only; these logits are without it.
    """

    def score(self, features: harness.Features) -> Tensor:
        """Return the entropies in nats, (N,) float64, 0 to ln C."""
        return entropy(features.logits)


@dataclass(frozen=True)
class MinDistance:
    """-max logits, the smallest distance to a prototype (IsoMax+, Macêdo et al., arXiv 2105.14399). Higher = more OOD.

    This holds on a distance head, whose logits are -distance / T. On a linear head it equals max_logit.
    """

    def score(self, features: harness.Features) -> Tensor:
        """Return the smallest distances over T, (N,) float64."""
        return -max_logit(features.logits)


@harness.hookimpl
def harness_scorers() -> Iterator[harness.ScorerSpec]:
    """Offer the scorers of logits."""
    needs = {"logits"}
    yield harness.ScorerSpec("msp", MaxProbability, needs, "Hendrycks & Gimpel, ICLR 2017")
    yield harness.ScorerSpec("max_logit", MaxLogit, needs, "Hendrycks et al., ICML 2022")
    yield harness.ScorerSpec("energy", Energy, needs, "Liu et al., NeurIPS 2020")
    yield harness.ScorerSpec("entropic", Entropic, needs, "Macêdo et al., IsoMax, IJCNN 2021")
    yield harness.ScorerSpec("min_distance", MinDistance, needs, "Macêdo et al., IsoMax+, arXiv 2105.14399")
