"""Entropy and reconstruction, ER (Rodríguez-Gálvez et al., ICML 2023): a bound on two views' mutual information."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from torch import nn
from torch.nn import functional

import harness
from harness_plugins.objectives.prototypes import PrototypeViews, check_prototypes, swapped_cross_entropy
from harness_plugins.objectives.views import VIEWS, TwoViews, check_above_zero, check_ema, check_sizes
from harness_plugins.probes.er import (
    REDUCTIONS,
    entropy_of_probabilities,
    entropy_of_units,
    reconstruction_of_probabilities,
    reconstruction_of_units,
)

if TYPE_CHECKING:
    from torch import Tensor

SUPPORTS = ("sphere", "discrete")


@dataclass(frozen=True)
class EntropyReconstruction:
    """Reconstruction minus entropy: -ER of I(Z₁; Z₂) ≥ H(Z₂) + E[ln q(Z₂ | Z₁)] (eq. 2), symmetric in the views.

    On the sphere, projections are unit vectors: their entropy is that of a von Mises-Fisher kernel density over each
    view's n rows, and q a von Mises-Fisher density of concentration `kappa` around the other view. On a discrete
    support they are class probabilities s = softmax(projection / temperature), `dim` classes; with `prototypes`, of the
    projection's cosines with so many learnt directions. The entropy is that of their mean over the batch.

    With `ema`, the student reconstructs the projections of a teacher, without gradient through them.

    With `target_temperature`, on a discrete support, the reconstruction is that of DINO, SwAV and DeepCluster:
    ½ [CE(t₁, s₂) + CE(t₂, s₁)], where t = softmax(target / target_temperature) of the teacher, or without one of the
    student, has no gradient. The entropy of the student's mean is in the place of centring, of Sinkhorn's algorithm and
    of balanced clusters; that of a teacher's would have no gradient. Without it, both views reconstruct each other.
    """

    views: ClassVar[int] = VIEWS
    support: str = "sphere"
    kappa: float = 10.0
    reduction: Literal["expectation", "average"] = "expectation"  # as in the probe vmf_entropy
    temperature: float = 1.0
    target_temperature: float | None = None
    prototypes: int | None = None
    ema: float | None = None
    hidden: int = 128  # width of the projection head
    dim: int = 64  # dimension of the projections, or the number of classes

    def __post_init__(self) -> None:
        for name, value, valid in (
            ("support", self.support, SUPPORTS),
            ("reduction", self.reduction, REDUCTIONS),
        ):
            if value not in valid:
                raise harness.unknown_name(name, str(value), valid, valid_label="Valid")
        check_above_zero("kappa", self.kappa)
        check_above_zero("temperature", self.temperature)
        if self.target_temperature is not None:
            check_above_zero("target_temperature", self.target_temperature)
        if self.prototypes is not None:
            check_prototypes(self.prototypes)
        for name in ("target_temperature", "prototypes"):
            if self.support == "sphere" and getattr(self, name) is not None:
                raise harness.InputError(
                    f'{name} is for support = "discrete". Leave it out, or set the support'
                )
        check_ema(self.ema)
        check_sizes(self.hidden, self.dim)

    def head(self, num_features: int, num_classes: int) -> nn.Module:
        """Return the identity: the objective trains an encoder."""
        return nn.Identity()

    def around(self, classifier: harness.Classifier, num_features: int) -> nn.Module:
        """Return the encoder with a projector, with prototypes and with a teacher if these are given."""
        if self.prototypes is not None:
            return PrototypeViews(
                classifier,
                num_features,
                hidden=self.hidden,
                dim=self.dim,
                prototypes=self.prototypes,
                ema=self.ema,
            )
        return TwoViews(classifier, num_features, hidden=self.hidden, dim=self.dim, ema=self.ema)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of the student's and the teacher's projections, (1, 2, n, d) or (2, 2, n, d)."""
        outputs = outputs if outputs.dtype == torch.float64 else outputs.float()
        if self.target_temperature is not None:
            reconstruction = swapped_cross_entropy(
                (outputs[-1] / self.target_temperature).softmax(dim=-1), outputs[0] / self.temperature
            )
            return reconstruction - self._mean_entropy(self._points(outputs[0]))
        points = self._points(outputs)
        return self._mutual_reconstruction(points) - self._mean_entropy(points[0])

    def _mutual_reconstruction(self, points: Tensor) -> Tensor:
        (first, second), (first_target, second_target) = points[0], points[-1]
        if self.ema is None:
            return self._reconstruction(first, second)
        there, back = (
            self._reconstruction(first, second_target),
            self._reconstruction(second, first_target),
        )
        return (there + back) / 2

    def _mean_entropy(self, points: Tensor) -> Tensor:
        first, second = points
        return (self._entropy(first) + self._entropy(second)) / 2

    def _points(self, outputs: Tensor) -> Tensor:
        if self.support == "sphere":
            return functional.normalize(outputs, dim=-1)
        return (outputs / self.temperature).softmax(dim=-1)

    def _entropy(self, points: Tensor) -> Tensor:
        if self.support == "sphere":
            return entropy_of_units(points, kappa=self.kappa, reduction=self.reduction)
        return entropy_of_probabilities(points, reduction=self.reduction)

    def _reconstruction(self, first: Tensor, second: Tensor) -> Tensor:
        if self.support == "sphere":
            return reconstruction_of_units(first, second, kappa=self.kappa)
        return reconstruction_of_probabilities(first, second)
