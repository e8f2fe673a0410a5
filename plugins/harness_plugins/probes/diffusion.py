"""Diffusion spectral entropy and mutual information (Liao et al., arXiv 2312.04823), in bits.

The definitions follow the authors' published code. Its Chebyshev approximation, which is off by half, and its cache of
eigenvalues, which rounds to float16 and ignores new input, are replaced by spectrum.py.
"""

from __future__ import annotations

import itertools
import math
import random
from typing import TYPE_CHECKING

import numpy as np
import torch

import harness
from harness_plugins.probes import spectrum
from harness_plugins.probes.clouds import CLUSTERS, classes_of, cloud_of, require_parameters, resolve_width
from harness_plugins.probes.spectrum import EXACT_ROWS, Estimate

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from torch import Tensor

    from harness_plugins.probes.clouds import Array, Width

REPETITIONS = 5  # random subsets of each class's size
TOLERANCE = 5e-4  # relative standard error of an estimate
EPS = float(np.finfo(float).eps)  # added to every probability


def diffusion_spectral_entropy(
    x: Array,
    *,
    sigma: Width = 10.0,
    t: float = 1,
    alpha: float = 0.0,
    size: int | None = None,
    seed: int = 0,
    exact_rows: int = EXACT_ROWS,
) -> float:
    """Compute the entropy of a point cloud's diffusion spectrum, x (N, D), from 0 to log2 N bits.

    DSE = -Σ q log2 q with q = |λ|^t / Σ |λ|^t + 2.2e-16, λ the eigenvalues of K = D^-½ G D^-½ and G the Gaussian
    kernel of width σ (equations 1 to 4). Above `exact_rows` it is estimated; estimate_entropy also returns the error.

    Args:
        x: points, one per row. Computed in float64, on the device of a tensor.
        sigma: the width: a number, or the median distance: of pairs ("median") or to 10th neighbours ("neighbour").
        t: diffusion time, above 0.
        alpha: exponent of the density normalisation; 0 is the reference, 1 removes the sampling density.
        size: maximum number of rows, drawn with Python's random.Random(seed) as by the authors.
        seed: for that draw, and for the estimate's random vectors.
        exact_rows: up to this number all eigenvalues are computed.

    Raises InputError for no points, points that are not finite or not (N, D), σ ≤ 0, t ≤ 0, α < 0, and a data-driven
    width of 0.

    """
    return estimate_entropy(
        x, sigma=sigma, t=t, alpha=alpha, size=size, seed=seed, exact_rows=exact_rows
    ).value


def estimate_entropy(
    x: Array,
    *,
    sigma: Width = 10.0,
    t: float = 1,
    alpha: float = 0.0,
    size: int | None = None,
    seed: int = 0,
    exact_rows: int = EXACT_ROWS,
    tolerance: float = TOLERANCE,
    memory: int = spectrum.MEMORY,
) -> Estimate:
    """Compute diffusion_spectral_entropy and its standard error, None if it is exact.

    Above `exact_rows`, stochastic Lanczos quadrature adds random vectors until the standard errors are `tolerance`
    times the sums. A matrix of more than `memory` bytes is recomputed block by block for every product.
    """
    points = cloud_of(x)
    require_parameters(sigma=sigma, t=t, alpha=alpha)
    if size is not None and (not isinstance(size, int) or size < 1):
        raise harness.InputError(f"size is {size}. Give a whole number of at least 1")
    if size is not None and size < len(points):
        points = points[random.Random(seed).sample(range(len(points)), size)]
    width = resolve_width(points, sigma)
    if len(points) <= exact_rows:
        matrix = spectrum.diffusion_matrix(points, sigma=width, alpha=alpha)
        return Estimate(spectral_entropy(torch.linalg.eigvalsh(matrix), t=t))
    if t < 1:  # |λ|^t is too steep at 0 for a quadrature, and for a matrix in float32
        raise harness.InputError(
            f"t is {t}, below 1, and {len(points)} rows are too many for it. Give size={exact_rows}, or t of 1 or more"
        )
    operator = spectrum.Operator.of(points, sigma=width, alpha=alpha, memory=memory)
    return _estimated(operator, t=t, seed=seed, tolerance=tolerance)


def spectral_entropy(values: Tensor, *, t: float = 1) -> float:
    """Compute -Σ q log2 q of q = |λ|^t / Σ |λ|^t + 2.2e-16, λ (N,)."""
    return spectral_entropies(values, t=t).item()


def spectral_entropies(values: Tensor, *, t: float = 1) -> Tensor:
    """Compute spectral_entropy of many spectra, (..., N) -> (...)."""
    sizes = values.abs()
    return _bits((sizes / sizes.amax(dim=-1, keepdim=True)).pow(t))  # at most 1, so powers cannot overflow


def bits(masses: Tensor) -> float:
    """Compute -Σ q log2 q of q = masses / Σ masses + 2.2e-16, (N,); exactly 0 for one mass."""
    return _bits(masses).item()


def _bits(masses: Tensor) -> Tensor:
    shares = masses / masses.sum(dim=-1, keepdim=True)
    return (-torch.xlogy(shares + EPS, shares + EPS).sum(dim=-1) / math.log(2)).clamp(min=0)


def diffusion_spectral_mutual_information(
    z: Array,
    y: Array,
    *,
    sigma: Width = 10.0,
    t: float = 1,
    seed: int = 0,
    clusters: int = CLUSTERS,
    repetitions: int = REPETITIONS,
    exact_rows: int = EXACT_ROWS,
) -> float:
    """Compute DSMI(Z; Y) = Σ_c n_c/N [mean of 5 random subsets' DSE - DSE of class c], in bits (equation 6).

    The subsets have the class's size and are drawn as by the authors, with a new random.Random(seed) for each class.
    The result can be slightly below 0; it is exactly 0 for labels of one class.

    Args:
        z: representations, (N, D).
        y: whole numbers (N,), the classes; other numbers (N,), which are scaled to 0..1 and cut into `clusters` bins;
            or vectors (N, D'), which are clustered as in clouds.input_clusters.
        sigma: as in diffusion_spectral_entropy; a data-driven width is computed from all of z.
        t: diffusion time.
        seed: for the subsets.
        clusters: number of bins or clusters, if y is not classes.
        repetitions: number of random subsets of each class's size.
        exact_rows: up to this number all eigenvalues are computed.

    Raises InputError as diffusion_spectral_entropy does, for y of another length, and for less than one subset.

    """
    return estimate_information(
        z, y, sigma=sigma, t=t, seed=seed, clusters=clusters, repetitions=repetitions, exact_rows=exact_rows
    ).value


def estimate_information(
    z: Array,
    y: Array,
    *,
    sigma: Width = 10.0,
    t: float = 1,
    seed: int = 0,
    clusters: int = CLUSTERS,
    repetitions: int = REPETITIONS,
    exact_rows: int = EXACT_ROWS,
) -> Estimate:
    """Compute diffusion_spectral_mutual_information and its standard error, None if it is exact.

    The error comes from classes and subsets above `exact_rows`, whose entropies are estimated.
    """
    points = cloud_of(z)
    require_parameters(sigma=sigma, t=t)
    width = resolve_width(points, sigma)
    classes = classes_of(y, len(points), clusters)
    if len(points) > exact_rows:
        seeds = itertools.count(seed)  # a new one each, so that errors are independent
        return mutual_information(
            lambda rows: estimate_entropy(
                points[rows], sigma=width, t=t, seed=next(seeds), exact_rows=exact_rows
            ),
            classes,
            seed=seed,
            repetitions=repetitions,
        )
    kernel = spectrum.kernel_matrix(points, sigma=width)

    def entropy(rows: Tensor) -> Estimate:
        chosen = rows.to(kernel.device)
        block = kernel[chosen[:, None], chosen]
        scale = block.sum(dim=1).rsqrt()
        return Estimate(spectral_entropy(torch.linalg.eigvalsh(block.mul_(scale[:, None]).mul_(scale)), t=t))

    return mutual_information(entropy, classes, seed=seed, repetitions=repetitions)


def mutual_information(
    entropy: Callable[[Tensor], Estimate],
    classes: NDArray[np.int64],
    *,
    seed: int = 0,
    repetitions: int = REPETITIONS,
) -> Estimate:
    """Compute Σ_c n_c/N [mean entropy of `repetitions` random subsets of size n_c - entropy of class c].

    `entropy` takes positions of rows (n,). classic.py uses it with other entropies.
    """
    if not isinstance(repetitions, int) or repetitions < 1:
        raise harness.InputError(f"repetitions is {repetitions}. Give a whole number of at least 1")
    count = len(classes)
    found, sizes = np.unique(classes, return_counts=True)
    if len(found) == 1:
        return Estimate(0.0)
    value, variance = 0.0, 0.0
    for label, size in zip(found.tolist(), sizes.tolist(), strict=True):
        draw = random.Random(seed)
        subsets = [entropy(torch.tensor(draw.sample(range(count), size))) for _ in range(repetitions)]
        within = entropy(torch.from_numpy(np.flatnonzero(classes == label)))
        share = size / count
        value += share * (math.fsum(found.value for found in subsets) / repetitions - within.value)
        errors = [share / repetitions * (found.standard_error or 0.0) for found in subsets]
        variance += math.fsum(e**2 for e in (*errors, share * (within.standard_error or 0.0)))
    return Estimate(value, math.sqrt(variance) if variance else None)


def _estimated(operator: spectrum.Operator, *, t: float, seed: int, tolerance: float) -> Estimate:
    """Estimate log2 A - T / A, with A = Σ |λ|^t and T = Σ |λ|^t log2 |λ|^t; A is known exactly for t of 1 and 2."""

    def mass(values: Tensor) -> Tensor:
        return values.abs().pow(t)

    def surprise(values: Tensor) -> Tensor:
        return torch.xlogy(mass(values), mass(values)) / math.log(2)

    (total, sum_of_surprise), departures = spectrum.estimate_sums(
        operator, (mass, surprise), seed=seed, tolerance=tolerance
    )
    value = math.log2(total) - sum_of_surprise / total
    slopes = torch.tensor([1 / (total * math.log(2)) + sum_of_surprise / total**2, -1 / total])
    each = departures @ slopes.double()
    return Estimate(max(value, 0.0), each.std().item() / math.sqrt(len(each)))
