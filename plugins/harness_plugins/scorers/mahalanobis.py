"""Mahalanobis distance to the nearest class (Lee et al., 2018), and Mahalanobis++ (Müller & Hein, 2025).

The training set is read twice: the second pass centres features before it multiplies them, so that no digits are lost
if classes are tight and far apart.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import harness
from harness_plugins.scorers.moments import add_up, scatter_matrix, unit_vectors

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

Prepare = Callable[["Tensor"], "Tensor"]  # (N, D) -> (N, D) float64


def in_float64(features: Tensor) -> Tensor:
    """Return features unchanged, (N, D) -> (N, D) float64."""
    return features.double()


def tied_gaussian(train: harness.FeatureSet, prepare: Prepare) -> tuple[Tensor, Tensor]:
    """Compute the class means (C, D) and the covariance within classes (D, D), divided by N.

    Classes without a sample have no mean; samples without a class (label -1) are ignored.
    """
    import torch

    labels = train.labels  # (N,)
    classes, counts = torch.unique(labels[labels >= 0], return_counts=True)  # (C,), (C,)
    if not len(classes):
        raise harness.InputError("no training sample has a label ≥ 0. Fit on labelled data")

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        for chunk in train:
            one_hot = (chunk.labels[:, None] == classes).double()  # (n, C)
            yield prepare(chunk.penultimate), one_hot

    means = add_up(one_hot.T @ rows for rows, one_hot in batches()) / counts[:, None]  # (C, D)
    centred = (one_hot.sum(dim=1, keepdim=True) * (rows - one_hot @ means) for rows, one_hot in batches())
    covariance = scatter_matrix(centred) / counts.sum()  # (D, D)
    if not covariance.trace() > 1e-24 * means.square().sum(dim=1).amax():  # no more than rounding error
        raise harness.InputError("the features of each class are all the same. Fit on more samples per class")
    return means, covariance


def whitening(covariance: Tensor) -> Tensor:
    """Compute W (D, R) with W Wᵀ the pseudo-inverse of a covariance (D, D) of rank R."""
    import torch

    variances, directions = torch.linalg.eigh(covariance)  # (D,) ascending, (D, D)
    kept = variances > variances[-1] * len(variances) * torch.finfo(variances.dtype).eps
    return torch.div(directions[:, kept], variances[kept].sqrt())


def nearest_squared(points: Tensor, centres: Tensor) -> Tensor:
    """Compute each point's squared distance to the nearest centre, (N, R), (C, R) -> (N,).

    One matrix product finds the centre; the distance comes from the difference, to avoid cancellation.
    """
    nearest = (centres.square().sum(dim=1) - 2 * points @ centres.T).argmin(dim=1)  # (N,)
    return (points - centres[nearest]).square().sum(dim=1)


@dataclass(frozen=True)
class Mahalanobis:
    """Squared Mahalanobis distance to the nearest class: min_c (f-μ_c)ᵀ Σ⁺ (f-μ_c). Higher = more OOD.

    If Σ is singular (dead units), directions without variance in training are ignored. A class without a
    training sample is left out.
    """

    def fit(self, data: harness.FitData) -> FittedMahalanobis:
        """Estimate class means and covariance."""
        return _fit(data.train, in_float64)


@dataclass(frozen=True)
class MahalanobisPlusPlus:
    """Squared Mahalanobis distance to the nearest class, with f / ‖f‖₂ in place of f. Higher = more OOD."""

    def fit(self, data: harness.FitData) -> FittedMahalanobis:
        """Estimate class means and covariance of normalised features."""
        return _fit(data.train, unit_vectors)


@dataclass(frozen=True, eq=False)
class FittedMahalanobis:
    """Class means in coordinates where the covariance is the identity."""

    prepare: Prepare
    origin: Tensor  # (D,) mean of the class means: products of centred vectors lose fewer digits
    whiten: Tensor  # (D, R)
    centres: Tensor  # (C, R)

    def score(self, features: harness.Features) -> Tensor:
        """Return squared distances, (N,) float64."""
        points = (self.prepare(features.penultimate) - self.origin) @ self.whiten  # (N, R)
        return nearest_squared(points, self.centres)


def _fit(train: harness.FeatureSet, prepare: Prepare) -> FittedMahalanobis:
    means, covariance = tied_gaussian(train, prepare)
    origin, whiten = means.mean(dim=0), whitening(covariance)
    return FittedMahalanobis(prepare, origin, whiten, (means - origin) @ whiten)


@harness.hookimpl
def harness_scorers() -> Iterator[harness.ScorerSpec]:
    """Offer both distances."""
    needs = {"penultimate", "labels", "train"}
    yield harness.ScorerSpec("mahalanobis", Mahalanobis, needs, "Lee et al., NeurIPS 2018")
    yield harness.ScorerSpec("mahalanobis_pp", MahalanobisPlusPlus, needs, "Müller & Hein, ICML 2025")
