"""Shared by the flip estimator and the flips score: streams, predictions, weights (Press et al., ICML 2024)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray
    from torch import Tensor

    import harness

    Positions = NDArray[np.int64]

Form = Literal["weighted_quadratic", "linear", "quadratic"]
PUBLISHED: dict[Form, tuple[float, ...]] = {
    "weighted_quadratic": (3.55553868e-4, -0.321445023, 75.6618580),
    "linear": (-0.10318227, 83.55158891),
    "quadratic": (-1.01165493e-5, -0.0959406999, 82.5756446),
}  # of the count at N = 1000, highest power first, in per cent; fitted by the authors on ImageNet models
PUBLISHED_SIZE = 1000


def flip_weights(confidence: Tensor) -> Tensor:
    """Compute rank / N of each initial confidence, (N,), ascending, ties averaged. The sum is (N + 1)/2."""
    from scipy.stats import rankdata

    ranks = rankdata(confidence.double().cpu().numpy())
    return torch.from_numpy(ranks / len(ranks)).to(confidence.device)


def published_accuracy(count: float, form: Form) -> float:
    """Evaluate the authors' polynomial at a count of flips among 1,000, weighted or not: accuracy in 0..1.

    The weighted one rises again above 452 of at most 500.5, so it gives at least 0.0301.
    """
    return float(np.clip(np.polyval(PUBLISHED[form], count) / 100, 0, 1))


def shuffled_batches(positions: Positions, batch_size: int, steps: int, seed: int) -> Iterator[Positions]:
    """Yield `steps` full batches of the positions, shuffled again by the seed if too few are left."""
    rng = np.random.default_rng(seed)
    left: Positions = np.zeros(0, dtype=np.int64)
    for _ in range(steps):
        if len(left) < batch_size:
            left = rng.permutation(positions)
        yield left[:batch_size]
        left = left[batch_size:]


def predict(
    classifier: harness.Classifier, target: harness.Unlabelled, positions: Positions, batch_size: int
) -> Tensor:
    """Forward images in fixed batches without learning: logits (n, C) in float64.

    A remainder joins the last batch, because BatchNorm cannot normalise a batch of one image.
    """
    cuts = range(batch_size, len(positions) - batch_size + 1, batch_size)
    with torch.no_grad():
        parts = [
            classifier.forward_head(classifier.forward_features(target.batch(part)))
            for part in np.split(positions, cuts)
        ]
    return torch.cat(parts).double()
