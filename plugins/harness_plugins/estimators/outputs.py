"""Inputs of estimators: probabilities chunk by chunk, and the bootstrap of a mean over images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

import harness
from harness_plugins.estimators.temperature import fit_temperature

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray
    from torch import Tensor

REPLICATES = 200


@dataclass(frozen=True, eq=False)
class Validation:
    """Labelled ID validation data as probabilities after temperature scaling, (N, C), with labels (N,)."""

    probabilities: Tensor
    labels: Tensor
    temperature: float

    @classmethod
    def of(cls, data: harness.FitData, *, temperature: bool) -> Validation:
        """Read all validation data, (N, C). Raises InputError for NaN and wrong labels."""
        chunks = list(data.validation.chunks())
        logits = torch.cat([chunk.logits for chunk in chunks]).double()
        labels = torch.cat([chunk.labels for chunk in chunks])
        found = fit_temperature(logits, labels)  # also checks
        scale = found if temperature else 1.0
        return cls((logits / scale).softmax(dim=1), labels, scale)

    @property
    def hits(self) -> Tensor:
        """Whether the largest probability is the label's, (N,)."""
        return self.probabilities.argmax(dim=1) == self.labels

    @property
    def accuracy(self) -> float:
        """The share of hits."""
        return float(self.hits.double().mean())

    @property
    def confidence(self) -> float:
        """The mean of the largest probabilities."""
        return float(self.probabilities.amax(dim=1).mean())


def probabilities(features: harness.FeatureSet, temperature: float = 1.0) -> Iterator[Tensor]:
    """Yield softmax(z / T), (n, C) in float64, chunk by chunk. Raises InputError for NaN."""
    for chunk in features.chunks():
        logits = chunk.logits.double()
        if bool(logits.isnan().any()):
            raise harness.InputError("the logits hold NaN, so accuracy cannot be estimated. Repair the model")
        yield (logits / temperature).softmax(dim=1)


def values_of(
    target: harness.Unlabelled, temperature: float, value: Callable[[Tensor], Tensor]
) -> NDArray[np.float64]:
    """Compute one number per image from its probabilities, (N,)."""
    parts = [value(chunk) for chunk in probabilities(target.features, temperature)]
    found: NDArray[np.float64] = torch.cat(parts).double().cpu().numpy()
    return found


def of_mean(
    values: NDArray[np.float64], seed: int, finish: Callable[[NDArray[np.float64]], NDArray[np.float64]]
) -> harness.Estimate:
    """Estimate an accuracy as `finish` of the values' mean, with a 95 % percentile bootstrap interval over images."""
    size = len(values)
    rng = np.random.default_rng(seed)
    means = np.array([values[rng.integers(size, size=size)].mean() for _ in range(REPLICATES)])
    low, high = np.quantile(finish(means), [0.025, 0.975])
    accuracy = float(finish(np.array([values.mean()]))[0])
    return harness.Estimate(accuracy, accuracy, float(low), float(high))


def clipped(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Clip accuracies to 0..1."""
    return np.clip(values, 0.0, 1.0)
