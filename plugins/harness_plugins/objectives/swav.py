"""SwAV: each view predicts the other's assignment to prototypes, balanced over the batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import nn

import harness
from harness_plugins.objectives.prototypes import PrototypeViews, check_prototypes, swapped_cross_entropy
from harness_plugins.objectives.views import VIEWS, check_above_zero, check_sizes

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class SwAV:
    """Swapping assignments between views (Caron et al., NeurIPS 2020, arXiv 2006.09882, eq. 1 to 5), two views.

    The loss is ½ [CE(q₁, s₂) + CE(q₂, s₁)] with s = softmax(cosines / temperature) and codes q, without gradient: the
    assignment of a view's batch to prototypes that maximises the cosines plus `epsilon` × its entropy, with equal
    masses for all prototypes. A few steps of Sinkhorn and Knopp's algorithm find it.

    Smaller than the paper's: 64 prototypes for 3,000, and no multi-crop. There is no queue of earlier batches, which
    the paper has for batches smaller than the number of prototypes, and the prototypes learn from the first step.
    """

    views: ClassVar[int] = VIEWS
    temperature: float = 0.1
    epsilon: float = 0.05  # weight of the codes' entropy: lower = sharper codes
    iterations: int = 3  # of Sinkhorn and Knopp
    prototypes: int = 64
    hidden: int = 128  # width of the projection head
    dim: int = 64  # dimension of the projections

    def __post_init__(self) -> None:
        check_above_zero("temperature", self.temperature)
        check_above_zero("epsilon", self.epsilon)
        if not isinstance(self.iterations, int) or self.iterations < 1:
            raise harness.InputError(f"iterations is {self.iterations!r}. Give a whole number of at least 1")
        check_prototypes(self.prototypes)
        check_sizes(self.hidden, self.dim)

    def head(self, num_features: int, num_classes: int) -> nn.Module:
        """Return the identity: the objective trains an encoder."""
        return nn.Identity()

    def around(self, classifier: harness.Classifier, num_features: int) -> nn.Module:
        """Return the encoder with a projector and prototypes."""
        return PrototypeViews(
            classifier, num_features, hidden=self.hidden, dim=self.dim, prototypes=self.prototypes
        )

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of cosines (1, 2, n, K)."""
        cosines = outputs[0]
        codes = [sinkhorn(view, epsilon=self.epsilon, iterations=self.iterations) for view in cosines]
        return swapped_cross_entropy(torch.stack(codes), cosines / self.temperature)


@torch.no_grad()
def sinkhorn(scores: Tensor, *, epsilon: float, iterations: int) -> Tensor:
    """Assign a batch to prototypes in nearly equal shares, (n, K) to (n, K): rows sum to 1, columns to about n / K.

    The rows and columns of exp(scores / epsilon) are scaled in turn, `iterations` times, the rows last. Computed with
    logarithms, so no exponential overflows.
    """
    logs = scores / epsilon
    for _ in range(iterations):
        logs = logs.log_softmax(dim=0)  # equal masses for the prototypes; constants cancel in the next line
        logs = logs.log_softmax(dim=1)
    return logs.exp()
