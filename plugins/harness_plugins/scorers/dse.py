"""Relative Nyström residual: the part of a sample outside the leading diffusion modes of the training features.

The operator is that of diffusion spectral entropy (DSE; Liao et al., arXiv 2312.04823). The score is our own, and no
entropy. How a sample changes the entropy is in dse_change.py.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import harness
from harness_plugins.scorers.moments import gaussian, unit_vectors

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

TILE = 1024  # samples whose kernel rows are in memory at once
WIDTHS = ("median", "neighbour")
NEIGHBOUR = 10  # the neighbour whose distance gives the width "neighbour"


def class_balanced(labels: NDArray[np.int64], size: int, *, seed: int) -> NDArray[np.int64]:
    """Choose at most `size` positions, balanced over classes as far as possible: (N,) -> ascending positions.

    Classes take turns and each gives one random sample, until the size is reached or no samples are left.
    Samples without a class (label -1) are left out.
    """
    import numpy as np

    rng = np.random.default_rng(seed)
    order = rng.permutation(np.flatnonzero(labels >= 0))
    order = order[np.argsort(labels[order], kind="stable")]  # class by class, shuffled within
    _, starts, classes = np.unique(labels[order], return_index=True, return_inverse=True)
    turns = np.arange(len(order)) - starts[classes]
    by_turn = np.lexsort((rng.permutation(len(order)), turns))  # within a turn, classes in random order
    return np.sort(order[by_turn[:size]])


def diffusion_modes(reference: Tensor, *, sigma: float, modes: int) -> Tensor:
    """Compute P (M, m), from reference (M, D), such that ‖G(x, reference) P‖² is the share of x that m modes express.

    With degrees d = G 1, K = diag(d)^-½ G diag(d)^-½ = U Λ Uᵀ and P = diag(d)^-½ U Λ^-½, over the m largest λ
    that are at least 1e-10 of the first.
    """
    import torch

    gram = gaussian(reference, reference, sigma)  # (M, M)
    scale = gram.sum(dim=1).rsqrt()  # (M,)
    values, vectors = torch.linalg.eigh(scale[:, None] * gram * scale)  # ascending
    values, vectors = values[-modes:], vectors[:, -modes:]
    kept = values >= 1e-10 * values[-1]
    return torch.div(scale[:, None] * vectors[:, kept], values[kept].sqrt())


def typical_distance(reference: Tensor, width: str) -> float:
    """Return the median pairwise distance of features (M, D), or their median distance to the 10th neighbour."""
    import torch

    if width == "median":
        return torch.pdist(reference).median().item()
    nearest = torch.cdist(reference, reference).topk(min(NEIGHBOUR + 1, len(reference)), largest=False).values
    return nearest[:, -1].median().item()


@dataclass(frozen=True)
class Dse:
    """Relative Nyström residual 1 - Σ_j (k̃ᵀu_j)² / λ_j of DSE's diffusion operator; not DSE itself.

    It is the share of a sample that the leading eigenvectors do not express, clipped to 0 to 1, with
    k̃ = G(f, R) / √degrees. Higher = more OOD. The scorer `dse_change` is the change of DSE by a sample.

    R holds at most `size` L2-normalised training features, balanced over classes, drawn with `seed`. σ is `scale` times
    their median pairwise distance, or with `width` "neighbour" their median distance to the 10th neighbour. j runs over
    the leading `modes`. With as many modes as features in R, the score is the variance of a Gaussian process without
    noise, 1 - kᵀG⁻¹k.
    """

    modes: int = 50
    scale: float = 1.0
    size: int = 2000
    seed: int = 0
    width: str = "median"

    def __post_init__(self) -> None:
        if self.width not in WIDTHS:
            raise harness.unknown_name("width", self.width, WIDTHS, valid_label="Valid")
        if self.modes < 1 or not 0 < self.scale < math.inf or self.size < 2:
            given = f"modes={self.modes}, scale={self.scale}, size={self.size}"
            raise harness.InputError(f"{given}. Give modes ≥ 1, scale > 0 and size ≥ 2")

    def fit(self, data: harness.FitData) -> FittedDse:
        """Draw the reference and compute its modes. Raises InputError if the median distance is 0."""
        chosen = class_balanced(data.train.labels.cpu().numpy(), self.size, seed=self.seed)
        if len(chosen) < 2:
            raise harness.InputError(f"{len(chosen)} labelled training samples. Give at least 2")
        reference = unit_vectors(data.train.take(chosen).penultimate)  # (M, D)
        distance = typical_distance(reference, self.width)
        if not distance > 0:
            raise harness.InputError(
                f"the {self.width} distance of {len(chosen)} training features is 0. Fit on features that differ"
            )
        sigma = self.scale * distance
        modes = diffusion_modes(reference, sigma=sigma, modes=self.modes)
        return FittedDse(reference, modes, sigma)


@dataclass(frozen=True, eq=False)
class FittedDse:
    """A Dse with its reference's modes."""

    reference: Tensor  # (M, D)
    modes: Tensor  # (M, m)
    sigma: float

    def score(self, features: harness.Features) -> Tensor:
        """Return the shares that the modes do not express, (N,) float64, 0 to 1."""
        import torch

        return torch.cat([self._residual(tile) for tile in torch.split(features.penultimate, TILE)])

    def _residual(self, penultimate: Tensor) -> Tensor:
        rows = gaussian(unit_vectors(penultimate), self.reference, self.sigma)  # (n, M)
        return (1 - (rows @ self.modes).square().sum(dim=1)).clamp(0, 1)


@harness.hookimpl
def harness_scorers() -> Iterator[harness.ScorerSpec]:
    """Offer the residual."""
    needs = {"penultimate", "labels", "train"}
    yield harness.ScorerSpec("dse", Dse, needs, "operator of Liao et al., arXiv 2312.04823")
