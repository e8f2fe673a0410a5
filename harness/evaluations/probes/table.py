"""The results of probes in one or several runs: a table, and its rank correlation with accuracy across models."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.reports.record import MODEL
from harness.reports.records import failures, gathered, records_of
from harness.reports.text import Sheet, Text
from harness.reports.wording import ABSENT
from harness.statistics.intervals import correlation_interval, rank_correlation_interval

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import pandas as pd

    from harness.reports.record import Record

FEWEST_MODELS = 4  # for the interval of a correlation


@dataclass(frozen=True)
class ProbeTable:
    """One row per model, seed, set and probe; and one per probe and set, over all models."""

    suite: str
    frame: pd.DataFrame  # model, seed, on, probe, value, lo, hi, accuracy
    correlations: pd.DataFrame  # probe, on, models, correlation, lo, hi, pearson, pearson_lo, pearson_hi
    notes: list[str]


def probe_table(folders: Sequence[Path]) -> ProbeTable:
    """Gather the probes of runs of one suite; if several runs hold a cell, the last one's record counts.

    The accuracy is the model's on the set, if the set has ID's labels, else its accuracy on ID test. Every trained
    model is one point of the correlations, Spearman's and Pearson's, also a second seed of the same recipe.

    Raises RecordsError for folders without probes, and for runs of different suites or data.
    """
    import pandas as pd

    probes = records_of(folders, "probe", "probes")
    accuracies = {
        (r.model, r.seed, r.ood): value
        for r in gathered(folders)
        if r.kind == MODEL and (value := r.value("accuracy")) is not None
    }
    rows = [_row(record, accuracies) for record in probes if not record.error]
    notes = failures(probes, lambda r: str(r.probe))
    frame = pd.DataFrame(rows, columns=["model", "seed", "on", "probe", "value", "lo", "hi", "accuracy"])
    return ProbeTable(probes[0].suite, frame, _correlations(frame), notes)


def _row(record: Record, accuracies: Mapping[tuple[str, int, str | None], float]) -> dict[str, Any]:
    (metric,) = record.metrics.values()
    of_id = accuracies.get((record.model, record.seed, None), math.nan)
    return {
        "model": record.model,
        "seed": record.seed,
        "on": record.on,
        "probe": record.probe,
        **metric,
        "accuracy": accuracies.get((record.model, record.seed, record.ood), of_id),
    }


def _correlations(frame: pd.DataFrame) -> pd.DataFrame:
    import pandas as pd

    rows = []
    known = frame.dropna(subset=["accuracy"])
    for (probe, on), group in known.groupby(["probe", "on"], sort=False):
        rows.append((probe, on, len(group), *_correlation(group["value"], group["accuracy"])))
    columns = ["correlation", "lo", "hi", "pearson", "pearson_lo", "pearson_hi"]
    return pd.DataFrame(rows, columns=["probe", "on", "models", *columns])


def _correlation(values: pd.Series[float], accuracies: pd.Series[float]) -> tuple[float, ...]:
    """Correlate ranks (ties at their mean), then values, each with its interval.

    NaN if one side is constant or there are fewer than 4 models.
    """
    from scipy.stats import pearsonr, spearmanr

    count = len(values)
    if count < FEWEST_MODELS or values.nunique() == 1 or accuracies.nunique() == 1:
        return (math.nan,) * 6
    ranks, linear = (float(of(values, accuracies).statistic) for of in (spearmanr, pearsonr))
    intervals = rank_correlation_interval(ranks, count), correlation_interval(linear, count)
    low, high = (interval or (math.nan, math.nan) for interval in intervals)
    return ranks, *low, linear, *high


_NAMES = ("model", "on", "probe")  # columns that are names


def probe_text(table: ProbeTable) -> Text:
    """Show the numbers, models by row and probes by column, and below their correlations with accuracy."""
    sheets = [
        Sheet(f"{table.suite}: probes", *_numbers(table), _NAMES, has_headings=True),
        Sheet("correlation with accuracy", *_correlated(table), _NAMES, has_headings=True),
    ]
    tables = {"probes": table.frame, "correlations": table.correlations}
    content = {"suite": table.suite, **tables, "notes": table.notes}
    return Text(sheets, legend(table), table.frame, content)


def legend(table: ProbeTable) -> list[str]:
    """Explain how to read the tables."""
    return [
        "With several seeds: the mean, and after ± the standard deviation over the seeds.",
        "Correlation: Spearman's, over all trained models, one point each, with its 95 % interval (Fisher's scale, "
        "Bonett & Wright 2000). Pearson's has Fisher's interval, exact for normal values. Accuracy: on the set if "
        "it has ID's labels, else on ID test.",
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
        [str(row["probe"]), str(row["on"]), str(row["models"]), correlation_text(row), _pearson_text(row)]
        for row in table.correlations.to_dict(orient="records")
    ]
    return ["probe", "on", "models", "correlation with accuracy", "Pearson's"], rows


def correlation_text(row: Mapping[Any, Any]) -> str:
    """Show a rank correlation with its interval."""
    return _with_interval(row["correlation"], row["lo"], row["hi"])


def _pearson_text(row: Mapping[Any, Any]) -> str:
    return _with_interval(row["pearson"], row["pearson_lo"], row["pearson_hi"])


def _with_interval(value: float, low: float, high: float) -> str:
    return ABSENT if math.isnan(value) else f"{value:+.2f} [{low:+.2f}, {high:+.2f}]"


def _summary(values: pd.Series[float]) -> str:
    found = [float(value) for value in values]
    if not found:
        return ABSENT
    if len(found) == 1:
        return f"{found[0]:.4g}"
    return f"{statistics.fmean(found):.4g} ± {statistics.stdev(found):.2g}"
