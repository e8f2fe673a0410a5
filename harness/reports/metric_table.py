"""Several metrics of the same scores side by side: the mean over seeds, and after ± the standard deviation."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.base.errors import InputError, unknown_name
from harness.reports.board_text import model_name
from harness.reports.leaderboard import leaderboards
from harness.reports.record import SEPARATE
from harness.reports.runs import GROUPS, mean_over_sets, read_runs
from harness.reports.text import Sheet, Text
from harness.reports.wording import ABSENT, FPR_HEADERS, is_missing, latex_table, percent, rows_of, title_of
from harness.statistics.intervals import seed_interval
from harness.statistics.metrics import METRICS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    import pandas as pd

    from harness.reports.leaderboard import Board
    from harness.reports.runs import Row, Runs

PLACE = ("model", "adapter", "protocol")
_NAMES = ("model", "scorer")


@dataclass(frozen=True)
class MetricTable:
    """One row per model, adapter, protocol, scorer and set, or group of sets; two columns per metric."""

    suite: str
    frame: pd.DataFrame  # suite, PLACE, scorer, seeds, set, METRIC and METRIC_sd for each of the metrics
    metrics: list[str]
    members: dict[str, list[str]]  # of the groups
    notes: list[str]  # those of the leaderboards


def metric_table(
    folders: Sequence[Path], metrics: Sequence[str], *, group: str = "all", protocol: str | None = None
) -> MetricTable:
    """Gather metrics of the scores of one or several runs of a suite; all protocols, or the given one.

    The mean over sets is taken per seed, so that its standard deviation (ddof 1) is that over seeds. Models and scorers
    are in the order of the leaderboard by the first metric's mean over the group.

    Raises RecordsError as read_runs does, InputError for no metric, UnknownNameError for an unknown one.
    """
    import pandas as pd

    chosen = list(dict.fromkeys(metrics))
    _require_known(chosen)
    boards = leaderboards(folders, metric=chosen[0], group=group, protocol=protocol)
    rows = [row for board in boards for row in _rows(board, read_runs(folders, board.protocol), chosen)]
    sets = {name: of for board in boards for name, of in board.sets.items()}
    members = {name: [member for member, of in sets.items() if of == name] for name in GROUPS}
    return MetricTable(
        boards[0].suite,
        pd.DataFrame(rows),
        chosen,
        {name: of for name, of in members.items() if of},
        list(dict.fromkeys(note for board in boards for note in board.notes)),
    )


def metric_text(table: MetricTable, *, with_sets: bool = False) -> Text:
    """Show the means over groups, in a table per group, and on request every set; documents have all in one."""
    shown = [*table.members, *(n for of in table.members.values() for n in of if with_sets)]
    sheets = [
        _sheet(table, protocol, name) for protocol in dict.fromkeys(table.frame["protocol"]) for name in shown
    ]
    content = {"suite": table.suite, "metrics": table.metrics, "rows": table.frame}
    return Text(sheets, legend(table), table.frame, content, wide=[_whole(table)])


def as_latex(text: Text) -> str:
    """Write the table of all sets as a booktabs table."""
    (sheet,) = text.wide
    return latex_table(sheet.headers, sheet.rows, text.legend, names=len(sheet.names))


def legend(table: MetricTable) -> list[str]:
    """Explain how to read the table."""
    groups = [f"{name}: {', '.join(members)}." for name, members in table.members.items()]
    return [
        f"{', '.join(map(title_of, table.metrics))} in per cent. With several seeds: the mean, and after ± the "
        "standard deviation over the seeds.",
        *(f"{FPR_HEADERS[name]}." for name in table.metrics if name in FPR_HEADERS),
        *groups,
        "Groups: the mean over their sets, per seed; all: the mean of near and far.",
        f"{ABSENT}: not applicable, or not measured.",
        *table.notes,
    ]


def _require_known(metrics: Sequence[str]) -> None:
    if not metrics:
        raise InputError(f"no metric is given. Valid: {', '.join(METRICS)}")
    for metric in metrics:
        if metric not in METRICS:
            raise unknown_name("metric", metric, METRICS, valid_label="Valid")


def _rows(board: Board, runs: Runs, metrics: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yield a row per set or group, and scorer: all scorers of a group or set below each other."""
    groups = [name for name in GROUPS if name in runs.sets.values()]
    for name in (*groups, "all", *runs.sets):
        for row in board.rows:
            place = (row["model"], row["adapter"], row["protocol"])
            scorers = runs.rows[place]
            seeds = sorted({seed for of in scorers.values() for seed in of.seeds()})
            yield {
                **{column: row[column] for column in ("suite", *PLACE, "scorer", "seeds")},
                "set": name,
                **_summaries(scorers[row["scorer"]], seeds, runs.sets, name, metrics),
            }


def _summaries(
    row: Row, seeds: Sequence[int], sets: Mapping[str, str], name: str, metrics: Sequence[str]
) -> dict[str, float]:
    """Return the mean and the standard deviation of each metric on a set, or over a group of sets."""
    found: dict[str, float] = {}
    for metric in metrics:
        values = [
            row.value(name, seed, metric) if name in sets else mean_over_sets(row, seed, sets, name, metric)
            for seed in seeds
        ]
        found |= dict(zip((metric, f"{metric}_sd"), _mean_and_deviation(values), strict=True))
    return found


def _mean_and_deviation(values: Sequence[float]) -> tuple[float, float]:
    """Return the mean and the standard deviation; NaN if a value is missing, or is the only one."""
    if not values or any(map(math.isnan, values)):
        return math.nan, math.nan
    summary = seed_interval(values)
    return summary.mean, math.nan if summary.sd is None else summary.sd


def _sheet(table: MetricTable, protocol: str, name: str) -> Sheet:
    """Tabulate one set, or group of sets, of one protocol."""
    frame = table.frame
    here = frame[(frame["protocol"] == protocol) & (frame["set"] == name)]
    cells = [(row, _cells(table, row)) for row in rows_of(here)]
    rows = [[model_name(row), row["scorer"], *of] for row, of in cells if set(of) != {ABSENT}]
    title = table.suite if protocol == SEPARATE else f"{table.suite}, {protocol}"
    what = f"{name}, mean over sets" if name in table.members else name
    return Sheet(f"{title}: {what}", [*_NAMES, *_headers(table)], rows, _NAMES, has_headings=True)


def _whole(table: MetricTable) -> Sheet:
    """Tabulate all sets and groups, one below the other."""
    head = ["set", *_NAMES]
    if table.frame["protocol"].nunique() > 1:
        head.insert(0, "protocol")
    rows = [
        [*(model_name(row) if name == "model" else str(row[name]) for name in head), *_cells(table, row)]
        for row in rows_of(table.frame)
    ]
    return Sheet(table.suite, [*head, *_headers(table)], rows, head)


def _headers(table: MetricTable) -> list[str]:
    return [title_of(metric).replace(" pos.)", ")") for metric in table.metrics]


def _cells(table: MetricTable, row: Mapping[str, Any]) -> list[str]:
    return [_cell(row[metric], row[f"{metric}_sd"]) for metric in table.metrics]


def _cell(mean: float, deviation: float) -> str:
    return percent(mean) if is_missing(deviation) else f"{percent(mean)} ± {percent(deviation)}"
