"""What the probes of one or several runs found: a table, and its rank correlation with accuracy across models."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.reports.record import MODEL
from harness.reports.records import read_records, records_of
from harness.statistics.intervals import rank_correlation_interval

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import pandas as pd

    from harness.reports.record import Record

FEWEST_MODELS = 4  # that a correlation has an interval for


@dataclass(frozen=True)
class ProbeTable:
    """One row a model, seed, set and probe; and one a probe and set, for the models together."""

    suite: str
    frame: pd.DataFrame  # model, seed, on, probe, value, lo, hi, accuracy
    correlations: pd.DataFrame  # probe, on, models, correlation, lo, hi
    notes: list[str]


def probe_table(folders: Sequence[Path]) -> ProbeTable:
    """Gather the probes of runs of one suite; of a number that several hold, the last one's record counts.

    The accuracy is the model's on the set, where the set has ID's labels, else its accuracy on ID test. Every trained
    model, of one recipe with another seed as well, is a run of its own, and a point of the correlation (Spearman's).

    Raises RecordsError for folders without probes, and for runs of different suites or data.
    """
    import pandas as pd

    records = {r.cell_id: r for folder in folders for r in read_records(folder)}
    probes = records_of(folders, "probe", "probes")
    accuracies = {
        (r.model, r.seed, r.ood): value
        for r in records.values()
        if r.kind == MODEL and (value := r.value("accuracy")) is not None
    }
    rows = [_row(record, accuracies) for record in probes if not record.error]
    failed = [record for record in probes if record.error]
    notes = [f"{r.model}: {r.probe} failed on {r.on}: {r.error}" for r in failed]
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
        correlation = _spearman(group["value"].tolist(), group["accuracy"].tolist())
        interval = None if correlation is None else rank_correlation_interval(correlation, len(group))
        low, high = interval or (math.nan, math.nan)
        value = math.nan if correlation is None else correlation
        rows.append(
            {"probe": probe, "on": on, "models": len(group), "correlation": value, "lo": low, "hi": high}
        )
    return pd.DataFrame(rows, columns=["probe", "on", "models", "correlation", "lo", "hi"])


def _spearman(values: list[float], accuracies: list[float]) -> float | None:
    """Correlate the ranks, ties at their mean; None where one side is constant or there are fewer than 4 models."""
    from scipy.stats import spearmanr

    if len(values) < FEWEST_MODELS or len(set(values)) == 1 or len(set(accuracies)) == 1:
        return None
    return float(spearmanr(values, accuracies).statistic)
