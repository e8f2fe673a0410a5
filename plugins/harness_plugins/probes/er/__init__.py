"""Entropy and reconstruction, the two terms of the ER bound on mutual information, in nats.

Rodríguez-Gálvez et al., "The Role of Entropy and Reconstruction in Multi-View Self-Supervised Learning", ICML 2023. On
the sphere, densities are mixtures of von Mises-Fisher kernels, f(z; μ) = exp(κ μ·z - C), with the normaliser
C = -(d/2-1) ln κ + (d/2) ln 2π + ln I_{d/2-1}(κ). The authors' code has ln(I + 1e-7) there; in many dimensions only
the 1e-7 remains. `published_floor` does the same, to reproduce their numbers.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal

import torch
from scipy.special import iv
from torch.autograd.function import once_differentiable
from torch.nn import functional

import harness
from harness_plugins.probes.bessel import log_bessel

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    Reduction = Literal["expectation", "average"]

REDUCTIONS = ("expectation", "average")
TILE = 1024  # rows and columns of the kernel matrix that are in memory at once
FLOOR = 1e-7  # the authors' floor of Bessel functions and probabilities
# By dtype: the tolerance of squared norms and sums of probabilities around 1, and the largest κ.
_OFF_ONE = {torch.float64: 1e-6, torch.float16: 1e-2, torch.bfloat16: 4e-2}
_OFF_ONE_ELSE = 1e-3
_MOST_KAPPA = {torch.float64: 1e8}
_MOST_KAPPA_ELSE = 5e4


def vmf_entropy(
    z: Tensor, *, kappa: float = 10.0, reduction: Reduction = "expectation", published_floor: bool = False
) -> Tensor:
    """Estimate the differential entropy of unit vectors z (N, d) by a von Mises-Fisher kernel density, in nats.

    ln p_i = ln Σ_j exp(κ z_i·z_j) - C - ln N, including j = i. "average" is -mean ln p_i (Joe); "expectation"
    is the plug-in estimate -Σ w_i ln p_i, with w the softmax of ln p (Section 4.1). Higher = more spread.

    Differentiable, with memory linear in N: kernel values are computed tile by tile, forward and backward.

    Args:
        z: unit vectors, at least two-dimensional; half precision is normalised again in float32.
        kappa: concentration of the kernel, above 0.
        reduction: "expectation" or "average".
        published_floor: use the authors' normaliser instead of the exact one.

    Raises InputError for no vectors, vectors that are not finite or not of length 1, and κ ≤ 0.

    """
    _require_reduction(reduction)
    return entropy_of_units(
        _units(z, kappa), kappa=kappa, reduction=reduction, published_floor=published_floor
    )


def entropy_of_units(
    z: Tensor, *, kappa: float, reduction: Reduction, published_floor: bool = False
) -> Tensor:
    """Compute vmf_entropy of z (N, d), float32 or float64, without checking that these are unit vectors."""
    normaliser = log_normaliser(z.shape[1], kappa, published_floor=published_floor)
    with torch.autocast(z.device.type, enabled=False):
        sums: Tensor = _LogKernelSums.apply(z, kappa)
    log_density = sums - normaliser - math.log(len(z))  # (N,) float64
    if reduction == "average":
        return -log_density.mean().to(z.dtype)
    return -(log_density.softmax(dim=0) * log_density).sum().to(z.dtype)


def vmf_reconstruction(
    z1: Tensor, z2: Tensor, *, kappa: float = 10.0, published_floor: bool = False
) -> Tensor:
    """Compute the mean of -ln f(z1; z2) = C - κ z1·z2 over pairs of unit vectors (N, d), in nats; lower = closer."""
    if z1.shape != z2.shape:
        raise harness.InputError(f"views have shapes {tuple(z1.shape)} and {tuple(z2.shape)}. Give one shape")
    return reconstruction_of_units(
        _units(z1, kappa), _units(z2, kappa), kappa=kappa, published_floor=published_floor
    )


def reconstruction_of_units(z1: Tensor, z2: Tensor, *, kappa: float, published_floor: bool = False) -> Tensor:
    """Compute vmf_reconstruction of z1, z2 (N, d) without checking that these are unit vectors."""
    normaliser = log_normaliser(z1.shape[1], kappa, published_floor=published_floor)
    return normaliser - kappa * (z1 * z2).sum(dim=1).mean()


def discrete_entropy(p: Tensor, *, reduction: Reduction = "expectation") -> Tensor:
    """Compute the entropy of the mean m of class probabilities p (N, C), in nats.

    "expectation" is -Σ_c m_c ln(m_c + 1e-7), "average" -mean_c ln(m_c + 1e-7). Raises InputError for invalid
    probabilities.
    """
    _require_reduction(reduction)
    return entropy_of_probabilities(_probabilities(p), reduction=reduction)


def entropy_of_probabilities(p: Tensor, *, reduction: Reduction) -> Tensor:
    """Compute discrete_entropy of p (N, C) without checking that these are probabilities."""
    mean = p.mean(dim=0)
    logs = (mean + FLOOR).log()
    return -logs.mean() if reduction == "average" else -(mean * logs).sum()


def discrete_reconstruction(p1: Tensor, p2: Tensor) -> Tensor:
    """Compute the mean of ½ [CE(p1, p2) + CE(p2, p1)] over pairs of class probabilities (N, C), in nats."""
    if p1.shape != p2.shape:
        raise harness.InputError(f"views have shapes {tuple(p1.shape)} and {tuple(p2.shape)}. Give one shape")
    return reconstruction_of_probabilities(_probabilities(p1), _probabilities(p2))


def reconstruction_of_probabilities(p1: Tensor, p2: Tensor) -> Tensor:
    """Compute discrete_reconstruction of p1, p2 (N, C) without checking that these are probabilities."""
    crossed = p1 * (p2 + FLOOR).log() + p2 * (p1 + FLOOR).log()
    return -crossed.sum(dim=1).mean() / 2


def log_normaliser(dimension: int, kappa: float, *, published_floor: bool = False) -> float:
    """Compute C = -(d/2-1) ln κ + (d/2) ln 2π + ln I_{d/2-1}(κ), so that exp(κ μ·z - C) is a density on the sphere."""
    order = dimension / 2 - 1
    if published_floor:
        bessel = float(iv(order, kappa))
        if not math.isfinite(bessel):
            raise harness.InputError(f"I({order}, {kappa}) overflows under published_floor. Leave it off")
        log_of_bessel = math.log(bessel + FLOOR)
    else:
        log_of_bessel = log_bessel(order, kappa)
    return -order * math.log(kappa) + dimension / 2 * math.log(2 * math.pi) + log_of_bessel


class _LogKernelSums(torch.autograd.Function):
    """ln Σ_j exp(κ z_i·z_j) of unit vectors (N, d) -> (N,) float64.

    The kernel is symmetric and at most exp(κ), so each tile above the diagonal is used twice and no maximum is needed.
    With E_ij = exp(κ (z_i·z_j - 1)), s_i = Σ_j E_ij and g the gradient of the result, the gradient of z_i is
    κ Σ_j E_ij (g_i/s_i + g_j/s_j) z_j.
    """

    @staticmethod
    def forward(ctx: Any, z: Tensor, kappa: float) -> Tensor:
        sums = z.new_zeros(len(z), dtype=torch.float64)
        for rows, columns in _upper_tiles(len(z)):
            tile = _tile(z, rows, columns, kappa)
            sums[rows] += tile.sum(dim=1)
            if rows != columns:
                sums[columns] += tile.sum(dim=0)
        ctx.save_for_backward(z, sums)
        ctx.kappa = kappa
        return sums.log() + kappa

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        z, sums = ctx.saved_tensors
        weights = (gradient / sums).to(z.dtype)  # (N,)
        of_z = torch.zeros_like(z)
        with torch.autocast(z.device.type, enabled=False):  # backward may run inside one
            for rows, columns in _upper_tiles(len(z)):
                tile = _tile(z, rows, columns, ctx.kappa)
                tile.mul_(weights[rows, None] + weights[columns])
                of_z[rows].addmm_(tile, z[columns])
                if rows != columns:
                    of_z[columns].addmm_(tile.T, z[rows])
        return of_z.mul_(ctx.kappa), None


def _upper_tiles(count: int) -> Iterator[tuple[slice, slice]]:
    parts = [slice(start, min(start + TILE, count)) for start in range(0, count, TILE)]
    return ((rows, columns) for number, rows in enumerate(parts) for columns in parts[number:])


def _tile(z: Tensor, rows: slice, columns: slice, kappa: float) -> Tensor:
    """Compute E = exp(κ (z_i·z_j - 1)) for some rows and columns."""
    return (z[rows] @ z[columns].T).sub_(1).mul_(kappa).exp_()


def _units(z: Tensor, kappa: float) -> Tensor:
    """Return unit vectors (N, d) in float32 or float64; raise InputError for anything else, and for κ out of range."""
    most = _MOST_KAPPA.get(z.dtype, _MOST_KAPPA_ELSE)
    if not 0 < kappa <= most:
        raise harness.InputError(f"kappa is {kappa}. Give a number above 0, up to {most:.0e} for {z.dtype}")
    if z.ndim != 2 or not len(z) or z.shape[1] < 2:
        raise harness.InputError(f"vectors have shape {tuple(z.shape)}. Give (N, d) with N ≥ 1 and d ≥ 2")
    full = z if z.dtype == torch.float64 else z.float()
    lengths = full.detach().square().sum(dim=1)
    off = (lengths - 1).abs()
    if not bool((off <= _OFF_ONE.get(z.dtype, _OFF_ONE_ELSE)).all()):  # NaN fails as well
        worst = int(off.nan_to_num(nan=math.inf).argmax())
        raise harness.InputError(
            f"vector {worst} has length {lengths[worst].sqrt().item():.4g}, not 1. "
            "Divide by it: torch.nn.functional.normalize"
        )
    return functional.normalize(full) if z.dtype in (torch.float16, torch.bfloat16) else full


def _probabilities(p: Tensor) -> Tensor:
    """Return class probabilities (N, C), in float32 at least; raise InputError for anything else."""
    if p.ndim != 2 or not p.numel():
        raise harness.InputError(f"probabilities have shape {tuple(p.shape)}. Give (N, C) with N ≥ 1")
    full = p if p.dtype == torch.float64 else p.float()
    known = full.detach()
    off = (known.sum(dim=1) - 1).abs()
    if not bool((known >= 0).all() & (off <= _OFF_ONE.get(p.dtype, _OFF_ONE_ELSE)).all()):
        low, totals = known.min().item(), known.sum(dim=1)
        raise harness.InputError(
            f"probabilities go down to {low:.4g}, rows sum to {totals.min().item():.4g} to {totals.max().item():.4g}. "
            "Give softmax outputs"
        )
    return full


def _require_reduction(reduction: str) -> None:
    if reduction not in REDUCTIONS:
        raise harness.unknown_name("reduction", reduction, REDUCTIONS, valid_label="Valid")
