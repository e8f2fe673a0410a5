"""Accuracy: of a classifier itself, and of frozen features by nearest neighbours and by a linear classifier."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

import harness
from harness_plugins.scorers.moments import unit_vectors

if TYPE_CHECKING:
    from torch import Tensor

TILE = 1024  # samples whose similarities are in memory at once


@dataclass(frozen=True)
class ClassifierAccuracy:
    """Accuracy of the model itself: the share of samples whose largest logit is that of their label."""

    def measure(self, features: harness.FeatureSet) -> harness.Measurement:
        """Return the accuracy, 0 to 1, over samples that have a label."""
        hits = [(chunk.logits.argmax(dim=1) == chunk.labels)[chunk.labels >= 0].cpu() for chunk in features]
        return _share_of(hits)


@dataclass(frozen=True)
class KnnAccuracy:
    """Accuracy of a weighted vote of the k nearest training features (Wu et al., CVPR 2018).

    Features are divided by their norms; a neighbour at cosine similarity s has the weight exp(s / temperature). At most
    `size` training features are used, drawn with `seed`.
    """

    k: int = 20
    temperature: float = 0.07
    size: int = 50_000
    seed: int = 0

    def __post_init__(self) -> None:
        if self.k < 1 or not 0 < self.temperature < math.inf or self.size < self.k:
            given = f"k={self.k}, temperature={self.temperature}, size={self.size}"
            raise harness.InputError(f"{given}. Give k ≥ 1, temperature > 0 and size ≥ k")

    def fit(self, data: harness.FitData) -> FittedKnnAccuracy:
        """Keep the training features. Raises InputError if there are fewer than k."""
        vectors, labels = _labelled(data.train.sample(self.size, self.seed))
        if len(labels) < self.k:
            raise harness.InputError(
                f"{len(labels)} labelled training features for k={self.k}. Give at least k"
            )
        return FittedKnnAccuracy(self, unit_vectors(vectors).float(), labels)


@dataclass(frozen=True, eq=False)
class FittedKnnAccuracy:
    """A KnnAccuracy with its bank."""

    probe: KnnAccuracy
    bank: Tensor  # (M, D) unit vectors
    labels: Tensor  # (M,)

    def measure(self, features: harness.FeatureSet) -> harness.Measurement:
        """Return the accuracy, 0 to 1."""
        hits = [
            self._predicted(tile) == truth
            for vectors, labels in map(_labelled, features)
            for tile, truth in zip(torch.split(vectors, TILE), torch.split(labels, TILE), strict=True)
        ]
        return _share_of(hits)

    def _predicted(self, penultimate: Tensor) -> Tensor:
        similarity = unit_vectors(penultimate).float() @ self.bank.T  # (n, M)
        nearest = similarity.topk(self.probe.k, dim=1)
        weights = ((nearest.values - nearest.values[:, :1]).double() / self.probe.temperature).exp()
        classes = int(self.labels.max()) + 1
        votes = weights.new_zeros(len(weights), classes).scatter_add_(
            1, self.labels[nearest.indices], weights
        )
        return votes.argmax(dim=1)


@dataclass(frozen=True)
class LinearProbeAccuracy:
    """Accuracy of a logistic regression that is fitted on the frozen training features.

    Features are standardised with training statistics; `strength` is the inverse of the ridge penalty. At most `size`
    training features are used, drawn with `seed`.
    """

    strength: float = 1.0
    size: int = 10_000
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.strength < math.inf or self.size < 2:
            raise harness.InputError(
                f"strength={self.strength}, size={self.size}. Give strength > 0 and size ≥ 2"
            )

    def fit(self, data: harness.FitData) -> FittedLinearProbe:
        """Fit the regression. Raises InputError if the training features are of one class."""
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        vectors, of_vectors = _labelled(data.train.sample(self.size, self.seed))
        labels = of_vectors.cpu().numpy()
        if len(set(labels.tolist())) < 2:
            raise harness.InputError("the training features are of one class. Give at least two")
        regression = make_pipeline(StandardScaler(), LogisticRegression(C=self.strength, max_iter=2000))
        regression.fit(_finite(vectors).double().cpu().numpy(), labels)
        return FittedLinearProbe(regression)


@dataclass(frozen=True, eq=False)
class FittedLinearProbe:
    """A LinearProbeAccuracy with its regression."""

    regression: Any  # a pipeline of scikit-learn, which has no types

    def measure(self, features: harness.FeatureSet) -> harness.Measurement:
        """Return the accuracy, 0 to 1."""
        hits = [
            torch.from_numpy(self.regression.predict(_finite(vectors).double().cpu().numpy())) == labels.cpu()
            for vectors, labels in map(_labelled, features)
            if len(labels)
        ]
        return _share_of(hits)


def _labelled(features: harness.Features) -> tuple[Tensor, Tensor]:
    """Return the features (n, D) of samples that have a label, and these labels (n,)."""
    known = features.labels >= 0
    return features.penultimate[known], features.labels[known]


def _finite(vectors: Tensor) -> Tensor:
    if broken := int((~vectors.isfinite()).any(dim=1).sum()):
        raise harness.InputError(f"{broken} of {len(vectors)} features hold NaN or infinity. Remove them")
    return vectors


def _share_of(hits: list[Tensor]) -> harness.Measurement:
    """Return the share of correct predictions. Raises InputError if there are no samples."""
    if not sum(len(part) for part in hits):
        raise harness.InputError("no sample has a label. Give labelled ones")
    return harness.Measurement(torch.cat(hits).double().mean().item())
