"""LAME (Boudiaf et al., CVPR 2022): makes a batch's probabilities alike for neighbours, and changes no weight."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

import harness
from harness_plugins.adapters.layers import forward
from harness_plugins.adapters.tent import require_whole

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from torch import Tensor


@dataclass(frozen=True)
class Lame:
    """Minimise Σ_i KL(z_i ‖ p_i) - ½ Σ_ij k_ij z_iᵀ z_j over the predictions z of a batch, by a bound.

    p is the model's prediction, k the affinity of unit-normalised penultimate features. In a batch of
    one image, the prediction only becomes more confident. Computed in float64.
    """

    neighbours: int = 5  # k: the width of the affinity is the mean distance to the k-th nearest image
    iterations: int = 100  # of the bound, at most
    tolerance: float = 1e-8  # relative change of the bound at which iteration ends

    def __post_init__(self) -> None:
        require_whole("neighbours", self.neighbours)
        require_whole("iterations", self.iterations)
        if not 0 <= self.tolerance < math.inf:
            raise harness.InputError(f"tolerance is {self.tolerance}. Give a number of at least 0")

    def adapt(self, classifier: harness.Classifier, batches: Iterable[Tensor]) -> Iterator[harness.Adapted]:
        """Forward each batch once; the logits afterwards are ln z."""
        for images in batches:
            with torch.no_grad():
                before = forward(classifier, images)
                kernel = affinity(before.penultimate, self.neighbours)
                log_z = propagate(before.logits, kernel, iterations=self.iterations, tolerance=self.tolerance)
            logits = log_z.to(before.logits.dtype)
            after = harness.Features(logits=logits, penultimate=before.penultimate)
            yield harness.Adapted(before, after, scored="after", forwards=len(images))


def affinity(features: Tensor, neighbours: int) -> Tensor:
    """Compute exp(-d²/2σ²) of unit-normalised features, (n, D) -> (n, n), 1 on the diagonal.

    σ is the mean distance to the `neighbours`-th nearest neighbour; each feature is its own first neighbour. If σ is 0,
    equal features have an affinity of 1 and others 0.
    """
    units = functional.normalize(features.double(), dim=1)
    # by differences: the faster way by products gives equal rows a distance above 0
    distances = torch.cdist(units, units, compute_mode="donot_use_mm_for_euclid_dist")
    width = distances.kthvalue(min(neighbours, len(units)), dim=1).values.mean()
    return torch.where(distances == 0, 1.0, (-0.5 * (distances / width).square()).exp())


def propagate(logits: Tensor, kernel: Tensor, *, iterations: int, tolerance: float) -> Tensor:
    """Iterate z ← softmax(ln p + K z) from p = softmax(logits), (n, C), and return ln z.

    Stops when the bound's energy Σ z (ln z - ln p - K z_old), which is -Σ ln Σ exp(ln p + K z_old), changes by no more
    than `tolerance`, relative.
    """
    log_p = logits.double().log_softmax(dim=1)
    log_z, energy = log_p, None
    for _ in range(iterations):
        scores = log_p + kernel @ log_z.exp()
        log_z = scores.log_softmax(dim=1)
        previous, energy = energy, -scores.logsumexp(dim=1).sum().item()
        if previous is not None and abs(energy - previous) <= tolerance * abs(previous):
            break
    return log_z
