"""The probes' table as text: models by row, probes by column, and the correlations with accuracy below."""

from __future__ import annotations

import math
import statistics
from typing import TYPE_CHECKING, Any

from harness.evaluations.probes.table import FEWEST_MODELS
from harness.reports.text import Sheet, Text
from harness.reports.wording import ABSENT

if TYPE_CHECKING:
    import pandas as pd

    from harness.evaluations.probes.table import ProbeTable


_NAMES = ("model", "on", "probe")  # columns that are names


def probe_text(table: ProbeTable) -> Text:
    """Show the numbers, and their correlations with accuracy; encoders have no accuracy."""
    return Text(
        [
            Sheet(f"{table.suite}: probes", *_numbers(table), _NAMES),
            Sheet("correlation with accuracy", *_correlated(table), _NAMES),
        ],
        legend(table),
        table.frame,
        {
            "suite": table.suite,
            "probes": table.frame,
            "correlations": table.correlations,
            "notes": table.notes,
        },
    )


def legend(table: ProbeTable) -> list[str]:
    """Say how the tables are read."""
    return [
        "Of several seeds: the mean, and after ± the standard deviation between them.",
        "Correlation: Spearman's, over all trained models, one point each, with its 95 % interval (Fisher's scale, "
        "Bonett & Wright 2000). Accuracy is that on the set where it has ID's labels, else that on ID test.",
        f"{ABSENT}: not applicable, not measured, constant, or fewer than {FEWEST_MODELS} models.",
        *table.notes,
    ]


def _numbers(table: ProbeTable) -> tuple[list[str], list[list[str]]]:
    frame = table.frame
    probes = list(dict.fromkeys(frame["probe"]))
    groups = {place: of for place, of in frame.groupby(["model", "on"], sort=False)}
    rows = []
    for (model, on), of_place in groups.items():
        cells = [_summary(of_place.loc[of_place["probe"] == probe, "value"]) for probe in probes]
        accuracy = _summary(100 * of_place.drop_duplicates("seed")["accuracy"].dropna())
        rows.append([str(model), str(on), accuracy, *cells])
    return ["model", "on", "accuracy (%)", *probes], rows


def _correlated(table: ProbeTable) -> tuple[list[str], list[list[str]]]:
    rows = [
        [str(row["probe"]), str(row["on"]), str(row["models"]), _correlation(row)]
        for row in table.correlations.to_dict(orient="records")
    ]
    return ["probe", "on", "models", "correlation with accuracy"], rows


def _correlation(row: dict[Any, Any]) -> str:
    if math.isnan(row["correlation"]):
        return ABSENT
    return f"{row['correlation']:+.2f} [{row['lo']:+.2f}, {row['hi']:+.2f}]"


def _summary(values: pd.Series[float]) -> str:
    found = [float(value) for value in values]
    if not found:
        return ABSENT
    if len(found) == 1:
        return f"{found[0]:.4g}"
    return f"{statistics.fmean(found):.4g} ± {statistics.stdev(found):.2g}"
