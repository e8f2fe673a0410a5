"""Baselines of diffusion spectral entropy: binned Shannon entropy, and entropies of other matrices, in bits.

Defined as in the comparison by the authors of DSE (arXiv 2312.04823); 2.2e-16 is added to every probability.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

import harness
from harness_plugins.probes import spectrum
from harness_plugins.probes.clouds import CLUSTERS, classes_of, cloud_of, points_of, resolve_width
from harness_plugins.probes.diffusion import REPETITIONS, bits, mutual_information, spectral_entropy
from harness_plugins.probes.spectrum import Estimate
from harness_plugins.scorers.moments import squared_distances

if TYPE_CHECKING:
    from torch import Tensor

    from harness_plugins.probes.clouds import Array, Width


def binned_entropy(x: Array, *, bins: int = 2) -> float:
    """Compute Shannon's entropy of points (N, D) binned along every dimension, min to max: at most log2 N.

    In many dimensions nearly every point is alone in its cell, and the entropy is log2 N for any points.
    """
    points = points_of(x)
    if bins < 1:
        raise harness.InputError(f"bins is {bins}. Give 1 or more")
    low, spread = points.amin(dim=0), points.amax(dim=0) - points.amin(dim=0)
    scaled = (points - low) / spread.where(spread > 0, 1.0)
    edges = torch.from_numpy(np.linspace(0, 1, bins + 1)[1:-1]).to(points)
    cells = torch.bucketize(scaled, edges, right=True)
    # The largest value of a dimension is at 1; no edge is there, so it belongs to the last bin.
    return bits(torch.unique(cells, dim=0, return_counts=True)[1].double())


def binned_mutual_information(
    z: Array,
    y: Array,
    *,
    bins: int = 2,
    seed: int = 0,
    clusters: int = CLUSTERS,
    repetitions: int = REPETITIONS,
) -> float:
    """Compute DSMI with the binned entropy in place of DSE; y as in diffusion_spectral_mutual_information."""
    points = points_of(z)
    classes = classes_of(y, len(points), clusters)
    return mutual_information(
        lambda rows: Estimate(binned_entropy(points[rows], bins=bins)),
        classes,
        seed=seed,
        repetitions=repetitions,
    ).value


def matrix_entry_entropy(x: Array, *, sigma: Width = 10.0) -> float:
    """Compute the entropy of all N² entries of the row-normalised diffusion matrix, x (N, D): at most 2 log2 N."""
    points = cloud_of(x)
    matrix = spectrum.diffusion_matrix(points, sigma=resolve_width(points, sigma))
    return bits(matrix.div_(matrix.sum(dim=1, keepdim=True)).flatten())


def matrix_entry_mutual_information(
    z: Array,
    y: Array,
    *,
    sigma: Width = 10.0,
    seed: int = 0,
    clusters: int = CLUSTERS,
    repetitions: int = REPETITIONS,
) -> float:
    """Compute DSMI with the matrix-entry entropy in place of DSE; y as in diffusion_spectral_mutual_information."""
    points = cloud_of(z)
    width = resolve_width(points, sigma)
    classes = classes_of(y, len(points), clusters)
    return mutual_information(
        lambda rows: Estimate(matrix_entry_entropy(points[rows], sigma=width)),
        classes,
        seed=seed,
        repetitions=repetitions,
    ).value


def adjacency_spectral_entropy(
    x: Array, *, sigma: Width = 10.0, anisotropic: bool = False, neighbours: int | None = None
) -> float:
    """Compute the entropy of the absolute eigenvalues of a graph's adjacency matrix over points (N, D).

    The matrix is the Gaussian kernel G, or D^-½ G D^-½ if `anisotropic`. With `neighbours` = k, it is 1 for the k
    nearest of each point, including itself, else 0. Then it is not symmetric, and eigenvalues may be complex.
    """
    points = cloud_of(x)
    if neighbours is not None:
        return spectral_entropy(torch.linalg.eigvals(_nearest(points, neighbours)))
    width = resolve_width(points, sigma)
    matrix_of = spectrum.diffusion_matrix if anisotropic else spectrum.kernel_matrix
    return spectral_entropy(torch.linalg.eigvalsh(matrix_of(points, sigma=width)))


def adjacency_spectral_mutual_information(
    z: Array,
    y: Array,
    *,
    sigma: Width = 10.0,
    anisotropic: bool = False,
    neighbours: int | None = None,
    seed: int = 0,
    clusters: int = CLUSTERS,
    repetitions: int = REPETITIONS,
) -> float:
    """Compute DSMI with the adjacency spectral entropy in place of DSE; y as in diffusion_spectral_mutual_information.

    Each class, and each random subset, is a graph of its own, so `neighbours` is at most the size of the least class.
    If `anisotropic`, it is DSMI with t = 1.
    """
    points = cloud_of(z)
    width = resolve_width(points, sigma)
    classes = classes_of(y, len(points), clusters)

    def entropy(rows: Tensor) -> Estimate:
        chosen = points[rows]
        return Estimate(
            adjacency_spectral_entropy(chosen, sigma=width, anisotropic=anisotropic, neighbours=neighbours)
        )

    return mutual_information(entropy, classes, seed=seed, repetitions=repetitions).value


def _nearest(points: Tensor, neighbours: int) -> Tensor:
    if not 1 <= neighbours <= len(points):
        raise harness.InputError(
            f"neighbours is {neighbours} of {len(points)} points. Give 1 to {len(points)}"
        )
    spectrum.require_room(len(points))
    distances = squared_distances(points, points).fill_diagonal_(0.0)
    furthest = distances.kthvalue(neighbours, dim=1, keepdim=True).values
    return (distances <= furthest).double()
