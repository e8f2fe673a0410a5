"""Estimated against true accuracy, set by set, from the committed runs of the estimators.

    python benchmarks/studies/estimation.py

Reads results/fashion-mnist-estimation and results/mnist-estimation, as `ood-harness run` leaves them. Writes
estimation.csv, one line a shifted set and estimator that the picture shows, and estimation.png.
"""

from __future__ import annotations

import pandas as pd
from common import ROOT, Panel, draw, options, write_table

RUNS = {"Fashion-MNIST": "fashion-mnist-estimation", "MNIST": "mnist-estimation"}
SHOWN = {
    "cot": "COT (clean ID)",
    "atc_mc": "ATC-MC (clean ID)",
    "average_confidence": "average confidence (clean ID)",
    "cot-fitted": "COT and its curve",
    "nuclear_norm": "nuclear norm and its curve",
    "flips(steps=40)": "flips and their curve",
    "flips(steps=40)-shared": "flips, other trainings' curve",
}


def main() -> None:
    arguments = options(__doc__)
    parts = []
    for dataset, run in RUNS.items():
        whole = pd.read_csv(ROOT / "results" / run / "estimates.csv")
        chosen = whole[(whole["group"] == "csid") & whole["estimator"].isin(SHOWN)]
        parts.append(chosen.assign(dataset=dataset, method=chosen["estimator"].map(SHOWN)))
    columns = ["dataset", "method", "seed", "set", "accuracy", "estimate"]
    frame = write_table(
        pd.concat(parts)[columns].to_dict(orient="records"), arguments.tables / "estimation.csv"
    )
    draw(frame, panels(), arguments.pictures / "estimation.png", columns=4)


def panels() -> list[Panel]:
    """Lay out a row of panels a dataset: the methods that see clean ID, and those that see shifted ID."""
    found = []
    for dataset in RUNS:
        for names in (list(SHOWN)[:3], list(SHOWN)[3:]):
            methods = [SHOWN[name] for name in names]

            def rows(frame: pd.DataFrame, dataset: str = dataset, methods: list[str] = methods) -> pd.Series:
                return (frame["dataset"] == dataset) & frame["method"].isin(methods)

            seen = "clean ID" if names[0] == "cot" else "shifted ID"
            found.append(
                Panel(
                    f"{dataset}, fitted on {seen}",
                    "accuracy",
                    "estimate",
                    "method",
                    rows,
                    x_label="true accuracy",
                    y_label="estimate",
                    scatter=True,
                    diagonal=True,
                )
            )
    return found


if __name__ == "__main__":
    main()
