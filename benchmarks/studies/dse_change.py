"""Which way a sample changes DSE: AUROC of the scorer dse_change over its width and its time, beside that of dse.

    python benchmarks/studies/dse_change.py

The perceptron of the recipe digits-mlp, 3 seeds, on digits 0 to 4; their test images against digits 5 to 9 and against
letters, 200 at most. Widths are multiples of the median distance of the bank, and of the other scorer's features.
Writes dse_change.csv and dse_change.png.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from common import Panel, draw, each, features, options, trained, write_table
from torch import Tensor

import harness
from harness.contract.registry import Registry
from harness.contract.selection import Selection
from harness.contract.specs import Model
from harness.data.opening import open_dataset, open_id
from harness.data.tables import IdEntry
from harness_plugins.probes.clouds import resolve_width
from harness_plugins.scorers.dse import Dse, class_balanced
from harness_plugins.scorers.dse_change import DseChange

RECIPE = "digits-mlp"
ID = {"dataset": "digits", "classes": [0, 1, 2, 3, 4], "train": {"split": "train"}, "test": {"split": "test"}}
MULTIPLES = tuple(2.0**k for k in range(-4, 5))
TIMES = (1, 2, 5)


def main() -> None:
    arguments = options(__doc__, seeds=3, test=200, bank=100)
    registry = Registry.load()
    data = open_id(IdEntry.model_validate(ID), registry)
    unknown = {
        "digits 5-9": open_dataset("digits-5-9", "digits", registry, split="test", classes=[5, 6, 7, 8, 9]),
        "letters": open_dataset("letters", "letters", registry),
    }
    sets = {name: part.limited(arguments.test) for name, part in {"id": data.test, **unknown}.items()}
    rows: list[dict[str, Any]] = []
    for seed in each(range(arguments.seeds), "dse_change"):
        model = trained(RECIPE, seed, data, registry, arguments.device)
        rows += measure(model, data.train, sets, seed, arguments.bank)
    frame = write_table(rows, arguments.tables / "dse_change.csv")
    draw(frame, panels(), arguments.pictures / "dse_change.png", columns=2)


def measure(
    model: Model, train: Selection, sets: dict[str, Selection], seed: int, bank: int
) -> list[dict[str, Any]]:
    """Score ID test and each OOD set with every width and time."""
    forward = partial(features, model.classifier, preprocessing=model.preprocessing)
    known = harness.Features(penultimate=forward(train), labels=torch.as_tensor(train.labels))
    fitting = harness.FitData(train=harness.FeatureSet.of(known))
    median = resolve_width(known.penultimate[class_balanced(train.labels, bank, seed=0)], "median")
    queries = {name: forward(part) for name, part in sets.items()}
    rows = []
    for multiple in MULTIPLES:
        sigma = multiple * median
        scorers = {f"dse_change, t = {t}": DseChange(sigma=sigma, t=t, bank=bank) for t in TIMES}
        for name, scorer in {**scorers, "dse": Dse(scale=multiple)}.items():
            place = {"seed": seed, "scorer": name, "multiple": multiple, "sigma": sigma}
            scores = scored(scorer.fit(fitting), queries)
            known_scores = scores.pop("id")
            rows += [
                {**place, "ood": ood, "auroc": harness.metrics.auroc(known_scores, found)}
                for ood, found in scores.items()
            ]
    return rows


def scored(scorer: Any, sets: dict[str, Tensor]) -> dict[str, Any]:
    return {name: scorer.score(harness.Features(penultimate=rows)).numpy() for name, rows in sets.items()}


def panels() -> list[Panel]:
    """Lay out the picture: a panel for each OOD set."""
    return [
        Panel(
            f"digits 0-4 against {ood}", "multiple", "auroc", "scorer", lambda frame, ood=ood: frame["ood"] == ood,
            x_label="σ / median distance", y_label="AUROC", log=True, lines=(0.5,),
        )
        for ood in ("digits 5-9", "letters")
    ]  # fmt: skip


if __name__ == "__main__":
    main()
