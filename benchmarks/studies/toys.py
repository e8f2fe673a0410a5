"""How DSE and DSMI bear small samples, noise and many dimensions, on blobs and trees, beside the classic estimators.

    python benchmarks/studies/toys.py

Three things are varied one at a time, 5 draws each: the number of points, the noise, and the number of dimensions.
Entropies are shown as shares of their largest value, informations in bits, of log2 5.
Writes toys.csv and toys.png.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from common import Panel, draw, each, options, write_table
from numpy.typing import NDArray

from harness_plugins.probes.classic import (
    binned_entropy,
    binned_mutual_information,
    matrix_entry_entropy,
)
from harness_plugins.probes.diffusion import diffusion_spectral_entropy, diffusion_spectral_mutual_information

GROUPS = 5
REFERENCE = {"n": 500, "noise": 0.3, "d": 20}
VARIED: dict[str, tuple[float, ...]] = {
    "n": (50, 100, 200, 500, 1000),
    "noise": (0.05, 0.1, 0.3, 1.0, 3.0),
    "d": (2, 5, 20, 100, 500),
}
Points = NDArray[np.float64]


def main() -> None:
    arguments = options(__doc__, draws=5)
    settings = [
        (shape, factor, value, number)
        for shape in ("blobs", "tree")
        for factor, values in VARIED.items()
        for value in values
        for number in range(arguments.draws)
    ]
    rows = [row for setting in each(settings, "toys") for row in measure(*setting)]
    frame = write_table(rows, arguments.tables / "toys.csv")
    draw(frame, panels(), arguments.pictures / "toys.png")


def measure(shape: str, factor: str, value: float, number: int) -> list[dict[str, Any]]:
    """Draw one data set and estimate its entropy and its information about the groups in every way."""
    given = REFERENCE | {factor: value}
    rng = np.random.default_rng(number)
    points, groups = (blobs if shape == "blobs" else tree)(int(given["n"]), int(given["d"]), rng)
    points = points + rng.normal(size=points.shape) * given["noise"]
    most = math.log2(len(points))
    entropies = {
        "DSE, σ by neighbours": diffusion_spectral_entropy(points, sigma="neighbour") / most,
        "DSE, σ = 10": diffusion_spectral_entropy(points) / most,
        "matrix entries": matrix_entry_entropy(points, sigma="neighbour") / (2 * most),
        "binned": binned_entropy(points) / most,
    }
    informations = {
        "DSE, σ by neighbours": diffusion_spectral_mutual_information(points, groups, sigma="neighbour"),
        "DSE, σ = 10": diffusion_spectral_mutual_information(points, groups),
        "binned": binned_mutual_information(points, groups),
    }
    place = {"shape": shape, "factor": factor, "value": value, "draw": number}
    return [
        {**place, "estimator": name, "entropy": entropy, "information": informations.get(name, math.nan)}
        for name, entropy in entropies.items()
    ]


def blobs(count: int, dimensions: int, rng: np.random.Generator) -> tuple[Points, NDArray[np.int64]]:
    """Place points at the corners of a simplex-like frame, one corner a group."""
    groups = rng.integers(GROUPS, size=count)
    corners = rng.normal(size=(GROUPS, dimensions))
    corners *= 5 / np.linalg.norm(corners, axis=1, keepdims=True)
    return corners[groups], groups


def tree(count: int, dimensions: int, rng: np.random.Generator) -> tuple[Points, NDArray[np.int64]]:
    """Place points along branches that leave one trunk's end in directions of their own, one branch a group."""
    groups = rng.integers(GROUPS, size=count)
    directions = rng.normal(size=(GROUPS, dimensions))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    return 5 * rng.uniform(size=count)[:, None] * directions[groups], groups


def panels() -> list[Panel]:
    """Lay out the picture: entropies of blobs above, informations of both shapes below."""

    def of(shape: str, factor: str) -> Any:
        return lambda frame: (frame["shape"] == shape) & (frame["factor"] == factor)

    names = {"n": "points", "noise": "noise", "d": "dimensions"}
    found = []
    for shape, column, what in (
        ("blobs", "entropy", "entropy / largest"),
        ("blobs", "information", "information (bits)"),
        ("tree", "entropy", "entropy / largest"),
        ("tree", "information", "information (bits)"),
    ):
        guide = (math.log2(GROUPS),) if column == "information" else ()
        found += [
            Panel(
                f"{shape}: {what}",
                "value",
                column,
                "estimator",
                of(shape, factor),
                name,
                log=True,
                lines=guide,
            )
            for factor, name in names.items()
        ]
    return found


if __name__ == "__main__":
    main()
