"""Whether ER can take the place of the objectives of the main families of self-supervised learning.

    OOD_HARNESS_DATA=... python benchmarks/studies/families.py

InfoNCE (SimCLR), BYOL, DINO, SwAV and DeepCluster, each against ER in its place: on the sphere without and with an EMA
teacher, on prototypes with and without one. SwAV and DeepCluster have the same ER form. Encoder, projector and batch
size are the same for all, the rest is that of the recipes fashion-mnist-*. Shrunk for two cores: 4,000 images of
Fashion-MNIST, a convnet of 18,000 weights, 4 epochs, which are 250 steps. Writes families.csv, a row per training:
accuracy of k nearest neighbours and of a linear probe on frozen features of 1,000 test images, and the vMF entropy of
the features; families-intervals.csv, means over seeds with 95 % intervals; and families.png.
"""

from __future__ import annotations

import math
import os
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import lru_cache
from typing import Any

import pandas as pd
import torch
from common import Panel, draw, encoder_measures, fashion_mnist, options, write_table
from scipy.stats import t as student_t

from harness.base.progress import progress_bar
from harness.contract.registry import Registry
from harness.data.id_data import IdData
from harness.models.training.recipe import load_recipe
from harness.models.training.training import Training

FAMILIES = {  # the objective's recipe, and that of ER in its place
    "SimCLR": ("infonce", "er"),
    "BYOL": ("byol", "er-ema"),
    "DINO": ("dino", "er-dino"),
    "SwAV": ("swav", "er-swav"),
    "DeepCluster": ("deepcluster", "er-swav"),
}
UNTRAINED = "untrained"  # what the others must beat
RECIPES = (*dict.fromkeys(recipe for pair in FAMILIES.values() for recipe in pair), UNTRAINED)
MEASURES = {"knn": "k nearest neighbours", "linear": "linear probe"}
CONFIDENCE = 0.95


def main() -> None:
    arguments = options(
        __doc__, seeds=3, epochs=4, train=4000, test=1000, width=8, batch=64, workers=os.cpu_count() or 1
    )
    todo = [(recipe, seed) for seed in range(arguments.seeds) for recipe in RECIPES]
    rows = []
    with (
        ProcessPoolExecutor(arguments.workers) as pool,
        progress_bar(total=len(todo), description="families", unit="run", enabled=True) as bar,
    ):
        for done in as_completed([pool.submit(measure, *which, arguments) for which in todo]):
            rows.append(done.result())
            bar.update()
    rows.sort(key=lambda row: (RECIPES.index(row["recipe"]), row["seed"]))
    table = write_table(rows, arguments.tables / "families.csv")
    write_table(intervals(table), arguments.tables / "families-intervals.csv")
    draw(pairs(table), panels(), arguments.pictures / "families.png", columns=2)


def measure(name: str, seed: int, arguments: Any) -> dict[str, Any]:
    """Train one encoder and measure its frozen features."""
    if arguments.workers > 1:
        torch.set_num_threads(1)
    registry, data = opened(arguments.train, arguments.test)
    recipe = load_recipe(f"fashion-mnist-{name if name != UNTRAINED else 'er'}", registry)
    change: dict[str, Any] = {
        "model_params": {"width": arguments.width},
        "epochs": arguments.epochs,
        "batch_size": arguments.batch,
    }
    if "memory" in recipe.objective_params:  # DeepCluster's, of one epoch
        change["objective_params"] = recipe.objective_params | {"memory": arguments.train}
    assert data.training is not None
    training = Training(recipe.model_copy(update=change), data.training, seed, registry, arguments.device)
    model = training.blueprint.build(seed=seed) if name == UNTRAINED else training.run().model
    return {"recipe": name, "seed": seed, **encoder_measures(model.classifier, data)}


@lru_cache(maxsize=1)
def opened(train: int, test: int) -> tuple[Registry, IdData]:
    """Open plugins and data, once in a process."""
    return Registry.load(), fashion_mnist(train=train, test=test)


def intervals(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Compute the mean of each recipe over seeds, with Student's interval."""
    return [
        {"recipe": recipe, "measure": name, "seeds": len(of_recipe), **interval(of_recipe[name])}
        for recipe, of_recipe in table.groupby("recipe", sort=False)
        for name in MEASURES
    ]


def interval(values: pd.Series) -> dict[str, float]:
    """Compute mean ± t · s / √n; of one seed there is no interval."""
    half = math.nan
    if len(values) > 1:
        half = student_t.ppf((1 + CONFIDENCE) / 2, len(values) - 1) * values.std() / math.sqrt(len(values))
    return {"mean": values.mean(), "lo": values.mean() - half, "hi": values.mean() + half}


def pairs(table: pd.DataFrame) -> pd.DataFrame:
    """Put the objective and ER of the same family and seed beside each other."""
    of = table.set_index(["recipe", "seed"])
    return pd.DataFrame(
        {
            "family": family,
            **{f"{name}_objective": of.loc[(objective, seed), name] for name in MEASURES},
            **{f"{name}_er": of.loc[(er, seed), name] for name in MEASURES},
        }
        for family, (objective, er) in FAMILIES.items()
        for seed in sorted(table["seed"].unique())
    )


def panels() -> list[Panel]:
    """Lay out the picture: ER's accuracy over the objective's, a point per seed."""
    return [
        Panel(
            title,
            f"{name}_objective",
            f"{name}_er",
            "family",
            x_label="accuracy of the objective",
            y_label="accuracy of ER in its place",
            scatter=True,
            diagonal=True,
        )
        for name, title in MEASURES.items()
    ]


if __name__ == "__main__":
    main()
