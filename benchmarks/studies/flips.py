"""The two definitions of the flip estimator side by side, and why batch statistics cost so much here.

    OOD_HARNESS_DATA=... python benchmarks/studies/flips.py

The convnets of the recipes fashion-mnist-batchnorm, mnist-batchnorm and fashion-mnist-groupnorm at half their width,
one training each on 10,800 images. Each is adapted to 600 test images, half of them the probe, under fifteen
corruptions at severity 4 (five of them for GroupNorm): by 40 steps of `flips`, and by 40 steps with the authors' ε of
.05 (`strict`). The first predictions are those of the source model, or those under batch statistics (`adapted`), in
batches of 32, 100 or 300 images. Curves are fitted on 600 held-out training images, clean and under the four
corruptions for validation at severities 2 and 4. Columns that end in _5 and _2 are of the same predictions, with the
classes grouped to five and to two. On two sets the authors' own setting is run, too: 990 steps of SGD. Writes
flips.csv, one line a set; flips.md, the errors; flips.png.
"""

from __future__ import annotations

import copy
import math
import tempfile
from collections.abc import Iterator, Sequence
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
SEVERITY = 4
MILDER = 2  # of calibration, beside it
EXACT = ("clean", "gaussian_noise")  # adapted as the authors do, too
PROBE_BATCHES = (32, 100, 300)
AT_ONCE = 100  # the authors' batches of the probe
GROUPS = (10, 5, 2)
WIDTH = 8  # of the recipes' 16
PROCEDURE = Procedure()
STRICT = replace(PROCEDURE, epsilon=PUBLISHED_PROCEDURE.epsilon)
REPLICATES = 2000
TITLES = {
    "source": "the source's own",
    **{f"adapted_{size}": f"under batch statistics, {size} at once" for size in PROBE_BATCHES},
    "strict": "under batch statistics, 100 at once, ε = .05",
}


@dataclass(frozen=True)
class Run:
    """A network: the dataset and the normalisation."""

    dataset: str
    norm: str
    every: int = 1  # the step over the list of corruptions: 3 takes a third of them

    @property
    def title(self) -> str:
        """Its name in tables and pictures."""
        return f"{self.dataset}, {self.norm}"

    def rows(self, frame: pd.DataFrame) -> pd.Series:
        """Select its rows of the table."""
        return (frame["dataset"] == self.dataset) & (frame["norm"] == self.norm)


RUNS = (
    Run("fashion-mnist", "batchnorm"),
    Run("mnist", "batchnorm"),
    Run("fashion-mnist", "groupnorm", every=3),
)


def main() -> None:
    arguments = options(__doc__, train=12_000, size=600, runs=len(RUNS), shifts=len(SHIFTS), steps=990)
    registry = Registry.load()
    runs = RUNS[: arguments.runs]
    rows = [row for run in each(runs, "flips") for row in measured(run, registry, arguments)]
    frame = write_table(rows, arguments.tables / "flips.csv")
    write_summary(frame, arguments.tables / "flips.md")
    draw(long(frame), panels(runs), arguments.pictures / "flips.png", columns=len(runs))


# Networks and images ------------------------------------------------------------------------------------------------


def measured(run: Run, registry: Registry, arguments: Any) -> Iterator[dict[str, Any]]:
    """Yield a row for each shifted set, for clean test images, and for each calibration set of a network."""
    data = opened(run, registry, arguments.train)
    model = trained(run, data, registry, arguments.device)
    assert data.validation is not None
    shifted = [(kind, SEVERITY) for kind in SHIFTS[: arguments.shifts : run.every]]
    calibrating = [(kind, severity) for kind in CALIBRATION for severity in (MILDER, SEVERITY)]
    for group, part, sets in (
        ("test", data.test, shifted),
        ("calibration", data.validation, calibrating),
    ):
        for kind, severity in (("clean", 0), *sets):
            images, labels = normalised(part.limited(arguments.size), kind, severity, model)
            target = unlabelled(model.classifier, images.to(arguments.device))
            place = {"dataset": run.dataset, "norm": run.norm, "group": group, "kind": kind}
            is_exact = group == "test" and kind in EXACT and run.norm == "batchnorm"
            exact = by_the_authors(target, steps=arguments.steps) if is_exact else (math.nan, math.nan)
            yield {
                **place,
                "severity": severity,
                **numbers(target, labels),
                "updated_exact": exact[0],
                "exact": exact[1],
            }


def opened(run: Run, registry: Registry, train: int) -> IdData:
    """Open a dataset as the suite NAME-estimation does."""
    entry = {
        "dataset": f"hf:{run.dataset.replace('-', '_')}",
        "train": {"split": "train", "limit": train},
        "validation": {"holdout": 0.1, "seed": 0},
        "test": {"split": "test"},
    }
    return open_id(IdEntry.model_validate(entry), registry)


def trained(run: Run, data: IdData, registry: Registry, device: str) -> Model:
    """Load the network of a recipe at half its width from the store, or train it."""
    recipe = f"{run.dataset}-{run.norm}"
    request = ModelRequest(
        name=f"recipe:{recipe}",
        seed=0,
        data=data.training,
        device=device,
        store=Cache(default_root()).models,
        progress=True,
        catalogue=registry,
    )
    with tempfile.TemporaryDirectory() as folder:
        half = Path(folder) / f"{recipe}-half.toml"
        half.write_text(
            f'schema = 1\nname = "{half.stem}"\nbase = "{recipe}"\n'
            f'model_params = {{ width = {WIDTH}, norm = "{run.norm.removesuffix("norm")}" }}\n'
        )
        model = build_recipe(str(half), request)
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


# Scores -------------------------------------------------------------------------------------------------------------


def numbers(target: harness.Unlabelled, labels: Tensor) -> dict[str, float]:
    """Measure the true accuracies, and the rate of flips by each definition, for each grouping of the classes."""
    order = np.random.default_rng(0).permutation(len(target))
    probe, stream = np.split(order, [len(order) // 2])
    source, batch = target.model(), target.model()
    use_batch_statistics(batch)
    adapted, updated = after(target, stream, PROCEDURE)
    strict, updated_strict = after(target, stream, STRICT)
    first = {size: predict(batch, target, probe, size) for size in PROBE_BATCHES}
    last = {size: predict(adapted, target, probe, size) for size in PROBE_BATCHES}
    own = predict(source, target, probe, AT_ONCE)
    pairs = {
        "source": (own, last[AT_ONCE]),
        **{f"adapted_{size}": (first[size], last[size]) for size in PROBE_BATCHES},
        "strict": (first[AT_ONCE], predict(strict, target, probe, AT_ONCE)),
    }
    outputs = {
        "accuracy": torch.cat([own, predict(source, target, stream, AT_ONCE)]),
        "accuracy_batch": torch.cat([first[AT_ONCE], predict(batch, target, stream, AT_ONCE)]),
    }
    truth = labels[order]
    found = {
        f"{name}{ending(groups)}": accuracy(grouped(logits, groups), truth * groups // GROUPS[0])
        for name, logits in outputs.items()
        for groups in GROUPS
    }
    found |= {
        f"{name}{ending(groups)}": rate(*(grouped(logits, groups) for logits in pair))
        for name, pair in pairs.items()
        for groups in GROUPS
    }
    return {**found, "updated": updated, "updated_strict": updated_strict}


def ending(groups: int) -> str:
    """Name the columns of a grouping."""
    return "" if groups == GROUPS[0] else f"_{groups}"


def after(target: harness.Unlabelled, stream: Any, procedure: Procedure) -> tuple[Any, float]:
    """Adapt a copy of the model. Return it, and the share of steps that updated a weight."""
    adapted = target.model()
    positions = shuffled_batches(stream, procedure.batch_size, procedure.steps, 0)
    steps = [
        step.updated for step in procedure.adapter.adapt(adapted, (target.batch(part) for part in positions))
    ]
    return adapted, sum(steps) / len(steps)


def by_the_authors(target: harness.Unlabelled, *, steps: int) -> tuple[float, float]:
    """Follow the authors' setting. Return the share of steps that updated a weight, and the rate of flips."""
    procedure, whole = replace(PUBLISHED_PROCEDURE, steps=steps), np.arange(len(target))
    batch = target.model()
    use_batch_statistics(batch)
    adapted, updated = after(target, whole, procedure)
    before, later = (predict(model, target, whole, procedure.probe_batch) for model in (batch, adapted))
    return updated, rate(before, later)


def grouped(logits: Tensor, groups: int) -> Tensor:
    """Add up the probabilities of classes that follow each other: log probabilities of groups, (N, groups)."""
    return logits.log_softmax(dim=1).unflatten(1, (groups, -1)).logsumexp(dim=2).cpu()


def accuracy(logits: Tensor, labels: Tensor) -> float:
    """Compute the share of images whose largest logit is that of their label."""
    return float((logits.argmax(dim=1) == labels).double().mean())


def rate(before: Tensor, later: Tensor) -> float:
    """Compute the rate of flips, weighted by the rank of the first confidence."""
    flipped = (before.argmax(dim=1) != later.argmax(dim=1)).double()
    weights = flip_weights(before.softmax(dim=1).amax(dim=1))
    return float((weights * flipped).sum()) / ((len(flipped) + 1) / 2)


# Errors -------------------------------------------------------------------------------------------------------------


def write_summary(frame: pd.DataFrame, path: Path) -> None:
    """Write two tables as Markdown: errors by network and definition, and with the classes grouped."""
    present = [run for run in RUNS if run.rows(frame).any()]
    by_definition = [by_name(frame, run, name) for run in present for name in TITLES]
    by_groups = [
        grouped_line(frame, run, groups) for run in present if run.norm == "batchnorm" for groups in GROUPS
    ]
    path.write_text(f"{_table(by_definition)}\n{_table(by_groups)}", encoding="utf-8")
    print(path)


def by_name(frame: pd.DataFrame, run: Run, name: str) -> dict[str, str]:
    """Summarise a definition on the shifted sets of a network: errors in points, and Spearman's correlations."""
    shifted = shifted_of(frame, run)
    scores, truth = shifted[name], shifted["accuracy"]
    published = [published_accuracy(500.5 * score, "weighted_quadratic") for score in scores]
    return {
        "network": run.title,
        "first predictions": TITLES[name],
        "error with a curve": _error(with_curve(frame, run, name), truth),
        "error with the published f": _error(published, truth),
        "correlation with accuracy": _correlation(scores, truth),
        "with accuracy under batch statistics": _correlation(scores, shifted["accuracy_batch"]),
    }


def grouped_line(frame: pd.DataFrame, run: Run, groups: int) -> dict[str, str]:
    """Summarise both definitions on the shifted sets of a network with its classes grouped."""
    shifted, end = shifted_of(frame, run), ending(groups)
    truth = shifted[f"accuracy{end}"]
    found = {
        "network": run.title,
        "classes": str(groups),
        "accuracy, %": _range(truth),
        "under batch statistics, %": _range(shifted[f"accuracy_batch{end}"]),
    }
    for name, title in (("source", "source"), (f"adapted_{AT_ONCE}", "batch statistics")):
        column = f"{name}{end}"
        found[f"error, {title}"] = _error(with_curve(frame, run, name, end), truth)
        found[f"correlation, {title}"] = _correlation(shifted[column], truth)
    return found


def shifted_of(frame: pd.DataFrame, run: Run) -> pd.DataFrame:
    """Select the shifted test sets of a network."""
    mine = frame[run.rows(frame)]
    return mine[(mine["group"] == "test") & (mine["kind"] != "clean")]


def _table(rows: Sequence[dict[str, str]]) -> str:
    lines = [list(rows[0]), ["---"] * len(rows[0]), *(list(row.values()) for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def with_curve(frame: pd.DataFrame, run: Run, name: str, end: str = "") -> list[float] | None:
    """Read scores by a curve that was fitted on the calibration sets; None if these have too few scores."""
    calibration = frame[run.rows(frame) & (frame["group"] == "calibration")]
    points = [
        Point(row["kind"], row[f"{name}{end}"], row[f"accuracy{end}"])
        for row in calibration.to_dict(orient="records")
    ]
    try:
        curve = Curve.of(points)
    except harness.InputError:
        return None
    return [curve.accuracy(score) for score in shifted_of(frame, run)[f"{name}{end}"]]


def _range(values: pd.Series) -> str:
    return f"{100 * values.min():.0f} to {100 * values.max():.0f}"


def _error(found: Sequence[float] | None, truth: pd.Series) -> str:
    """Show the mean absolute error in points, with its 95 % interval by bootstrap over corruptions."""
    if found is None:
        return "–"
    errors = 100 * np.abs(np.asarray(found) - truth.to_numpy())
    drawn = np.random.default_rng(0).integers(len(errors), size=(REPLICATES, len(errors)))
    low, high = np.quantile(errors[drawn].mean(axis=1), [0.025, 0.975])
    return f"{errors.mean():.1f} [{low:.1f}, {high:.1f}]"


def _correlation(scores: pd.Series, truth: pd.Series) -> str:
    if min(scores.nunique(), truth.nunique()) < 2:
        return "–"
    return f"{float(spearmanr(scores, truth).statistic):.2f}"


# The picture --------------------------------------------------------------------------------------------------------


def long(frame: pd.DataFrame) -> pd.DataFrame:
    """Give each shifted set a row for each of the two definitions and of the two accuracies."""
    shifted = pd.concat(shifted_of(frame, run) for run in RUNS)
    return pd.concat(
        shifted.assign(definition=TITLES[name], score=shifted[name])
        for name in ("source", f"adapted_{AT_ONCE}")
    )


def panels(runs: Sequence[Run]) -> list[Panel]:
    """Lay out two panels a network: the accuracy of either kind over the rate of flips, set by set."""
    return [
        Panel(
            run.title,
            "score",
            column,
            "definition",
            run.rows,
            x_label="rate of flips",
            y_label=label,
            scatter=True,
        )
        for column, label in (
            ("accuracy", "accuracy of the source"),
            ("accuracy_batch", "accuracy under batch statistics"),
        )
        for run in runs
    ]


if __name__ == "__main__":
    main()
