"""How soon a batch-level detector notices drift: DSE of reference and batch, mean 10-NN, MMD, at rising shares of OOD.

    OOD_HARNESS_DATA=... python benchmarks/studies/drift.py

The convnet of the recipe fashion-mnist-softmax on 8,400 images, 3 seeds; reference and mean ± sd from 3,600 validation
images, disjoint batches of 100 from ID test, with 0, 5, 10, 25 and 50 % of MNIST. Writes drift.csv (AUROC of
contaminated batches against clean ones) and drift.png.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from common import Panel, draw, each, features, options, trained, write_table
from torch import Tensor

import harness
from harness.contract.registry import Registry
from harness.data.opening import open_dataset, open_id
from harness.data.tables import IdEntry
from harness_plugins.probes.drift import DriftDetector

RECIPE = "fashion-mnist-softmax"
DATA = {
    "dataset": "hf:fashion_mnist",
    "train": {"split": "train", "limit": 12_000},
    "validation": {"holdout": 0.3},
    "test": {"split": "test"},
}
SHARES = (0, 5, 10, 25, 50)  # per cent of a batch that is OOD
REFERENCE = 500
DETECTORS = {
    "|DSE - μ|/sd, σ = median/4": DriftDetector("dse", scale=0.25),
    "|DSE - μ|/sd, σ = median/2": DriftDetector("dse", scale=0.5),
    "|DSE - μ|/sd, σ = median": DriftDetector("dse"),
    "mean 10-NN": DriftDetector("knn"),
    "MMD": DriftDetector("mmd"),
}


def main() -> None:
    arguments = options(__doc__, seeds=3, size=100, batches=40)
    registry = Registry.load()
    data = open_id(IdEntry.model_validate(DATA), registry)
    ood = open_dataset("mnist", "hf:mnist", registry, split="test")
    rows: list[dict[str, Any]] = []
    for seed in each(range(arguments.seeds), "drift"):
        network = trained(RECIPE, seed, data, registry, arguments.device).classifier
        assert data.validation is not None
        held, clean, drifted = (features(network, part) for part in (data.validation, data.test, ood))
        rows += compare(held, clean, drifted, seed, arguments)
    frame = write_table(rows, arguments.tables / "drift.csv")
    panel = Panel(
        "Batches of 100: contaminated against clean", "percent", "auroc", "detector", x_label="OOD in a batch (%)",
        y_label="AUROC", lines=(0.5,),
    )  # fmt: skip
    draw(frame[frame["percent"] > 0], [panel], arguments.pictures / "drift.png", columns=1)


def compare(held: Tensor, clean: Tensor, drifted: Tensor, seed: int, arguments: Any) -> list[dict[str, Any]]:
    """Score clean and contaminated batches with every detector. No sample is in two batches of one comparison."""
    size, count = arguments.size, arguments.batches
    rng = np.random.default_rng(seed)
    held, clean, drifted = (
        part[torch.from_numpy(rng.permutation(len(part)))] for part in (held, clean, drifted)
    )
    reference, calibration = held[:REFERENCE], held[REFERENCE:].split(size)
    calibration = [batch for batch in calibration if len(batch) == size]
    first, rest = clean[: count * size].split(size), clean[count * size :]
    rows = []
    for name, detector in DETECTORS.items():
        fitted = detector.fit(reference, calibration)
        on_clean = [fitted.score(batch) for batch in first]
        for percent in SHARES:
            batches = contaminated(rest, drifted, percent, size, count)
            scores = [fitted.score(batch) for batch in batches]
            auroc = harness.metrics.auroc(on_clean, scores)
            alarms = float(np.mean(np.array(scores) > 2))
            rows.append(
                {
                    "detector": name,
                    "seed": seed,
                    "percent": percent,
                    "auroc": auroc,
                    "share_above_2_sd": alarms,
                }
            )
    return rows


def contaminated(clean: Tensor, drifted: Tensor, percent: int, size: int, count: int) -> list[Tensor]:
    """Cut disjoint batches, so many per cent of each drifted."""
    bad = size * percent // 100
    good = size - bad
    return [
        torch.cat([clean[i * good : (i + 1) * good], drifted[i * bad : (i + 1) * bad]]) for i in range(count)
    ]


if __name__ == "__main__":
    main()
