"""Accuracy on frozen features, by nearest neighbours and by a linear classifier: how good an encoder is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

import harness
from harness_plugins.scorers.moments import unit_vectors

if TYPE_CHECKING:
    from torch import Tensor

TILE = 1024  # samples whose similarities are in memory at once


@dataclass(frozen=True)
class KnnAccuracy:
    """Share of samples whose k nearest training features, weighted, vote for their label (Wu et al., CVPR 2018).

    Features are divided by their norms; a neighbour at cosine similarity s has the weight exp(s / temperature). At most
    `size` training features are used, drawn with `seed`.
    """

    k: int = 20
    temperature: float = 0.07
    size: int = 50_000
    seed: int = 0

    def __post_init__(self) -> None:
        if self.k < 1 or not self.temperature > 0 or self.size < self.k:
            given = f"k={self.k}, temperature={self.temperature}, size={self.size}"
            raise harness.InputError(f"{given}. Give k ≥ 1, temperature > 0 and size ≥ k")

    def fit(self, data: harness.FitData) -> FittedKnnAccuracy:
        """Keep the training features. Raises InputError for fewer of them than k."""
        bank = data.train.sample(self.size, self.seed)
        if len(bank) < self.k:
            raise harness.InputError(f"{len(bank)} training features for k={self.k}. Give at least k")
        return FittedKnnAccuracy(self, unit_vectors(bank.penultimate).float(), bank.labels)


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
            for chunk in features
            for tile, truth in zip(
                torch.split(chunk.penultimate, TILE), torch.split(chunk.labels, TILE), strict=True
            )
        ]
        return harness.Measurement(torch.cat(hits).double().mean().item())

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
    """Share of samples that a logistic regression on the frozen training features classifies rightly.

    Features are standardised by the training features; `strength` is the inverse of the ridge penalty. At most `size`
    training features are used, drawn with `seed`.
    """

    strength: float = 1.0
    size: int = 10_000
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.strength > 0 or self.size < 2:
            raise harness.InputError(
                f"strength={self.strength}, size={self.size}. Give strength > 0 and size ≥ 2"
            )

    def fit(self, data: harness.FitData) -> FittedLinearProbe:
        """Fit the regression. Raises InputError where the training features are of one class."""
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        bank = data.train.sample(self.size, self.seed)
        labels = bank.labels.cpu().numpy()
        if len(set(labels.tolist())) < 2:
            raise harness.InputError("the training features are of one class. Give at least two")
        regression = make_pipeline(StandardScaler(), LogisticRegression(C=self.strength, max_iter=2000))
        regression.fit(bank.penultimate.double().cpu().numpy(), labels)
        return FittedLinearProbe(regression)


@dataclass(frozen=True, eq=False)
class FittedLinearProbe:
    """A LinearProbeAccuracy with its regression."""

    regression: Any  # a pipeline of scikit-learn, which has no types

    def measure(self, features: harness.FeatureSet) -> harness.Measurement:
        """Return the accuracy, 0 to 1."""
        hits = 0
        for chunk in features:
            predicted = self.regression.predict(chunk.penultimate.double().cpu().numpy())
            hits += int((predicted == chunk.labels.cpu().numpy()).sum())
        return harness.Measurement(hits / len(features))
