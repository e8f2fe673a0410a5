"""Whether training by entropy and reconstruction is stable with small batches and fast teachers, as its paper claims.

    OOD_HARNESS_DATA=... python benchmarks/studies/stability.py

ER alone and with an EMA teacher, beside InfoNCE, BYOL and DINO of the same encoder and projector, at batch 32, 128 and
512, teachers at momentum 0.8, 0.99 and 0.996; 3 seeds. Shrunk for two cores: 4,000 images of Fashion-MNIST, a convnet
of 18,000 weights, 4 epochs instead of 100 and more, so that a batch of 32 has 500 steps and one of 512 has 28. Writes
stability.csv: accuracy of k nearest neighbours and of a linear probe on 3,000 test images, and the vMF entropy of
the features; and stability.png.
"""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from common import Panel, draw, encoder_measures, fashion_mnist, options, write_table

from harness.base.errors import HarnessError
from harness.base.progress import progress_bar
from harness.contract.registry import Registry
from harness.models.training.recipe import load_recipe
from harness.models.training.training import Training

BATCHES, MOMENTA = (32, 128, 512), (0.8, 0.99, 0.996)
RECIPE, WIDTH = "fashion-mnist-er", 8  # all methods differ from it in the objective alone
OBJECTIVES: dict[str, tuple[str, dict[str, Any]]] = {
    "ER": ("er", {}),
    "ER, discrete": ("er", {"support": "discrete"}),
    "InfoNCE": ("infonce", {}),
    "ER + teacher": ("er", {}),
    "BYOL": ("byol", {}),
    "DINO": ("dino", {}),
}
TAUGHT = ("ER + teacher", "BYOL", "DINO")
UNTRAINED = "untrained"  # what the others must beat
MOMENTUM = 0.99  # at which teachers are drawn over the batch


@dataclass(frozen=True)
class Setting:
    """One training."""

    method: str
    batch: int
    momentum: float | None
    seed: int


def settings(seeds: int) -> list[Setting]:
    """List all trainings, the quick ones last."""
    found = []
    for seed in range(seeds):
        for method in OBJECTIVES:
            momenta = MOMENTA if method in TAUGHT else (None,)
            found += [Setting(method, batch, momentum, seed) for batch in BATCHES for momentum in momenta]
        found.append(Setting(UNTRAINED, BATCHES[1], None, seed))
    return sorted(found, key=lambda setting: setting.batch)


def main() -> None:
    arguments = options(__doc__, seeds=3, epochs=4, train=4000, test=3000, workers=os.cpu_count() or 1)
    todo = settings(arguments.seeds)
    rows = []
    with (
        ProcessPoolExecutor(arguments.workers) as pool,
        progress_bar(total=len(todo), description="stability", unit="run", enabled=True) as bar,
    ):
        for done in as_completed([pool.submit(measure, setting, arguments) for setting in todo]):
            rows.append(done.result())
            bar.update()
    rows.sort(key=lambda row: (row["method"], row["batch"], row["momentum"] or 0, row["seed"]))
    frame = write_table(rows, arguments.tables / "stability.csv")
    frame = frame.assign(momentum=frame["momentum"].astype(float))
    frame["away"] = (1 - frame["momentum"]).round(6)
    draw(frame, panels(), arguments.pictures / "stability.png")


def measure(setting: Setting, arguments: Any) -> dict[str, Any]:
    """Train one encoder and measure its frozen features."""
    if arguments.workers > 1:
        torch.set_num_threads(1)
    data = fashion_mnist(train=arguments.train, test=arguments.test)
    registry = Registry.load()
    objective, params = OBJECTIVES.get(setting.method, OBJECTIVES["ER"])
    taught = {} if setting.momentum is None else {"ema": setting.momentum}
    recipe = load_recipe(RECIPE, registry).model_copy(
        update={
            "model_params": {"width": WIDTH},
            "objective": objective,
            "objective_params": params | taught,
            "epochs": arguments.epochs,
            "batch_size": setting.batch,
        }
    )
    assert data.train is not None and data.training is not None
    place = {
        "method": setting.method,
        "batch": setting.batch,
        "momentum": setting.momentum,
        "seed": setting.seed,
    }
    training = Training(recipe, data.training, setting.seed, registry, arguments.device)
    try:
        is_trained = setting.method != UNTRAINED
        model = training.run().model if is_trained else training.blueprint.build(seed=setting.seed)
        classifier: Any = model.classifier
    except HarnessError as error:  # it diverged, which is an answer
        print(error)
        return {**place, "knn": np.nan, "linear": np.nan, "entropy": np.nan}
    return {**place, **encoder_measures(classifier, data)}


def panels() -> list[Panel]:
    """Lay out the picture: accuracy over the batch, and over the teacher's momentum."""

    def by_batch(frame: Any) -> Any:
        return frame["momentum"].isna() | (frame["momentum"] == MOMENTUM)

    def by_momentum(batch: int) -> Any:
        return lambda frame: frame["method"].isin(TAUGHT) & (frame["batch"] == batch)

    shown = (("knn", "k nearest neighbours"), ("linear", "linear probe"))
    over_batch = [
        Panel(
            f"{title}, momentum {MOMENTUM}", "batch", column, "method", by_batch, y_label="accuracy", log=True
        )
        for column, title in shown
    ]
    over_momentum = [
        Panel(
            f"k nearest neighbours, batch {batch}",
            "away",
            "knn",
            "method",
            by_momentum(batch),
            x_label="1 - momentum",
            y_label="accuracy",
            log=True,
        )
        for batch in BATCHES
    ]
    return over_batch + over_momentum


if __name__ == "__main__":
    main()
