"""What the entropies of point clouds are given: points, the width of a kernel on them, and the classes they are in."""

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
NEIGHBOUR = 10  # whose distance is the width "neighbour"
CLUSTERS = 10
_WIDTH_ROWS, _WIDTH_TILE = 2000, 64  # of which a data-driven width is computed, and how many at once
_WIDEST = 1e100


def cloud_of(x: Array) -> Tensor:
    """Return points as points_of does, moved so that their mean is 0: far from it, distances lose digits."""
    points = points_of(x)
    return points - points.mean(dim=0)


def points_of(x: Array) -> Tensor:
    """Return points (N, D) in float64, on their device; raise InputError where there are none or NaN among them."""
    points = x if isinstance(x, torch.Tensor) else torch.from_numpy(np.array(x))
    if points.ndim != 2 or not points.numel():
        raise harness.InputError(f"points have shape {tuple(points.shape)}. Give one row a point, (N, D)")
    points = points.detach().double()
    if broken := int((~points.isfinite()).any(dim=1).sum()):
        raise harness.InputError(f"{broken} of {len(points)} points hold NaN or infinity. Remove them")
    return points


def require_parameters(*, sigma: Width = 10.0, t: float = 1, alpha: float = 0.0) -> None:
    """Raise InputError for a width, time or density exponent that makes no sense."""
    if isinstance(sigma, str):
        if sigma not in ("median", "neighbour"):
            raise harness.InputError(f"sigma is {sigma!r}. Give a number above 0, 'median' or 'neighbour'")
    elif not 1 / _WIDEST <= sigma <= _WIDEST:
        raise harness.InputError(
            f"sigma is {sigma}. Give a number above 0 (up to {_WIDEST:.0e}), 'median' or 'neighbour'"
        )
    if not (t > 0 and math.isfinite(t)):
        raise harness.InputError(f"t is {t}. Give a diffusion time above 0, as in 1 or 2")
    if not (alpha >= 0 and math.isfinite(alpha)):
        raise harness.InputError(f"alpha is {alpha}. Give 0, the reference, or a number above it")


def resolve_width(points: Tensor, sigma: Width) -> float:
    """Return σ as a number: itself, or the median distance of two points or to the 10th neighbour.

    Of more than 2,000 points, distances are taken from that many, drawn with a fixed seed.
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
            f"the {sigma} distance of {len(points)} points is 0, so it is no width. Give sigma a number"
        )
    return width


def classes_of(y: Array, count: int, clusters: int) -> NDArray[np.int64]:
    """Turn labels, numbers or vectors into classes (N,), as diffusion_spectral_mutual_information says."""
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
            f"y ({given.dtype}) holds what is no finite number. Give finite numbers, or whole numbers as classes"
        )
    return scalar_bins(given.astype(np.float64), clusters)


def input_clusters(x: Array, clusters: int = CLUSTERS) -> NDArray[np.int64]:
    """Cluster vectors (N, D) for DSMI(Z; X): spectral clustering on nearest neighbours, labels by pivoted QR, (N,).

    Once for a set of inputs is enough: give the result to diffusion_spectral_mutual_information as classes.
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
        # Clusters that lie apart are no fault.
        warnings.filterwarnings("ignore", message="Graph is not fully connected")
        labels: NDArray[np.int64] = clustering.fit(vectors).labels_.astype(np.int64)
    return labels


def scalar_bins(values: NDArray[np.float64], bins: int = CLUSTERS) -> NDArray[np.int64]:
    """Scale numbers (N,) to 0..1 and cut that into bins of one width, numbered from 1."""
    if bins < 1:
        raise harness.InputError(f"{bins} bins of numbers. Give 1 or more")
    low, high = values.min(), values.max()
    if low == high:
        return np.zeros(len(values), dtype=np.int64)
    edges = np.linspace(0, 1, bins + 1)[:-1]
    numbers: NDArray[np.int64] = np.digitize((values - low) / (high - low), edges).astype(np.int64)
    return numbers
