"""DSE and DSMI along training: six backbones, three ways of training, two datasets, three seeds.

    OOD_HARNESS_DATA=... python benchmarks/studies/backbones.py           # both suites, then the tables
    python benchmarks/studies/backbones.py --run 0                        # from the curves that the runs left

Runs the suites fashion-mnist-backbones and mnist-backbones; what they hold already is not measured again. Writes
backbones.csv, one row for each dataset, way of training, measure and width, backbones.md, which has the trends for
people, and backbones.png.

The unit is the backbone: numbers are means over its seeds, and an interval is Student's over the six backbones.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pandas as pd
from common import ROOT, Panel, draw, options, write_table

import harness
from harness.statistics.intervals import Interval, seed_interval

RUNS = {"Fashion-MNIST": "fashion-mnist-backbones", "MNIST": "mnist-backbones"}
TRAININGS = {"": "generalising", "shuffled": "shuffled labels", "contrastive": "contrastive"}
MEASURES = {"dse": "DSE(Z)", "dsmi": "DSMI(Z; Y)", "dsmi_inputs": "DSMI(Z; X)"}
ACCURACIES = {"classifier_accuracy": "accuracy", "knn_accuracy": "kNN accuracy"}
WIDTHS = ("10", "median")
ANY_NUMBER, CORRELATION = (-math.inf, math.inf), (-1.0, 1.0)


def main() -> None:
    arguments = options(__doc__, run=1)
    if arguments.run:
        for suite in RUNS.values():
            harness.run(suite, out=ROOT / "results" / suite, device=arguments.device, progress=True)
    curves = complete(pd.concat([read(dataset, suite) for dataset, suite in RUNS.items()], ignore_index=True))
    table = write_table(summaries(curves), arguments.tables / "backbones.csv")
    (arguments.tables / "backbones.md").write_text("\n".join(lines(table)) + "\n", encoding="utf-8")
    draw(over_seeds(curves), panels(), arguments.pictures / "backbones.png")


def read(dataset: str, suite: str) -> pd.DataFrame:
    """Read a run's curves, and take its names of models and probes apart."""
    frame = pd.read_csv(ROOT / "results" / suite / "curves.csv")
    models = frame["model"].str.removeprefix("backbone-").str.partition("-")
    probes = frame["probe"].str.partition("(")
    return frame.assign(
        dataset=dataset,
        backbone=models[0],
        training=models[2].map(TRAININGS),
        measure=probes[0].map(MEASURES | ACCURACIES),
        sigma=probes[2].map(lambda rest: "median" if "median" in rest else "10"),
    ).assign(sigma=lambda f: f["sigma"].where(probes[0].isin(MEASURES), ""))


def complete(curves: pd.DataFrame) -> pd.DataFrame:
    """Leave out curves that lack an epoch: without its first value, a curve has no start to be compared with.

    If most images have equal features, as in some untrained networks, the median distance is 0 and no width.
    """
    keys = ["dataset", "training", "backbone", "seed", "measure", "sigma"]
    lengths = curves.groupby(keys)["epoch"].transform("size")
    lacking = curves[lengths < curves["epoch"].nunique()]
    for place, of_curve in lacking.groupby(["dataset", "training", "backbone", "measure", "sigma"]):
        print(f"left out, epochs are missing: {', '.join(place)}, {of_curve['seed'].nunique()} seeds")
    return curves.drop(lacking.index)


def over_seeds(curves: pd.DataFrame) -> pd.DataFrame:
    """Average over the seeds of a backbone."""
    keys = ["dataset", "training", "measure", "sigma", "backbone", "epoch"]
    return curves.groupby(keys, sort=False, as_index=False)["value"].mean()


def summaries(curves: pd.DataFrame) -> list[dict[str, Any]]:
    """Summarise each measure over the backbones: where it starts and ends, and whether it rises."""
    rows = []
    keys = ["dataset", "training", "measure", "sigma"]
    for place, of_measure in curves.groupby(keys, sort=False):
        alone = [
            {"backbone": backbone} | shape(one)
            for (backbone, _), one in of_measure.groupby(["backbone", "seed"], sort=False)
        ]
        each = pd.DataFrame(alone).groupby("backbone", sort=False).mean()
        rows.append(
            dict(zip(keys, place, strict=True))
            | {"trainings": len(alone), "backbones": len(each), "rising": int((each["trend"] > 0).sum())}
            | {"start": each["start"].mean(), "end": each["end"].mean(), "fall": each["fall"].mean()}
            | with_interval("change", each["change"], ANY_NUMBER)
            | with_interval("trend", each["trend"], CORRELATION)
        )
    return rows


def shape(curve: pd.DataFrame) -> dict[str, float]:
    """Describe one training: start, end, their difference, the fall from the peak, and Spearman's rho with the epoch.

    A curve that never changes has the trend 0.
    """
    values = curve.sort_values("epoch")["value"]
    first, last = float(values.iloc[0]), float(values.iloc[-1])
    trend = float(curve["epoch"].corr(curve["value"], method="spearman"))
    return {
        "start": first,
        "end": last,
        "change": last - first,
        "fall": float(values.max()) - last,
        "trend": 0.0 if math.isnan(trend) else trend,
    }


def with_interval(name: str, values: pd.Series, bounds: Interval) -> dict[str, float | None]:
    """Give the mean over backbones and Student's 95 % interval."""
    summary = seed_interval(values.to_numpy(), bounds=bounds)
    low, high = summary.interval or (None, None)
    return {name: summary.mean, f"{name}_lo": low, f"{name}_hi": high}


def lines(table: pd.DataFrame) -> Iterator[str]:
    """Lay out the trends in Markdown: a row for each dataset, measure and width, a column for each way of training."""
    yield f"| | {' | '.join(TRAININGS.values())} |"
    yield f"|{'---|' * (1 + len(TRAININGS))}"
    measured = table[table["measure"].isin(MEASURES.values())]
    for (dataset, measure, sigma), rows in measured.groupby(["dataset", "measure", "sigma"], sort=False):
        cells = {row["training"]: cell(row) for _, row in rows.iterrows()}
        shown = " | ".join(cells.get(training, "–") for training in TRAININGS.values())
        yield f"| {dataset}, {measure}, σ = {sigma} | {shown} |"


def cell(row: pd.Series) -> str:
    """Show a trend with its interval, and the bits at the start and at the end."""
    trend = f"{row['trend']:+.2f} [{row['trend_lo']:+.2f}, {row['trend_hi']:+.2f}]"
    return f"{trend}, {row['start']:.2f} → {row['end']:.2f}"


def panels() -> list[Panel]:
    """Lay out a row for each dataset and width: the three measures."""
    found = []
    for dataset in RUNS:
        for width in WIDTHS:
            for measure in MEASURES.values():

                def rows(f: pd.DataFrame, at: tuple[str, str, str] = (dataset, width, measure)) -> pd.Series:
                    return (f["dataset"] == at[0]) & (f["sigma"] == at[1]) & (f["measure"] == at[2])

                title = f"{dataset}: {measure}, σ = {width} (bits)"
                found.append(Panel(title, "epoch", "value", "training", rows))
    return found


if __name__ == "__main__":
    main()
