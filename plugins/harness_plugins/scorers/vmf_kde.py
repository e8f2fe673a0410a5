"""A von Mises-Fisher kernel density of ID directions, the density of ER (Rodríguez-Gálvez et al., ICML 2023)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import harness
from harness_plugins.scorers.moments import unit_vectors

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

TILE = 256  # samples whose kernel values are in memory at once


@dataclass(frozen=True)
class VmfKde:
    """Score -ln Σ_j exp(κ z·z_j) over L2-normalised training features z_j. Higher = more OOD.

    This is minus the log density up to a constant, which does not affect ranks. At most `size` training features are
    used, drawn with `seed`.
    """

    kappa: float = 100.0  # κ, the concentration of the kernel
    size: int = 10_000
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.kappa < math.inf or self.size < 1:
            raise harness.InputError(f"kappa={self.kappa}, size={self.size}. Give kappa > 0 and size ≥ 1")

    def fit(self, data: harness.FitData) -> FittedVmfKde:
        """Keep the directions of the training features."""
        return FittedVmfKde(self, unit_vectors(data.train.sample(self.size, self.seed).penultimate))


@dataclass(frozen=True, eq=False)
class FittedVmfKde:
    """A VmfKde with its directions."""

    scorer: VmfKde
    bank: Tensor  # (M, D) unit vectors, float64: κ would amplify float32's rounding

    def score(self, features: harness.Features) -> Tensor:
        """Return the scores, (N,) float64, from -κ - ln M to κ - ln M."""
        import torch

        return torch.cat([self._score(tile) for tile in torch.split(features.penultimate, TILE)])

    def _score(self, penultimate: Tensor) -> Tensor:
        cosines = unit_vectors(penultimate) @ self.bank.T  # (n, M)
        nearest = cosines.amax(dim=1, keepdim=True)  # (n, 1)
        rest = cosines.sub_(nearest).mul_(self.scorer.kappa).exp_().sum(dim=1)  # at least 1
        return -(self.scorer.kappa * nearest[:, 0] + rest.log())


@harness.hookimpl
def harness_scorers() -> Iterator[harness.ScorerSpec]:
    """Offer the density."""
    needs = {"penultimate", "train"}
    yield harness.ScorerSpec("vmf_kde", VmfKde, needs, "density of Rodríguez-Gálvez et al., ICML 2023")
