"""Mutual information over the dimension: DSMI beside KSG, MINE and binning, with the truth, and the time of each.

    pip install --no-deps dse-dsmi==1.1     # optional: its time stands beside the others'
    python benchmarks/studies/information.py

Gaussians: X and Y in d dimensions, each pair of coordinates correlated, 2 bits in all. Blobs: five Gaussians and their
labels. Their centres are equally far apart in every dimension, or, as in the paper, anywhere in a cube, so that they
are further apart in more dimensions; these also at 20 dimensions over the share of labels that are drawn anew. 600
points, 3 draws.
KSG: Kraskov et al. (2004, equation 8), for labels Ross (2014), k = 3, largest norm. MINE: Belghazi et al. (2018), on
the points that it was trained on, as published, and on as many others. Times are seconds of one thread.
Writes information.csv and information.png.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from common import Panel, draw, each, options, write_table
from numpy.typing import NDArray
from scipy.spatial.distance import cdist
from scipy.special import digamma, entr, softmax
from torch import Tensor, nn

from harness_plugins.probes.classic import binned_mutual_information
from harness_plugins.probes.clouds import input_clusters
from harness_plugins.probes.diffusion import diffusion_spectral_mutual_information

Points = NDArray[np.float64]
BITS = 2.0  # of the Gaussians
GROUPS, APART, CUBE = (
    5,
    5.0,
    10.0,
)  # blobs, the length of their centres, or half the cube's side; noise of sd 1
DIMENSIONS = (1, 2, 5, 20, 100, 500)
REDRAWN = (0.0, 0.25, 0.5, 0.75, 1.0)
NEIGHBOURS = 3
EXAMPLES = 20_000  # for the truth of overlapping blobs


def main() -> None:
    arguments = options(__doc__, draws=3, points=600, steps=200)
    settings = [
        *(("Gaussians", dimension, 0.0) for dimension in DIMENSIONS),
        *((shape, dimension, 0.0) for shape in ("blobs", "blobs in a cube") for dimension in DIMENSIONS[1:]),
        *(("labels", 20, share) for share in REDRAWN),
    ]
    runs = [(*setting, number) for setting in settings for number in range(arguments.draws)]
    rows = [row for run in each(runs, "information") for row in measure(*run, arguments)]
    frame = write_table(rows, arguments.tables / "information.csv")
    draw(frame, panels(), arguments.pictures / "information.png")


def measure(shape: str, dimension: int, redrawn: float, number: int, arguments: Any) -> list[dict[str, Any]]:
    """Draw one data set, and estimate its information in every way."""
    rng = np.random.default_rng(number)
    of_labels = shape != "Gaussians"
    if of_labels:
        centres = centres_of(dimension, rng, in_cube=shape != "blobs")
        z, y, truth = blobs(arguments.points, centres, redrawn, rng)
    else:
        z, y, truth = gaussians(arguments.points, dimension, rng)
    place = {"shape": shape, "dimension": dimension, "redrawn": redrawn, "draw": number}
    rows = [{**place, "estimator": "truth", "bits": truth, "seconds": math.nan}]
    others = np.eye(GROUPS)[y] if of_labels else y
    classes = y if of_labels else input_clusters(y)
    network = Mine(z, others, steps=arguments.steps, seed=number)
    ways: dict[str, Callable[[], float]] = {
        "DSMI, σ by neighbours": lambda: diffusion_spectral_mutual_information(z, classes, sigma="neighbour"),
        "DSMI, σ = √d": lambda: diffusion_spectral_mutual_information(z, classes, sigma=math.sqrt(dimension)),
        "KSG": lambda: ross(z, y) if of_labels else ksg(z, y),
        "MINE": network.train,
        "MINE, other points": network.on_others,
        "binned": lambda: binned_mutual_information(z, classes),
        **peer(z, classes, math.sqrt(dimension)),
    }
    for name, estimate in ways.items():
        start = time.process_time()
        bits = estimate()
        rows.append({**place, "estimator": name, "bits": bits, "seconds": time.process_time() - start})
    return rows


def gaussians(count: int, dimension: int, rng: np.random.Generator) -> tuple[Points, Points, float]:
    """Draw X and Y with I = -d/2 log2(1 - ρ²) = 2 bits."""
    rho = math.sqrt(1 - 2 ** (-2 * BITS / dimension))
    x = rng.normal(size=(count, dimension))
    y = rho * x + math.sqrt(1 - rho**2) * rng.normal(size=(count, dimension))
    return x, y, -dimension / 2 * math.log2(1 - rho**2)


def centres_of(dimension: int, rng: np.random.Generator, *, in_cube: bool) -> Points:
    """Place the centres of the blobs, (5, D)."""
    if in_cube:
        return rng.uniform(-CUBE, CUBE, size=(GROUPS, dimension))
    centres = rng.normal(size=(GROUPS, dimension))
    centres *= APART / np.linalg.norm(centres, axis=1, keepdims=True)
    return centres


def blobs(
    count: int, centres: Points, redrawn: float, rng: np.random.Generator
) -> tuple[Points, NDArray[np.int64], float]:
    """Draw points, their labels and the information: H(Y) - E H(Y | Z), whose posterior is known, over new points."""
    groups = rng.integers(GROUPS, size=count)
    points = centres[groups] + rng.normal(size=(count, centres.shape[1]))
    new = rng.random(count) < redrawn
    labels = np.where(new, rng.integers(GROUPS, size=count), groups)
    examples = centres[rng.integers(GROUPS, size=EXAMPLES)] + rng.normal(size=(EXAMPLES, centres.shape[1]))
    of_group = softmax(examples @ centres.T - np.square(centres).sum(axis=1) / 2, axis=1)
    of_label = (1 - redrawn) * of_group + redrawn / GROUPS
    return points, labels, math.log2(GROUPS) - float(entr(of_label).sum(axis=1).mean()) / math.log(2)


def ksg(x: Points, y: Points, neighbours: int = NEIGHBOURS) -> float:
    """Estimate I(X; Y) in bits as ψ(k) + ψ(N) - mean[ψ(n_x + 1) + ψ(n_y + 1)], x (N, D), y (N, D').

    n_x counts the points that are closer in X than the k-th neighbour is in both; likewise n_y.
    """
    in_x, in_y = cdist(x, x, "chebyshev"), cdist(y, y, "chebyshev")
    reach = np.partition(np.maximum(in_x, in_y), neighbours, axis=1)[
        :, [neighbours]
    ]  # place 0: the point itself
    near_x, near_y = (in_x < reach).sum(axis=1), (in_y < reach).sum(axis=1)  # with the point itself: n + 1
    nats = digamma(neighbours) + digamma(len(x)) - (digamma(near_x) + digamma(near_y)).mean()
    return float(nats) / math.log(2)


def ross(x: Points, labels: NDArray[np.int64], neighbours: int = NEIGHBOURS) -> float:
    """Estimate I(X; Y) in bits as ψ(N) + ψ(k) - mean[ψ(N_y) + ψ(m)], x (N, D), labels (N,).

    m counts the points within the distance of the k-th neighbour of the same label.
    """
    distances = cdist(x, x, "chebyshev")
    same = labels[:, None] == labels
    reach = np.partition(np.where(same, distances, np.inf), neighbours, axis=1)[:, [neighbours]]
    within = (distances < reach).sum(axis=1)  # with the point itself, and without the k-th neighbour: m
    nats = digamma(len(x)) + digamma(neighbours) - (digamma(same.sum(axis=1)) + digamma(within)).mean()
    return float(nats) / math.log(2)


class Mine:
    """A network T whose bound E[T(x, y)] - log E[exp T(x, y')] is maximised, y' shuffled, over half of the points."""

    def __init__(self, x: Points, y: Points, *, steps: int, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            width = x.shape[1] + y.shape[1]
            self.network = nn.Sequential(
                nn.Linear(width, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 1)
            )
        self.steps = steps
        pairs = (torch.from_numpy(part).float() for part in (x, y))
        (self.x, self.other_x), (self.y, self.other_y) = (part.chunk(2) for part in pairs)

    def train(self) -> float:
        """Train, with the moving average of the denominator that removes the bias of the gradient."""
        optimizer = torch.optim.Adam(self.network.parameters(), lr=1e-3)
        average = torch.tensor(1.0)
        for _ in range(self.steps):
            joint, apart = self._values(self.x, self.y)
            masses = apart.exp().mean()
            average = 0.99 * average + 0.01 * masses.detach()
            loss = masses / average - joint.mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return self._bits(self.x, self.y)

    def on_others(self) -> float:
        """Evaluate the bound on points that were not trained on: it is a lower bound up to their noise."""
        return self._bits(self.other_x, self.other_y)

    def _bits(self, x: Tensor, y: Tensor) -> float:
        with torch.inference_mode():
            joint, apart = self._values(x, y)
            nats = joint.mean() - apart.logsumexp(dim=0) + math.log(len(apart))
        return nats.item() / math.log(2)

    def _values(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        shuffled = y[torch.randperm(len(y), generator=self.generator)]
        both = torch.cat([torch.cat([x, x]), torch.cat([y, shuffled])], dim=1)
        joint, apart = self.network(both)[:, 0].chunk(2)
        return joint, apart


def peer(z: Points, y: NDArray[Any], width: float) -> dict[str, Callable[[], float]]:
    """Offer the authors' package, if it is installed."""
    try:
        from dse_dsmi import diffusion_spectral_mutual_information as of_the_authors
    except ImportError:
        return {}
    return {"dse-dsmi, σ = √d": lambda: float(of_the_authors(z, y, gaussian_kernel_sigma=width)[0])}


def panels() -> list[Panel]:
    """Lay out the picture: three truths, and the time."""

    def of(shape: str) -> Any:
        return lambda frame: (frame["shape"] == shape) & ~frame["estimator"].str.startswith("dse-dsmi")

    wide = {"x_label": "dimensions", "y_label": "bits", "log": True}
    return [
        Panel("Gaussians with 2 bits", "dimension", "bits", "estimator", of("Gaussians"), **wide),
        Panel("blobs, equally far apart", "dimension", "bits", "estimator", of("blobs"), **wide),
        Panel("blobs in a cube", "dimension", "bits", "estimator", of("blobs in a cube"), **wide),
        Panel(
            "blobs in a cube of 20 dimensions", "redrawn", "bits", "estimator", of("labels"),
            x_label="share of labels drawn anew", y_label="bits",
        ),
        Panel(
            "time on blobs", "dimension", "seconds", "estimator",
            lambda frame: (frame["shape"] == "blobs") & (frame["estimator"] != "MINE, other points"),
            **{**wide, "y_label": "seconds of one thread"}, log_y=True,
        ),
    ]  # fmt: skip


if __name__ == "__main__":
    main()
