"""Inputs of the entropies of point clouds: points, kernel width and classes."""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

import harness

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    Array = Tensor | NDArray[Any]

Width = float | str  # a number, "median" or "neighbour"
NEIGHBOUR = 10  # the neighbour whose distance gives the width "neighbour"
CLUSTERS = 10
_WIDTH_ROWS, _WIDTH_TILE = 2000, 64  # rows for a data-driven width, and rows at once
_WIDEST = 1e100


def cloud_of(x: Array) -> Tensor:
    """Return points_of(x) with mean 0, because distances lose digits far from it."""
    points = points_of(x)
    return points - points.mean(dim=0)


def points_of(x: Array) -> Tensor:
    """Return points (N, D) in float64, on their device. Raises InputError if there are none or some are not finite."""
    points = x if isinstance(x, torch.Tensor) else torch.from_numpy(np.array(x))
    if points.ndim != 2 or not points.numel():
        raise harness.InputError(f"points have shape {tuple(points.shape)}. Give one row per point, (N, D)")
    points = points.detach().double()
    if broken := int((~points.isfinite()).any(dim=1).sum()):
        raise harness.InputError(f"{broken} of {len(points)} points hold NaN or infinity. Remove them")
    return points


def require_parameters(*, sigma: Width = 10.0, t: float = 1, alpha: float = 0.0) -> None:
    """Raise InputError for an invalid width, time or density exponent."""
    if isinstance(sigma, str):
        if sigma not in ("median", "neighbour"):
            raise harness.InputError(f"sigma is {sigma!r}. Give a number above 0, 'median' or 'neighbour'")
    elif not 1 / _WIDEST <= sigma <= _WIDEST:
        raise harness.InputError(
            f"sigma is {sigma}. Give a number above 0 (up to {_WIDEST:.0e}), 'median' or 'neighbour'"
        )
    if not (t > 0 and math.isfinite(t)):
        raise harness.InputError(f"t is {t}. Give a diffusion time above 0, for example 1 or 2")
    if not (alpha >= 0 and math.isfinite(alpha)):
        raise harness.InputError(f"alpha is {alpha}. Give 0 (the reference) or more")


def resolve_width(points: Tensor, sigma: Width) -> float:
    """Return σ as a number: itself, or the median of pairwise distances, or of distances to the 10th neighbour.

    The median is over at most 2,000 points, drawn with a fixed seed.
    """
    require_parameters(sigma=sigma)
    if not isinstance(sigma, str):
        return float(sigma)
    chosen = points
    if len(points) > _WIDTH_ROWS:
        chosen = points[sorted(random.Random(0).sample(range(len(points)), _WIDTH_ROWS))]
    if sigma == "median":
        rows, columns = torch.triu_indices(len(chosen), len(chosen), offset=1)
        of_pairs = torch.cdist(chosen, chosen)[rows, columns]
    else:
        count = min(NEIGHBOUR + 1, len(points))  # the point itself is the first
        nearest = [
            torch.cdist(tile, points).kthvalue(count, dim=1).values
            for tile in torch.split(chosen, _WIDTH_TILE)
        ]
        of_pairs = torch.cat(nearest)
    width = of_pairs.median().item() if len(of_pairs) else 0.0
    if not width > 0:
        raise harness.InputError(
            f"the {sigma} distance of {len(points)} points is 0, so it cannot be the width. Give sigma as a number"
        )
    return width


def classes_of(y: Array, count: int, clusters: int) -> NDArray[np.int64]:
    """Turn labels, numbers or vectors into classes (N,), as described in diffusion_spectral_mutual_information."""
    if isinstance(y, torch.Tensor):
        given = (y.detach().double() if y.is_floating_point() else y).cpu().numpy()  # NumPy has no bfloat16
    else:
        given = np.asarray(y)
    if given.ndim == 2 and given.shape[1] == 1:
        given = given[:, 0]
    if given.ndim not in (1, 2) or len(given) != count:
        raise harness.InputError(
            f"y has shape {given.shape} for {count} points. Give one label or vector each"
        )
    if given.ndim == 2:
        return input_clusters(given, clusters)
    if np.issubdtype(given.dtype, np.integer) or given.dtype == np.bool_:
        return given.astype(np.int64)
    if not np.issubdtype(given.dtype, np.floating) or not np.isfinite(given).all():
        raise harness.InputError(
            f"y ({given.dtype}) holds values that are not finite. Give finite numbers, or whole numbers as classes"
        )
    return scalar_bins(given.astype(np.float64), clusters)


def input_clusters(x: Array, clusters: int = CLUSTERS) -> NDArray[np.int64]:
    """Cluster vectors (N, D) for DSMI(Z; X): spectral clustering on nearest neighbours, labels by pivoted QR, (N,).

    Compute it once per set of inputs, and pass the result to diffusion_spectral_mutual_information as classes.
    """
    import warnings

    from sklearn.cluster import SpectralClustering

    vectors = points_of(x).cpu().numpy()
    if clusters < 2:
        raise harness.InputError(f"clusters is {clusters}. Give 2 or more")
    if len(vectors) <= clusters:
        raise harness.InputError(f"{len(vectors)} vectors for {clusters} clusters. Give more vectors")
    clustering = SpectralClustering(
        n_clusters=clusters,
        affinity="nearest_neighbors",
        n_neighbors=min(10, len(vectors)),
        assign_labels="cluster_qr",
        random_state=0,
    )
    with warnings.catch_warnings():
        # Separate clusters are not an error.
        warnings.filterwarnings("ignore", message="Graph is not fully connected")
        labels: NDArray[np.int64] = clustering.fit(vectors).labels_.astype(np.int64)
    return labels


def scalar_bins(values: NDArray[np.float64], bins: int = CLUSTERS) -> NDArray[np.int64]:
    """Scale numbers (N,) to 0..1 and cut 0..1 into bins of equal width, numbered from 1."""
    if bins < 1:
        raise harness.InputError(f"{bins} bins of numbers. Give 1 or more")
    low, high = values.min(), values.max()
    if low == high:
        return np.zeros(len(values), dtype=np.int64)
    edges = np.linspace(0, 1, bins + 1)[:-1]
    numbers: NDArray[np.int64] = np.digitize((values - low) / (high - low), edges).astype(np.int64)
    return numbers
