"""The functions of the authors' package dse-dsmi, with their names, keywords and results (Liao et al., 2312.04823).

Code that was written for the package runs after a change of its import. Two keywords are refused, because they give
wrong numbers there: `chebyshev_approx` and `eigval_save_path`. No global random state is touched.

`python -m harness_plugins.probes.dse_dsmi` prints every measure of random data, as the package's own files do.
"""

from __future__ import annotations

import random
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

import harness
from harness_plugins.probes import classic, diffusion
from harness_plugins.probes.clouds import CLUSTERS, classes_of
from harness_plugins.probes.diffusion import REPETITIONS

if TYPE_CHECKING:
    from numpy.typing import DTypeLike, NDArray

    from harness_plugins.probes.clouds import Array

MOST_ROWS = 10_000
NEIGHBOURS = 10
PRINTED_ROWS = 1000  # of the data that `main` measures


def diffusion_spectral_entropy(
    embedding_vectors: Array,
    gaussian_kernel_sigma: float = 10,
    t: float = 1,
    max_N: int | None = MOST_ROWS,
    chebyshev_approx: bool = False,
    eigval_save_path: str | None = None,
    eigval_save_precision: DTypeLike = np.float64,
    classic_shannon_entropy: bool = False,
    matrix_entry_entropy: bool = False,
    num_bins_per_dim: int = 2,
    random_seed: int = 0,
    verbose: bool = False,
) -> float:
    """Compute DSE of (N, D), or the binned or the matrix-entry entropy, in bits; see diffusion.py and classic.py.

    Of more than `max_N` rows, so many are drawn with Python's random.Random(random_seed). `eigval_save_precision` and
    `verbose` change nothing. Raises InputError for `chebyshev_approx` and `eigval_save_path`.
    """
    _require_exact(chebyshev_approx, eigval_save_path)
    drawn = _drawn(embedding_vectors, max_N, random_seed)
    if classic_shannon_entropy:
        return classic.binned_entropy(drawn, bins=num_bins_per_dim)
    if matrix_entry_entropy:
        return classic.matrix_entry_entropy(drawn, sigma=gaussian_kernel_sigma)
    return diffusion.diffusion_spectral_entropy(drawn, sigma=gaussian_kernel_sigma, t=t)


def adjacency_spectral_entropy(
    embedding_vectors: Array,
    gaussian_kernel_sigma: float = 10,
    anisotropic: bool = False,
    use_knn: bool = False,
    knn: int = NEIGHBOURS,
    max_N: int | None = MOST_ROWS,
    eigval_save_path: str | None = None,
    eigval_save_precision: DTypeLike = np.float64,
    random_seed: int = 0,
    verbose: bool = False,
) -> float:
    """Compute classic.adjacency_spectral_entropy of (N, D), in bits: the kernel's, or that of `knn` neighbours."""
    _require_exact(False, eigval_save_path)
    return classic.adjacency_spectral_entropy(
        _drawn(embedding_vectors, max_N, random_seed),
        sigma=gaussian_kernel_sigma,
        anisotropic=anisotropic,
        neighbours=knn if use_knn else None,
    )


def diffusion_spectral_mutual_information(
    embedding_vectors: Array,
    reference_vectors: Array,
    reference_discrete: bool | None = None,
    gaussian_kernel_sigma: float = 10,
    t: float = 1,
    chebyshev_approx: bool = False,
    num_repetitions: int = REPETITIONS,
    n_clusters: int = CLUSTERS,
    precomputed_clusters: Array | None = None,
    classic_shannon_entropy: bool = False,
    matrix_entry_entropy: bool = False,
    num_bins_per_dim: int = 2,
    random_seed: int = 0,
    verbose: bool = False,
) -> tuple[float, NDArray[Any]]:
    """Compute DSMI of (N, D) and a reference, or with the binned or the matrix-entry entropy, in bits.

    Returns the information and the clusters of the reference, (N,), for `precomputed_clusters` of the next call: the
    values of a discrete reference, the bins of a scalar one, or the spectral clusters of vectors. The reference is
    discrete if `reference_discrete`, or if that is None and it holds one integer per row. As in the package, a discrete
    reference goes before `precomputed_clusters`.
    """
    _require_exact(chebyshev_approx, None)
    clusters = _clusters(
        reference_vectors, precomputed_clusters, reference_discrete, n_clusters, len(embedding_vectors)
    )
    classes = np.unique(clusters, return_inverse=True)[1]
    drawing = {"seed": random_seed, "repetitions": num_repetitions}
    if classic_shannon_entropy:
        found = classic.binned_mutual_information(
            embedding_vectors, classes, bins=num_bins_per_dim, **drawing
        )
    elif matrix_entry_entropy:
        found = classic.matrix_entry_mutual_information(
            embedding_vectors, classes, sigma=gaussian_kernel_sigma, **drawing
        )
    else:
        found = diffusion.diffusion_spectral_mutual_information(
            embedding_vectors, classes, sigma=gaussian_kernel_sigma, t=t, **drawing
        )
    return found, clusters


def adjacency_spectral_mutual_information(
    embedding_vectors: Array,
    reference_vectors: Array,
    reference_discrete: bool | None = None,
    gaussian_kernel_sigma: float = 10,
    use_knn: bool = False,
    anisotropic: bool = False,
    num_repetitions: int = REPETITIONS,
    n_clusters: int = CLUSTERS,
    precomputed_clusters: Array | None = None,
    random_seed: int = 0,
    verbose: bool = False,
) -> tuple[float, NDArray[Any]]:
    """Compute DSMI with the adjacency spectral entropy, in bits; returns as diffusion_spectral_mutual_information.

    With `use_knn`, the neighbours are the package's 10.
    """
    clusters = _clusters(
        reference_vectors, precomputed_clusters, reference_discrete, n_clusters, len(embedding_vectors)
    )
    found = classic.adjacency_spectral_mutual_information(
        embedding_vectors,
        np.unique(clusters, return_inverse=True)[1],
        sigma=gaussian_kernel_sigma,
        anisotropic=anisotropic,
        neighbours=NEIGHBOURS if use_knn else None,
        seed=random_seed,
        repetitions=num_repetitions,
    )
    return found, clusters


def _require_exact(chebyshev_approx: bool, eigval_save_path: str | None) -> None:
    if chebyshev_approx:
        raise harness.InputError(
            "chebyshev_approx is not offered: it is off by half. Leave it out; with max_N=None, the "
            "entropy of more than 10,000 rows is estimated"
        )
    if eigval_save_path is not None:
        raise harness.InputError(
            "eigval_save_path is not offered: saved eigenvalues would be read for any other input, too. Leave it out"
        )


def _drawn(vectors: Array, most: int | None, seed: int) -> Array:
    if most is None or len(vectors) <= most:
        return vectors
    if most < 1:
        raise harness.InputError(f"max_N is {most}. Give 1 or more, or None for all rows")
    return vectors[random.Random(seed).sample(range(len(vectors)), most)]


def _clusters(
    reference: Array, precomputed: Array | None, discrete: bool | None, clusters: int, count: int
) -> NDArray[Any]:
    """Return one cluster per row of the reference, (N,)."""
    given = reference.detach().cpu().numpy() if isinstance(reference, torch.Tensor) else np.asarray(reference)
    if given.ndim == 2 and given.shape[1] == 1:
        given = given[:, 0]
    if discrete is None:
        discrete = given.ndim == 1 and np.issubdtype(given.dtype, np.integer)
    if not discrete:
        if precomputed is not None:
            return np.asarray(precomputed).reshape(-1)
        return classes_of(given.astype(np.float64), count, clusters)
    if given.ndim != 1:
        raise harness.InputError(
            f"reference_discrete is True and reference_vectors have shape {given.shape}. Give one class per row"
        )
    return given


def main() -> None:
    """Print the measures of uniform data, and what they tell of two classes."""
    from sklearn.datasets import make_classification

    rng = np.random.default_rng(0)
    uniform = rng.uniform(size=(PRINTED_ROWS, 256))
    of_two_classes = make_classification(n_samples=PRINTED_ROWS, n_features=5, random_state=0)
    references: dict[str, NDArray[Any]] = {
        "11 class labels": rng.integers(11, size=(PRINTED_ROWS, 1)),
        "scalars": rng.uniform(-1, 1, size=(PRINTED_ROWS, 1)),
        "images": rng.uniform(-1, 1, size=(PRINTED_ROWS, 3 * 32 * 32)),
    }
    other: list[dict[str, Any]] = [{}, {"classic_shannon_entropy": True}, {"matrix_entry_entropy": True}]
    graphs: list[dict[str, Any]] = [{}, {"anisotropic": True}, {"use_knn": True}]
    for keywords in other:
        _print("DSE", "", keywords, diffusion_spectral_entropy(uniform, **keywords))
    for keywords in graphs:
        _print("adjacency entropy", "", keywords, adjacency_spectral_entropy(uniform, **keywords))
    for name, reference in references.items():
        _print("DSMI", name, {}, diffusion_spectral_mutual_information(uniform, reference)[0])
    for keywords in other:
        found, _ = diffusion_spectral_mutual_information(*of_two_classes, **keywords)
        _print("DSMI", "two classes", keywords, found)
    for keywords in graphs:
        found, _ = adjacency_spectral_mutual_information(*of_two_classes, **keywords)
        _print("adjacency MI", "two classes", keywords, found)


def _print(measure: str, reference: str, keywords: dict[str, Any], value: float) -> None:
    sys.stdout.write(f"{' '.join((measure, reference, *keywords)):45} {value:9.6f} bits\n")


if __name__ == "__main__":
    main()
