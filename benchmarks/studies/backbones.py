"""DSE and DSMI along the training of six backbones: what the paper's main study found, asked again with intervals.

    OOD_HARNESS_DATA=... python benchmarks/studies/backbones.py

Three convolutional networks and three transformers, each trained on true labels, on shuffled labels and by contrast,
3 seeds each, on 500 images of Fashion-MNIST and of MNIST for 32 epochs; measured on 500 held-out images with their true
labels. Runs the suites fashion-mnist-backbones and mnist-backbones into results/ (`--run 0` takes the curves that are
there). Writes backbones.csv and backbones.png.

A row of the table: how a number changes from the first epoch to the last, its peak, and the rank correlation with the
epoch; the mean over the seeds of a backbone is one observation, and the interval is Student's over the six backbones.
"""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
from common import ROOT, Panel, draw, options, write_table

import harness
from harness.statistics.intervals import seed_interval

DATA = ("fashion-mnist", "mnist")
TRAININGS = {"true labels": "", "shuffled labels": "-shuffled", "contrastive": "-contrastive"}
MEASURES = {"dse": "DSE(Z)", "dsmi": "DSMI(Z; Y)", "dsmi_inputs": "DSMI(Z; X)"}
WIDTHS = {"10": "", "median": "(sigma=median)"}


def main() -> None:
    arguments = options(__doc__, run=1)
    frames = []
    for data in DATA:
        folder = ROOT / "results" / f"{data}-backbones"
        if arguments.run:
            harness.run(f"{data}-backbones", out=folder, device=arguments.device, progress=True)
        frames.append(pd.read_csv(folder / "curves.csv").assign(data=data))
    curves = labelled(pd.concat(frames, ignore_index=True))
    write_table(rows(curves), arguments.tables / "backbones.csv")
    draw(curves, panels(), arguments.pictures / "backbones.png", columns=4)


def labelled(curves: pd.DataFrame) -> pd.DataFrame:
    """Split the names of models into backbone and training, those of probes into measure and width."""
    name = curves["model"].str.extract(r"^backbone-(?P<backbone>\w+?)(?P<suffix>-\w+)?$").fillna("")
    trainings = {suffix: training for training, suffix in TRAININGS.items()}
    probe = curves["probe"].str.extract(r"^(?P<measure>\w+)(?P<sigma>\(.*\))?$").fillna("")
    widths = {suffix: width for width, suffix in WIDTHS.items()}
    return curves.assign(
        backbone=name["backbone"],
        training=name["suffix"].map(trainings),
        measure=probe["measure"],
        sigma=probe["sigma"].map(widths),
    )


def rows(curves: pd.DataFrame) -> list[dict[str, Any]]:
    """Sum up every measure of every training, at both widths, and its accuracies at the end."""
    found = []
    for place, of_place in curves.groupby(["data", "training", "measure", "sigma"], sort=False):
        of_backbones = [summary(of) for _, of in of_place.groupby("backbone")]
        found.append(
            dict(zip(("data", "training", "measure", "sigma"), place, strict=True)) | averaged(of_backbones)
        )
    return found


def summary(of_backbone: pd.DataFrame) -> dict[str, float]:
    """Average the seeds of one backbone: start, end, change, peak above the end, and correlation with the epoch."""
    table = of_backbone.pivot_table(index="epoch", columns="seed", values="value")
    order = table.rank().corrwith(pd.Series(table.index, index=table.index).rank())  # NaN of a constant curve
    return {
        "start": table.iloc[0].mean(),
        "end": table.iloc[-1].mean(),
        "change": (table.iloc[-1] - table.iloc[0]).mean(),
        "fall": (table.max() - table.iloc[-1]).mean(),
        "trend": order.mean(),
    }


def averaged(of_backbones: list[dict[str, float]]) -> dict[str, Any]:
    """Average over backbones, with the interval of each number that is asked about, and count those that rise."""
    frame = pd.DataFrame(of_backbones)
    row: dict[str, Any] = {"backbones": len(frame), "rise": int((frame["change"] > 0).sum())}
    for name in frame:
        row[name] = frame[name].mean()
        if name not in ("start", "end"):
            of_mean = seed_interval(frame[name].tolist(), bounds=(-math.inf, math.inf)).interval
            row[f"{name}_lo"], row[f"{name}_hi"] = of_mean or (None, None)
    return row


def panels() -> list[Panel]:
    """Lay out one row per data and width, one column per measure, and the accuracy of neighbours beside."""

    def of(data: str, measure: str, sigma: str) -> Any:
        return lambda f: (f["data"] == data) & (f["measure"] == measure) & (f["sigma"] == sigma)

    found = []
    for data in DATA:
        for width in WIDTHS:
            found += [
                Panel(f"{data}, {title}, σ = {width}", "epoch", "value", "training", of(data, measure, width))
                for measure, title in MEASURES.items()
            ]
            found.append(
                Panel(f"{data}, 20-NN accuracy", "epoch", "value", "training", of(data, "knn_accuracy", "10"))
            )
    return found


if __name__ == "__main__":
    main()
