"""Errors of the estimates of accuracy: by set, their means over shifted sets by method, and both as text."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.base.errors import InputError
from harness.data.sets import CALIBRATION, CSID
from harness.evaluations.estimation.curve import Curve, Point
from harness.reports.records import failures, records_of
from harness.reports.text import Sheet, Text
from harness.reports.wording import ABSENT, difference, percent, with_interval

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import pandas as pd
    from numpy.typing import NDArray

    from harness.reports.record import Record

FITTED, SHARED = "-fitted", "-shared"  # these follow the name of an estimator if a curve reads its score
NOTHING, CLEAN, SHIFTED, OTHERS = (
    "nothing", "clean ID", "shifted ID", "shifted ID of other models",
)  # the labels that were used  # fmt: skip
REPLICATES = 2000
COLUMNS = (
    "model", "seed", "estimator", "supervision", "set", "group", "shift", "score", "estimate", "lo", "hi", "accuracy",
    "error", "extrapolates",
)  # fmt: skip


@dataclass(frozen=True)
class EstimateTable:
    """One row per model, estimator and set; and one per model label and estimator, over shifted sets and seeds."""

    suite: str
    frame: pd.DataFrame  # COLUMNS; error is absolute, in 0..1
    means: (
        pd.DataFrame
    )  # model, estimator, supervision, seeds, sets, error, lo, hi, behind, behind_lo, behind_hi,
    # correlation, left_out, extrapolated
    notes: list[str]


def estimate_table(folders: Sequence[Path]) -> EstimateTable:
    """Gather the estimators of runs of one suite; if several runs hold a cell, the last one's record counts.

    An estimator that gives an accuracy has a row under its name. A curve that reads its score has another row: fitted
    on this model's shifted validation data (NAME-fitted, or NAME if the estimator gives no accuracy), and fitted on the
    other models' (NAME-shared). Means are over shifted sets and models' seeds, their interval by bootstrap over the
    kinds of shift; `behind` is the mean difference to the least error, bootstrapped in the same way. Sets on which one
    of a model's estimators failed count for none of them.

    Raises RecordsError for folders without estimators, and for runs of different suites or data.
    """
    import pandas as pd

    found = records_of(folders, "estimate", "estimators")
    notes = [*_definitions(found), *failures(found, lambda r: str(r.estimator))]
    curves = _Curves([record for record in found if not record.error], notes)
    rows = [row for record in found if not record.error for row in curves.rows(record)]
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    return EstimateTable(found[0].suite, frame, _means(frame, curves, notes), notes)


def _definitions(records: Sequence[Record]) -> list[str]:
    """Say which definition each estimator used, if it has several."""
    named = dict.fromkeys((r.estimator, r.definition) for r in records if r.definition)
    return [f"{estimator}: {definition}." for estimator, definition in named]


class _Curves:
    """The curves of every model's estimators: of its own points, and of the other models' points."""

    def __init__(self, records: Sequence[Record], notes: list[str]) -> None:
        self._points: dict[tuple[str, int, str], list[Point]] = {}
        for r in records:
            if r.group == CALIBRATION:
                point = Point(str(r.shift), _value(r, "score"), _value(r, "accuracy"))
                self._points.setdefault(_place(r), []).append(point)
        self.own: dict[tuple[str, int, str], Curve] = {}
        self.shared: dict[tuple[str, int, str], Curve] = {}
        for place, points in self._points.items():
            others = [
                p for other, of in self._points.items() if other[2] == place[2] and other != place for p in of
            ]
            for kept, chosen in ((self.own, points), (self.shared, others)):
                try:
                    if chosen:
                        kept[place] = Curve.of(chosen)
                except InputError as error:
                    notes.append(f"{place[0]} (seed {place[1]}), {place[2]}: {error}")

    def rows(self, record: Record) -> Iterator[dict[str, Any]]:
        """Yield the estimates for a set: the estimator's, its own curve's, and that of the other models' curve."""
        if record.group == CALIBRATION:
            return
        says, name = record.metrics.get("estimate"), str(record.estimator)
        if says is not None:
            seen = CLEAN if "validation" in record.needs else NOTHING
            yield _row(record, _Said(name, seen, _value(record, "estimate"), says["lo"], says["hi"]))
        score = record.metrics["score"]
        own = f"{name}{FITTED}" if says is not None else name
        for curves, called, seen in ((self.own, own, SHIFTED), (self.shared, f"{name}{SHARED}", OTHERS)):
            if curve := curves.get(_place(record)):
                value, interval = _value(record, "score"), curve.interval(score["lo"], score["hi"])
                beyond = curve.extrapolates(value)
                yield _row(record, _Said(called, seen, curve.accuracy(value), *interval, is_beyond=beyond))

    def left_out(self, model: str, estimator: str) -> float:
        """Return the error of a row's curve at unseen shifts, mean over the model's seeds; NaN without a curve."""
        errors = [
            curve.left_out_error()
            for (label, _, name), curve in self.own.items()
            if label == model and estimator in (name, f"{name}{FITTED}")
        ]
        return float(np.mean(errors)) if errors else math.nan


def _place(record: Record) -> tuple[str, int, str]:
    return record.model, record.seed, str(record.estimator)


def _value(record: Record, metric: str) -> float:
    value = record.value(metric)
    return math.nan if value is None else value


@dataclass(frozen=True)
class _Said:
    """One estimate of the accuracy on a set."""

    name: str
    seen: str
    estimate: float
    low: float | None
    high: float | None
    is_beyond: bool = False  # all points of the curve behind it


def _row(record: Record, said: _Said) -> dict[str, Any]:
    truth, score = (_value(record, name) for name in ("accuracy", "score"))
    values = (
        record.model, record.seed, said.name, said.seen, record.on, record.group,
        record.shift, score, said.estimate, said.low, said.high, truth, abs(said.estimate - truth), said.is_beyond,
    )  # fmt: skip
    return dict(zip(COLUMNS, values, strict=True))


def _means(frame: pd.DataFrame, curves: _Curves, notes: list[str]) -> pd.DataFrame:
    import pandas as pd

    rows: list[dict[str, Any]] = []
    shifted = frame[frame["group"] == CSID]
    for model, of_model in shifted.groupby("model", sort=False):
        errors = of_model.pivot_table(index=["shift", "set", "seed"], columns="estimator", values="error")
        whole = errors.dropna()
        if len(whole) < len(errors):
            notes.append(
                f"{model}: {len(errors) - len(whole)} sets on which an estimator failed are left out"
            )
        if not len(whole):
            continue
        values, kinds = whole.to_numpy(), whole.index.get_level_values("shift").to_numpy()
        resampled = _resampled(values, kinds)  # (REPLICATES, estimators)
        best = int(values.mean(axis=0).argmin())
        for number, name in enumerate(whole.columns):
            mine = of_model[of_model["estimator"] == name]
            behind = resampled[:, number] - resampled[:, best]
            rows.append(
                {
                    "model": model,
                    "estimator": name,
                    "supervision": mine["supervision"].iloc[0],
                    "seeds": mine["seed"].nunique(),
                    "sets": len(whole),
                    "error": values[:, number].mean(),
                    **_percentiles(resampled[:, number], "lo", "hi"),
                    "behind": values[:, number].mean() - values[:, best].mean(),
                    **_percentiles(behind, "behind_lo", "behind_hi"),
                    "correlation": _rank_correlation(mine),
                    "left_out": curves.left_out(str(model), str(name)),
                    "extrapolated": float(mine["extrapolates"].mean()),
                }
            )
    found = pd.DataFrame(rows)
    return found.sort_values(["model", "error"], ignore_index=True) if rows else found


def _resampled(values: NDArray[np.float64], kinds: NDArray[Any]) -> NDArray[np.float64]:
    """Draw kinds of shift with replacement, and average over their sets: one row per replicate.

    Sets of one kind are alike, so they are drawn together.
    """
    names, number = np.unique(kinds, return_inverse=True)
    sums = np.zeros((len(names), values.shape[1]))
    np.add.at(sums, number, values)
    counts = np.bincount(number)
    weights = np.random.default_rng(0).multinomial(
        len(names), np.full(len(names), 1 / len(names)), REPLICATES
    )
    means: NDArray[np.float64] = (weights @ sums) / (weights @ counts)[:, None]
    return means


def _percentiles(values: NDArray[np.float64], low: str, high: str) -> dict[str, float]:
    ends = np.quantile(values, [0.025, 0.975])
    return {low: float(ends[0]), high: float(ends[1])}


def _rank_correlation(rows: pd.DataFrame) -> float:
    """Average over seeds Spearman's correlation of estimates with accuracies over sets; NaN if one is constant."""
    from scipy.stats import spearmanr

    found = []
    for _, of_seed in rows.groupby("seed"):
        if min(of_seed["estimate"].nunique(), of_seed["accuracy"].nunique()) > 1:
            found.append(float(spearmanr(of_seed["estimate"], of_seed["accuracy"]).statistic))
    return float(np.mean(found)) if found else math.nan


HEADERS = (
    "model", "estimator", "labels seen", "error (points)", "behind the best", "correlation", "error at unseen shifts",
    "extrapolated (%)",
)  # fmt: skip
_NAMES = HEADERS[:3]


def estimate_text(table: EstimateTable) -> Text:
    """Show the means."""
    sheet = Sheet(f"{table.suite}: estimates of accuracy", HEADERS, _rows(table), _NAMES, has_headings=True)
    content = {"suite": table.suite, "sets": table.frame, "means": table.means, "notes": table.notes}
    return Text([sheet], legend(table), table.frame, content)


def legend(table: EstimateTable) -> list[str]:
    """Explain how to read the table."""
    return [
        "Error: mean absolute difference between estimated and true accuracy over the shifted sets, in points, with "
        "its 95 % interval by bootstrap over the kinds of shift.",
        "Behind the best: mean difference to the least error, on the same sets, bootstrapped in the same way.",
        "Correlation: Spearman's, of estimates with accuracies over the sets.",
        "Error at unseen shifts: of a curve at its calibration sets, each kind of shift predicted without it.",
        "Labels seen: the labels that an estimator was fitted on. NAME-fitted: a curve of this model reads the score "
        "of NAME; NAME-shared: a curve of the other models. Extrapolated: sets with a score beyond all of the curve's.",
        *table.notes,
    ]


def _rows(table: EstimateTable) -> list[list[str]]:
    rows: list[list[str]] = []
    for row in table.means.to_dict(orient="records"):
        names = [str(row[name]) for name in ("model", "estimator", "supervision")]
        error = with_interval(row["error"], row["lo"], row["hi"])
        behind = difference(row["behind"], row["behind_lo"], row["behind_hi"], digits=1)
        rest = [_two(row["correlation"]), percent(row["left_out"]), percent(row["extrapolated"], 0)]
        rows.append([*names, error, behind if row["behind"] > 0 else ABSENT, *rest])
    return rows


def _two(value: Any) -> str:
    return ABSENT if math.isnan(value) else f"{value:.2f}"
