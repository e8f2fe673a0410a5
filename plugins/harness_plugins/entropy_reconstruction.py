"""The two functions of the ER authors' code, with its signatures: `entropy` and `reconstruction`, in nats.

A loop that has `from entropy_reconstruction import entropy, reconstruction` changes this one line (Rodríguez-Gálvez et
al., ICML 2023). They are the functions of `harness_plugins.probes.er` under other names.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import torch

import harness
from harness_plugins.probes.er import (
    discrete_entropy,
    discrete_reconstruction,
    vmf_entropy,
    vmf_reconstruction,
)

if TYPE_CHECKING:
    from torch import Tensor

    Support = Literal["sphere", "discrete"]
    Reduction = Literal["expectation", "average"]

__all__ = ["entropy", "reconstruction"]

SUPPORTS = ("sphere", "discrete")


def entropy(
    embeddings: Tensor,
    kappa: float = 10,
    support: Support = "sphere",
    reduction: Reduction = "expectation",
    *,
    published_floor: bool = False,
) -> Tensor:
    """Estimate the entropy of a batch of embeddings (N, d), in nats; higher = more spread. Differentiable.

    On the sphere it is that of a von Mises-Fisher kernel density (Section 4.1), `vmf_entropy`. On the discrete support
    it is that of the mean of N class probabilities, `discrete_entropy`.

    Args:
        embeddings: unit vectors, or on the discrete support rows of probabilities.
        kappa: concentration of the kernel, above 0; not used on the discrete support.
        support: "sphere" or "discrete".
        reduction: "expectation" for the plug-in estimate, "average" for Joe's.
        published_floor: the normaliser of the authors' code, which is wrong in many dimensions; without it, the exact
            one. Without effect on the discrete support, where probabilities have the authors' floor of 1e-7.

    Raises InputError for an unknown name, κ ≤ 0, and rows that are no unit vectors or no probabilities.

    """
    _require(embeddings=embeddings, kappa=kappa, support=support)
    if support == "discrete":
        return discrete_entropy(embeddings, reduction=reduction)
    return vmf_entropy(embeddings, kappa=kappa, reduction=reduction, published_floor=published_floor)


def reconstruction(
    projection1: Tensor,
    projection2: Tensor,
    kappa: float = 10,
    support: Support = "sphere",
    *,
    published_floor: bool = False,
) -> Tensor:
    """Compute the reconstruction error of two views' projections (N, d), in nats; lower = closer. Differentiable.

    On the sphere it is the mean of -ln f(z1; z2) under a von Mises-Fisher density, `vmf_reconstruction`. On the
    discrete support it is the mean of both cross-entropies, `discrete_reconstruction`.

    Args:
        projection1: unit vectors of the first view, or on the discrete support rows of probabilities.
        projection2: those of the second view, in the same order.
        kappa: concentration of the density, above 0; not used on the discrete support.
        support: "sphere" or "discrete".
        published_floor: as in `entropy`.

    Raises InputError as `entropy`, and for views of different shapes.

    """
    _require(projection1=projection1, projection2=projection2, kappa=kappa, support=support)
    if support == "discrete":
        return discrete_reconstruction(projection1, projection2)
    return vmf_reconstruction(projection1, projection2, kappa=kappa, published_floor=published_floor)


def _require(*, kappa: float, support: str, **tensors: Tensor) -> None:
    for name, given in tensors.items():
        if not isinstance(given, torch.Tensor):
            raise harness.InputError(
                f"{name} is a {type(given).__name__}. Give a torch.Tensor: torch.as_tensor"
            )
    if support not in SUPPORTS:
        raise harness.unknown_name("support", str(support), SUPPORTS, valid_label="Valid")
    if isinstance(kappa, bool) or not isinstance(kappa, int | float) or not 0 < kappa < math.inf:
        raise harness.InputError(f"kappa is {kappa!r}. Give a number above 0")
