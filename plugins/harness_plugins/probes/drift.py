"""Detects batches that drifted from ID: by DSE of the batch joined to a reference, by 10-NN, or by MMD.

The score of a batch B is the difference of its statistic from the mean of held-out ID batches of the same size, in
standard deviations. DSE rises or falls with drift, depending on its width and on the batch, so its score is two-sided,
|DSE(R ∪ B) - μ| / sd (entropy of Liao et al., arXiv 2312.04823); those of the other two are one-sided.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import torch

import harness
from harness_plugins.probes.diffusion import diffusion_spectral_entropy
from harness_plugins.probes.spectrum import kernel_matrix
from harness_plugins.scorers.moments import gaussian, unit_vectors

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

Statistic = Literal["dse", "knn", "mmd"]
STATISTICS: tuple[Statistic, ...] = ("dse", "knn", "mmd")
FEWEST_BATCHES = 3


@dataclass(frozen=True)
class DriftDetector:
    """A batch-level detector: `fit` it on a reference and on held-out ID batches, then `score` batches of that size.

    `statistic` is dse, knn (mean distance to the 10th nearest reference vector) or mmd (squared maximum mean
    discrepancy to the reference, unbiased; Gretton et al., JMLR 2012, eq. 3). Vectors are divided by their norms, and
    σ of both kernels is `scale` times the median distance within the reference.
    """

    statistic: Statistic = "dse"
    scale: float = 1.0
    neighbours: int = 10

    def __post_init__(self) -> None:
        if self.statistic not in STATISTICS:
            raise harness.unknown_name("statistic", self.statistic, STATISTICS, valid_label="Valid")
        if not 0 < self.scale < math.inf or self.neighbours < 1:
            raise harness.InputError(
                f"scale={self.scale}, neighbours={self.neighbours}. Give scale > 0 and neighbours ≥ 1"
            )

    def fit(self, reference: Tensor, batches: Sequence[Tensor]) -> FittedDriftDetector:
        """Measure held-out ID batches (n, D), disjoint and of one size, against the reference (M, D).

        Raises InputError for fewer than 3 batches, batches of several sizes, a reference that is too small or whose
        vectors coincide, and batches that all have the same statistic.
        """
        sizes = sorted({len(batch) for batch in batches})
        if len(batches) < FEWEST_BATCHES or len(sizes) > 1:
            raise harness.InputError(
                f"{len(batches)} ID batches of sizes {sizes}. Give at least {FEWEST_BATCHES}, all of one size"
            )
        if len(reference) <= self.neighbours or sizes[0] < 2:
            raise harness.InputError(
                f"a reference of {len(reference)} vectors and batches of {sizes[0]}. Give more than "
                f"{self.neighbours} vectors, and batches of 2 or more"
            )
        vectors = unit_vectors(reference)
        sigma = self.scale * torch.pdist(vectors).median().item()
        if not sigma > 0:
            raise harness.InputError("the reference's median distance is 0. Give vectors that differ")
        within = _within(vectors, sigma) if self.statistic == "mmd" else 0.0
        fitted = FittedDriftDetector(self, vectors, sigma, sizes[0], within)
        values = torch.tensor([fitted.value(batch) for batch in batches], dtype=torch.float64)
        mean, deviation = values.mean().item(), values.std(correction=1).item()
        if not deviation > 0:
            raise harness.InputError(f"all {len(batches)} ID batches give {mean}. Give batches that differ")
        return replace(fitted, mean=mean, deviation=deviation)


@dataclass(frozen=True, eq=False)
class FittedDriftDetector:
    """A DriftDetector with the mean and deviation of its statistic on ID batches."""

    detector: DriftDetector
    reference: Tensor  # (M, D) unit vectors
    sigma: float
    size: int  # of a batch
    within: float  # mean kernel value within the reference, for MMD
    mean: float = 0.0
    deviation: float = 1.0

    def score(self, batch: Tensor) -> float:
        """Return the difference of a batch (n, D) from ID, in standard deviations; higher = more drifted."""
        if len(batch) != self.size:
            raise harness.InputError(
                f"a batch of {len(batch)}, but ID batches had {self.size}. Give {self.size}"
            )
        off = (self.value(batch) - self.mean) / self.deviation
        return abs(off) if self.detector.statistic == "dse" else off

    def value(self, batch: Tensor) -> float:
        """Compute the statistic itself."""
        if batch.ndim != 2 or batch.shape[1] != self.reference.shape[1]:
            expected = f"(n, {self.reference.shape[1]}), as the reference's"
            raise harness.InputError(f"a batch has shape {tuple(batch.shape)}. Give {expected}")
        vectors = unit_vectors(batch)
        if self.detector.statistic == "dse":
            return diffusion_spectral_entropy(torch.cat([self.reference, vectors]), sigma=self.sigma)
        if self.detector.statistic == "knn":
            distances = torch.cdist(vectors, self.reference)  # (n, M)
            nearest = distances.topk(self.detector.neighbours, dim=1, largest=False).values
            return nearest[:, -1].mean().item()
        between = gaussian(vectors, self.reference, self.sigma).mean().item()
        return self.within + _within(vectors, self.sigma) - 2 * between


def _within(x: Tensor, sigma: float) -> float:
    """Average the Gaussian kernel over the pairs of different rows of x (n, D)."""
    return (kernel_matrix(x, sigma=sigma).sum().item() - len(x)) / (len(x) * (len(x) - 1))
