"""Scores of a set's logits that rise with accuracy: the nuclear norm, and MaNo."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

import harness
from harness_plugins.estimators.outputs import probabilities

if TYPE_CHECKING:
    from torch import Tensor

CONFIDENT_FROM = 5.0  # nats; above this mean cross-entropy to the uniform distribution, MaNo uses softmax


@dataclass(frozen=True)
class NuclearNorm:
    """‖P‖_* / √(min(N, C) N) of the probabilities P (N, C) (Deng et al., ICML 2023): confidence in all classes.

    In 0..1. Computed from PᵀP, so that memory does not depend on N; no interval.
    """

    def estimate(self, target: harness.Unlabelled) -> harness.Estimate:
        """Compute the score."""
        gram: Tensor | None = None
        for p in probabilities(target.features):
            gram = p.T @ p if gram is None else gram + p.T @ p
        if gram is None:
            raise harness.InputError("there are no images. Give some")
        norm = torch.linalg.eigvalsh(gram).clamp_min(0).sqrt().sum().item()
        return harness.Estimate(norm / math.sqrt(min(len(target), len(gram)) * len(target)))


@dataclass(frozen=True)
class MaNo:
    """(mean σ⁴)^¼ over all N·C entries of normalised logits σ (Xie et al., NeurIPS 2024, eqs. 3-6).

    σ is softmax if the mean cross-entropy to the uniform distribution is above 5 nats; else, with the row's minimum
    subtracted, 1 + z + z²/2 over its sum. No interval.
    """

    def estimate(self, target: harness.Unlabelled) -> harness.Estimate:
        """Compute the score, in two passes over the logits."""
        uniform = [
            -p.clamp_min(torch.finfo(p.dtype).tiny).log().mean(dim=1) for p in probabilities(target.features)
        ]
        is_confident = float(torch.cat(uniform).mean()) > CONFIDENT_FROM
        total, entries = 0.0, 0
        for chunk in target.features.chunks():
            z = chunk.logits.double()
            normalised = z.softmax(dim=1) if is_confident else _taylor(z)
            total, entries = total + float(normalised.pow(4).sum()), entries + z.numel()
        return harness.Estimate((total / entries) ** 0.25)


def _taylor(z: Tensor) -> Tensor:
    positive = z - z.amin(dim=1, keepdim=True)
    expanded = 1 + positive + positive.square() / 2
    return expanded / expanded.sum(dim=1, keepdim=True)
