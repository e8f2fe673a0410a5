"""The two definitions of the flip estimator side by side, and why batch statistics cost so much on few classes.

    OOD_HARNESS_DATA=... python benchmarks/studies/flips.py

The convnets of the recipes fashion-mnist-batchnorm, mnist-batchnorm and fashion-mnist-groupnorm, one training each on
21,600 images, and two more of fashion-mnist-batchnorm on the first 5 and the first 2 classes. Each is adapted to 400
test images under fifteen corruptions at severity 3, by 40 steps of flips, once per set; the probe of 200 images is
predicted before and after. The first predictions are those of the source model, or those under batch statistics
(adapted), in batches of 20, 100 or 200 images. Curves are fitted on 400 held-out training images, clean and under the
four corruptions for validation at severities 1, 3 and 5.
Writes flips.csv, one line a set; flips.md, the errors; flips.png.

`published` is the error of the authors' quadratic at the same counts. Their own setting is run on clean test images,
once per network: `updated, authors` is the share of its steps, here 330, that update a weight.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from common import Panel, draw, each, options, write_table
from scipy.stats import spearmanr
from torch import Tensor

import harness
from harness.base.cache import Cache, default_root
from harness.contract.registry import Registry
from harness.contract.selection import Selection
from harness.contract.specs import Model, ModelRequest
from harness.data.id_data import IdData
from harness.data.opening import open_id
from harness.data.tables import IdEntry
from harness.evaluations.estimation.curve import Curve, Point
from harness.models.training.store import build_recipe
from harness_plugins.adapters.layers import use_batch_statistics
from harness_plugins.datasets.corruptions.dataset import CorruptedDataset
from harness_plugins.estimators.flipping import flip_weights, predict, published_accuracy, shuffled_batches
from harness_plugins.estimators.procedure import PUBLISHED_PROCEDURE, Procedure

SHIFTS = (
    "gaussian_noise", "shot_noise", "impulse_noise", "defocus_blur", "glass_blur", "motion_blur", "zoom_blur", "snow",
    "frost", "fog", "brightness", "contrast", "elastic_transform", "pixelate", "jpeg_compression",
)  # fmt: skip
CALIBRATION = ("speckle_noise", "gaussian_blur", "spatter", "saturate")
SEVERITIES = {"test": (3,), "calibration": (1, 3, 5)}
PROBE_BATCHES = (20, 100, 200)
SOURCE = "source"
ADAPTED = [f"adapted_{size}" for size in PROBE_BATCHES]
PROCEDURE = Procedure()


@dataclass(frozen=True)
class Run:
    """A network: dataset, normalisation, and the number of its classes."""

    dataset: str
    norm: str
    classes: int

    @property
    def title(self) -> str:
        """Its name in the table."""
        return f"{self.dataset}, {self.norm}, {self.classes} classes"


RUNS = (
    Run("fashion-mnist", "batchnorm", 10),
    Run("mnist", "batchnorm", 10),
    Run("fashion-mnist", "batchnorm", 5),
    Run("fashion-mnist", "batchnorm", 2),
    Run("fashion-mnist", "groupnorm", 10),
)


def main() -> None:
    arguments = options(__doc__, train=24_000, size=400, runs=len(RUNS), shifts=len(SHIFTS), authors=330)
    registry = Registry.load()
    rows = [
        row for run in each(RUNS[: arguments.runs], "flips") for row in measured(run, registry, arguments)
    ]
    frame = write_table(rows, arguments.tables / "flips.csv")
    write_summary(frame, arguments.tables / "flips.md")
    draw(long(frame), panels(frame), arguments.pictures / "flips.png")


def measured(run: Run, registry: Registry, arguments: Any) -> Iterator[dict[str, Any]]:
    """Yield a row for clean test images, for each shifted set, and for each calibration set of a network."""
    data = opened(run, registry, arguments.train)
    model = trained(run, data, registry, arguments.device)
    assert data.validation is not None
    parts = {
        "test": data.test.limited(arguments.size),
        "calibration": data.validation.limited(arguments.size),
    }
    shifts = SHIFTS[: arguments.shifts]
    for group, kinds in (("test", shifts), ("calibration", CALIBRATION)):
        for kind, severity in (
            ("clean", 0),
            *((kind, severity) for kind in kinds for severity in SEVERITIES[group]),
        ):
            images, labels = normalised(parts[group], kind, severity, model)
            place = {"dataset": run.dataset, "norm": run.norm, "classes": run.classes, "group": group}
            row = numbers(model.classifier, images.to(arguments.device), labels)
            updated = math.nan
            if (group, kind) == ("test", "clean"):
                updated = updated_by_the_authors(model.classifier, images, steps=arguments.authors)
            yield {**place, "kind": kind, "severity": severity, **row, "updated_authors": updated}


def opened(run: Run, registry: Registry, train: int) -> IdData:
    """Open a dataset with its first classes, as the suite NAME-estimation does."""
    entry = {
        "dataset": f"hf:{run.dataset.replace('-', '_')}",
        "classes": list(range(run.classes)),
        "train": {"split": "train", "limit": train * run.classes // 10},
        "validation": {"holdout": 0.1, "seed": 0},
        "test": {"split": "test"},
    }
    return open_id(IdEntry.model_validate(entry), registry)


def trained(run: Run, data: IdData, registry: Registry, device: str) -> Model:
    """Load the network of a recipe from the store, or train it."""
    recipe = f"{run.dataset}-{run.norm}"
    request = ModelRequest(
        name=f"recipe:{recipe}",
        argument=recipe,
        seed=0,
        data=data.training,
        device=device,
        store=Cache(default_root()).models,
        progress=True,
        catalogue=registry,
    )
    model = build_recipe(recipe, request)
    classifier: Any = model.classifier
    return replace(model, classifier=classifier.to(device).eval())


def normalised(part: Selection, kind: str, severity: int, model: Model) -> tuple[Tensor, Tensor]:
    """Decode a part of the data under a corruption, (N, 1, 28, 28), with its labels (N,)."""
    if severity:
        changed = CorruptedDataset(part, kind, severity=severity)
        part = Selection(kind, changed, np.arange(len(part)), part.labels)
    images = model.preprocessing.batch(part.images(range(len(part))))
    return model.preprocessing.normalise(images), torch.from_numpy(part.labels)


def unlabelled(classifier: Any, images: Tensor) -> harness.Unlabelled:
    """Offer images to the procedure of the estimator."""
    return harness.Unlabelled(
        harness.FeatureSet({"ids": np.arange(len(images))}),
        batch=lambda positions: images[positions],
        model=lambda: copy.deepcopy(classifier).eval(),
    )


def numbers(classifier: Any, images: Tensor, labels: Tensor) -> dict[str, Any]:
    """Measure true accuracies, and the rate of flips by each definition, from one adaptation."""
    target = unlabelled(classifier, images)
    order = np.random.default_rng(0).permutation(len(images))
    probe, stream = np.split(order, [len(images) // 2])
    source, batch = target.model(), target.model()
    use_batch_statistics(batch)
    adapted = target.model()
    positions = shuffled_batches(stream, PROCEDURE.batch_size, PROCEDURE.steps, 0)
    steps = list(PROCEDURE.adapter.adapt(adapted, (target.batch(part) for part in positions)))
    last = {size: predict(adapted, target, probe, size) for size in PROBE_BATCHES}
    before = {
        SOURCE: (predict(source, target, probe, 100), last[100]),
        **{f"adapted_{size}": (predict(batch, target, probe, size), last[size]) for size in PROBE_BATCHES},
    }
    everything = np.arange(len(images))
    return {
        "accuracy": accuracy(predict(source, target, everything, 100), labels),
        "accuracy_batch": accuracy(predict(batch, target, everything, 100), labels),
        **{f"score_{name}": rate(*pair) for name, pair in before.items()},
        "updated": sum(step.updated for step in steps) / len(steps),
    }


def accuracy(logits: Tensor, labels: Tensor) -> float:
    """Compute the share of images whose largest logit is that of their label."""
    return float((logits.argmax(dim=1).cpu() == labels).double().mean())


def rate(before: Tensor, after: Tensor) -> float:
    """Compute the rate of flips, weighted by the rank of the first confidence."""
    flipped = (before.argmax(dim=1) != after.argmax(dim=1)).double()
    weights = flip_weights(before.softmax(dim=1).amax(dim=1))
    return float((weights * flipped).sum()) / ((len(flipped) + 1) / 2)


def updated_by_the_authors(classifier: Any, images: Tensor, *, steps: int) -> float:
    """Adapt as the authors do, and return the share of the steps that updated a weight."""
    target = unlabelled(classifier, images)
    procedure = replace(PUBLISHED_PROCEDURE, steps=steps)
    positions = shuffled_batches(np.arange(len(images)), procedure.batch_size, procedure.steps, 0)
    adapted = procedure.adapter.adapt(target.model(), (target.batch(part) for part in positions))
    return sum(step.updated for step in adapted) / steps


def write_summary(frame: pd.DataFrame, path: Path) -> None:
    """Write the errors of each definition, a line a network and definition, as Markdown."""
    header = (
        "network", "accuracies (%)", "gained by batch statistics", "first predictions", "error with a curve",
        "with the published f", "correlation with accuracy", "with that under batch statistics", "updated (%)",
        "updated, authors (%)",
    )  # fmt: skip
    rows = [row for run in RUNS for row in summary(frame, run)]
    lines = [header, ["---"] * len(header), *rows]
    path.write_text("".join(f"| {' | '.join(line)} |\n" for line in lines), encoding="utf-8")
    print(path)


def summary(frame: pd.DataFrame, run: Run) -> Iterator[list[str]]:
    """Summarise a network: mean absolute errors over its shifted sets in points, and Spearman's correlations."""
    mine = frame[
        (frame["dataset"] == run.dataset) & (frame["norm"] == run.norm) & (frame["classes"] == run.classes)
    ]
    calibration = mine[mine["group"] == "calibration"]
    shifted = mine[(mine["group"] == "test") & (mine["kind"] != "clean")]
    for name in (SOURCE, *ADAPTED) if len(mine) else ():
        scores, truth = shifted[f"score_{name}"], shifted["accuracy"]
        published = [published_accuracy(500.5 * score, "weighted_quadratic") for score in scores]
        yield [
            run.title,
            f"{100 * truth.min():.0f} to {100 * truth.max():.0f}",
            f"{100 * (shifted['accuracy_batch'] - truth).mean():+.1f}",
            name.replace("_", ", batches of "),
            _points(with_curve(calibration, name, scores), truth),
            _points(published, truth),
            _correlation(scores, truth),
            _correlation(scores, shifted["accuracy_batch"]),
            f"{100 * shifted['updated'].mean():.0f}",
            f"{100 * mine['updated_authors'].mean():.1f}",
        ]


def with_curve(calibration: pd.DataFrame, name: str, scores: pd.Series) -> list[float] | None:
    """Read scores by a curve that was fitted on the calibration sets; None if these have too few scores."""
    points = [
        Point(row["kind"], row[f"score_{name}"], row["accuracy"])
        for row in calibration.to_dict(orient="records")
    ]
    try:
        curve = Curve.of(points)
    except harness.InputError:
        return None
    return [curve.accuracy(score) for score in scores]


def _points(found: list[float] | None, truth: pd.Series) -> str:
    return "–" if found is None else f"{100 * np.abs(np.asarray(found) - truth.to_numpy()).mean():.1f}"


def _correlation(scores: pd.Series, truth: pd.Series) -> str:
    if min(scores.nunique(), truth.nunique()) < 2:
        return "–"
    return f"{float(spearmanr(scores, truth).statistic):.2f}"


def long(frame: pd.DataFrame) -> pd.DataFrame:
    """Give each shifted set a row for each definition."""
    shifted = frame[(frame["group"] == "test") & (frame["kind"] != "clean")]
    named = {
        SOURCE: "first predictions of the source",
        "adapted_100": "under batch statistics, batches of 100",
    }
    return pd.concat(
        shifted.assign(definition=title, score=shifted[f"score_{name}"]) for name, title in named.items()
    )


def panels(frame: pd.DataFrame) -> list[Panel]:
    """Lay out a panel a network: the true accuracy over the rate of flips, set by set."""
    found = []
    for run in RUNS:

        def rows(whole: pd.DataFrame, run: Run = run) -> pd.Series:
            return (
                (whole["dataset"] == run.dataset)
                & (whole["norm"] == run.norm)
                & (whole["classes"] == run.classes)
            )

        if rows(frame).any():
            found.append(
                Panel(
                    run.title,
                    "score",
                    "accuracy",
                    "definition",
                    rows,
                    x_label="rate of flips",
                    y_label="true accuracy",
                    scatter=True,
                )
            )
    return found


if __name__ == "__main__":
    main()
