"""DINO: self-distillation without labels, by a sharpened and centred teacher."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import nn

import harness
from harness_plugins.objectives.prototypes import PrototypeViews, check_prototypes, swapped_cross_entropy
from harness_plugins.objectives.views import VIEWS, check_above_zero, check_ema, check_sizes

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class DINO:
    """DINO (Caron et al., ICCV 2021, arXiv 2104.14294, eq. 2 and algorithm 1) on two views, without multi-crop.

    The loss is ½ [CE(t₁, s₂) + CE(t₂, s₁)] with s = softmax(cosines / temperature) of the student and
    t = softmax((cosines - centre) / teacher_temperature) of the EMA teacher, without gradient. The centre is a moving
    average of the teacher's mean over the batch, c <- m c + (1 - m) mean (eq. 4). It keeps all images from falling
    into one prototype, and the low temperature keeps them from spreading evenly over all. As in the paper, the last
    layer is that of normalised vectors and weights.

    Smaller than the paper's: 64 prototypes for 65,536. `ema` is constant; there it rises from 0.996 to 1.
    """

    views: ClassVar[int] = VIEWS
    temperature: float = 0.1  # of the student
    teacher_temperature: float = 0.04
    center_momentum: float = 0.9  # m
    ema: float = 0.99
    prototypes: int = 64
    hidden: int = 128  # width of the projection head
    dim: int = 64  # dimension of the projections

    def __post_init__(self) -> None:
        check_above_zero("temperature", self.temperature)
        check_above_zero("teacher_temperature", self.teacher_temperature)
        if not 0 <= self.center_momentum <= 1:
            raise harness.InputError(f"center_momentum is {self.center_momentum}. Give a share from 0 to 1")
        check_ema(self.ema)
        check_prototypes(self.prototypes)
        check_sizes(self.hidden, self.dim)

    def head(self, num_features: int, num_classes: int) -> nn.Module:
        """Return the identity: the objective trains an encoder."""
        return nn.Identity()

    def around(self, classifier: harness.Classifier, num_features: int) -> nn.Module:
        """Return the encoder with a projector, prototypes, a teacher and the centre."""
        return CentredViews(
            classifier,
            num_features,
            momentum=self.center_momentum,
            hidden=self.hidden,
            dim=self.dim,
            prototypes=self.prototypes,
            ema=self.ema,
        )

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of the student's and the centred teacher's cosines (2, 2, n, K)."""
        student, teacher = outputs
        return swapped_cross_entropy(
            (teacher / self.teacher_temperature).softmax(dim=-1), student / self.temperature
        )


class CentredViews(PrototypeViews):
    """PrototypeViews whose teacher's cosines are centred: images (2n, channels, H, W) to (2, 2, n, K)."""

    def __init__(
        self,
        encoder: harness.Classifier,
        num_features: int,
        *,
        momentum: float,
        prototypes: int,
        **sizes: Any,
    ) -> None:
        super().__init__(encoder, num_features, prototypes=prototypes, **sizes)
        self.momentum = momentum
        self.centre: Tensor
        self.register_buffer("centre", torch.zeros(prototypes))
        self._mean: Tensor | None = None  # of the teacher over the last batch

    def forward(self, images: Tensor) -> Tensor:
        """Subtract the centre of earlier batches from the teacher's cosines."""
        student, teacher = super().forward(images).float()
        if self.training:
            self._mean = teacher.detach().mean(dim=(0, 1))
        return torch.stack([student, teacher - self.centre])

    @torch.no_grad()
    def after_step(self) -> None:
        """Move the teacher towards the student, and the centre towards the last batch's mean."""
        super().after_step()
        if self._mean is not None:
            self.centre.lerp_(self._mean, 1 - self.momentum)
