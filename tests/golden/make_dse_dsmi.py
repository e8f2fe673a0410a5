"""Write dse_dsmi.json: what the authors' package gives on five Gaussian blobs.

    pip install --no-deps dse-dsmi==1.1
    python tests/golden/make_dse_dsmi.py

The blobs need no random numbers: quantiles of the normal distribution at Halton's points, around five corners.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm, qmc

COUNT, GROUPS = 100, 5
ENTROPIES: tuple[dict[str, Any], ...] = (
    {"gaussian_kernel_sigma": 2.0},
    {"gaussian_kernel_sigma": 2.0, "t": 3},
    {"gaussian_kernel_sigma": 2.0, "max_N": 40, "random_seed": 5},
    {"gaussian_kernel_sigma": 2.0, "matrix_entry_entropy": True},
    {"classic_shannon_entropy": True, "num_bins_per_dim": 3},
    {"classic_shannon_entropy": True, "max_N": 40, "random_seed": 5},
)
INFORMATIONS: tuple[dict[str, Any], ...] = (
    {},
    {"gaussian_kernel_sigma": 2.0, "t": 2},
    {"gaussian_kernel_sigma": 2.0, "num_repetitions": 2, "random_seed": 7},
    {"gaussian_kernel_sigma": 2.0, "matrix_entry_entropy": True},
    {"classic_shannon_entropy": True, "num_bins_per_dim": 3},
)
REFERENCES: tuple[dict[str, Any], ...] = (
    {"reference": "scalars", "gaussian_kernel_sigma": 2.0, "n_clusters": 4},
    {"reference": "vectors", "gaussian_kernel_sigma": 2.0, "n_clusters": 4},
    {"reference": "labels", "gaussian_kernel_sigma": 2.0, "n_clusters": 4, "reference_discrete": False},
    {"reference": "levels", "gaussian_kernel_sigma": 2.0, "reference_discrete": True},
)
ADJACENCIES: tuple[dict[str, Any], ...] = (
    {"gaussian_kernel_sigma": 2.0},
    {"gaussian_kernel_sigma": 2.0, "anisotropic": True},
    {"use_knn": True},
    {"gaussian_kernel_sigma": 2.0, "num_repetitions": 2, "random_seed": 7},
)


def inputs() -> dict[str, NDArray[Any]]:
    """Return 100 points in 5 dimensions, their five groups, and references of the other kinds."""
    groups = np.arange(COUNT) % GROUPS
    noise = norm.ppf(qmc.Halton(GROUPS, scramble=False).random(COUNT + 1)[1:])
    points = 3 * np.eye(GROUPS)[groups] + noise
    return {
        "points": points,
        "labels": groups,
        "scalars": points[:, :1] + points[:, 1:2],
        "vectors": points[:, :3] + np.sin(points[:, 2:]),
        "levels": 0.5 * (groups // 2),
    }


def main() -> None:
    from dse_dsmi import dse, dsmi

    given = inputs()
    x, y = given["points"], given["labels"]
    entropies = [{"given": k, "out": dse.diffusion_spectral_entropy(x, **k)} for k in ENTROPIES]
    of_adjacency = [
        {"given": k, "out": dse.adjacency_spectral_entropy(x, **k)}
        for k in ({"max_N": 40, "random_seed": 5, "use_knn": True, "knn": 7}, {"gaussian_kernel_sigma": 2.0})
    ]
    found = {
        "diffusion_spectral_entropy": entropies,
        "adjacency_spectral_entropy": of_adjacency,
        "diffusion_spectral_mutual_information": [
            information(dsmi.diffusion_spectral_mutual_information, given, {"reference": "labels"} | k)
            for k in (*INFORMATIONS, *REFERENCES)
        ],
        "adjacency_spectral_mutual_information": [
            information(dsmi.adjacency_spectral_mutual_information, given, {"reference": "labels"} | k)
            for k in (*ADJACENCIES, REFERENCES[0])
        ],
    }
    assert len(np.unique(y)) == GROUPS
    path = Path(__file__).with_name("dse_dsmi.json")
    path.write_text(json.dumps(found) + "\n")


def information(compute: Any, given: dict[str, NDArray[Any]], case: dict[str, Any]) -> dict[str, Any]:
    """Call the package with a case's keywords, and keep its number and its clusters."""
    keywords = {key: value for key, value in case.items() if key != "reference"}
    out, clusters = compute(given["points"], given[case["reference"]], **keywords)
    return {"given": case, "out": out, "clusters": clusters.reshape(-1).tolist()}


if __name__ == "__main__":
    main()
