"""Shared functions of fitted scorers: unit vectors, distances, Gaussian kernels, and sums over batches."""

from __future__ import annotations

import operator
from functools import reduce
from typing import TYPE_CHECKING

import harness

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor


def unit_vectors(features: Tensor) -> Tensor:
    """Divide vectors by their Euclidean norms, (..., D) -> (..., D) float64; a zero vector stays zero.

    Raises InputError for vectors that hold NaN or infinity, which have no direction.
    """
    import torch

    features = features.double()
    norms = torch.linalg.vector_norm(features, dim=-1, keepdim=True)  # (..., 1)
    if not bool(norms.isfinite().all()):
        broken = int((~norms.isfinite()).sum())
        raise harness.InputError(
            f"{broken} of {norms.numel()} features hold NaN or infinity and have no direction. Remove them"
        )
    return torch.div(features, norms.where(norms > 0, 1.0))


def squared_distances(left: Tensor, right: Tensor) -> Tensor:
    """Compute squared Euclidean distances by one product, (N, D), (M, D) -> (N, M)."""
    sizes = left.square().sum(dim=1)[:, None] + right.square().sum(dim=1)  # (N, M)
    return sizes.addmm_(left, right.T, alpha=-2).clamp_(min=0)


def gaussian(left: Tensor, right: Tensor, sigma: float) -> Tensor:
    """Compute G = exp(-‖x - y‖² / 2σ²), (N, D), (M, D) -> (N, M)."""
    return squared_distances(left, right).mul_(-0.5 / sigma**2).exp_()


def scatter_matrix(batches: Iterable[Tensor]) -> Tensor:
    """Add up xᵀx over all rows x, batches of (n, D) -> (D, D)."""
    return add_up(batch.T @ batch for batch in batches)


def add_up(terms: Iterable[Tensor]) -> Tensor:
    """Add tensors of one shape; only the sum and one of them are in memory at a time."""
    return reduce(operator.add, terms)
