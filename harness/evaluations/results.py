"""The numbers of finished runs in pandas: one row per number, whatever was measured on whatever sets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

from harness.base.errors import InputError, RecordsError, unknown_name
from harness.evaluations import KINDS
from harness.evaluations.table_report import TableReport
from harness.reports.board_text import joined
from harness.reports.leaderboard import leaderboards
from harness.reports.record import SCORE
from harness.reports.records import gathered, require_one_suite
from harness.reports.runs import require_comparable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from harness.reports.record import Record

COLUMNS = {
    "suite": "string",
    "kind": "string",
    "model": "string",
    "seed": "int64",
    "adapter": "string",
    "protocol": "string",
    "stream": "Int64",
    "scorer": "string",
    "probe": "string",
    "estimator": "string",
    "epoch": "Int64",
    "set": "string",
    "group": "string",
    "metric": "string",
    "value": "float64",
    "lo": "float64",
    "hi": "float64",
    "n": "int64",
    "n_id": "int64",
    "error": "string",
}  # docs/results.md says what they hold


class Results(pd.DataFrame):
    """The numbers of runs as a long frame, and their leaderboard and other tables as wide ones.

    There is one row per model, scorer (or probe, estimator, adapter), set and metric. The columns are the same
    for every suite: docs/results.md describes them. What pandas computes from it, a selection for example, is a plain
    DataFrame.
    """

    folders: tuple[Path, ...] = ()

    @classmethod
    def of(cls, folders: Sequence[Path]) -> Results:
        """Read the folders of runs; if several hold a cell, the last one's numbers count.

        Raises InputError for no folder, and RecordsError for a folder without records, for runs that measured
        differently, and for runs of one suite on different data.
        """
        if not folders:
            raise InputError(
                "no folder is given. Give the folder of a run, as in harness.load('results/digits')"
            )
        records = gathered(folders)
        if not records:
            raise RecordsError(
                f"no records in {', '.join(map(str, folders))}. Run a suite: ood-harness run SUITE"
            )
        _require_one_data_per_suite(records)
        rows = [row for record in records for row in _rows(record)]
        results = cls(pd.DataFrame(rows, columns=list(COLUMNS)).astype(COLUMNS))
        results.folders = tuple(folders)
        return results

    def board(
        self, *, metric: str = "auroc", group: str = "all", protocol: str | None = None
    ) -> pd.DataFrame:
        """Return the leaderboard: one row per model and scorer, best first, with ranks and intervals.

        All protocols stand below each other, or only the given one. Raises RecordsError for runs without scores or of
        several suites, and UnknownNameError for an unknown metric, group or protocol.
        """
        return joined(leaderboards(self.folders, metric=metric, group=group, protocol=protocol))

    def table(self, name: str) -> pd.DataFrame:
        """Return the table of another kind of evaluation, as the command of the same name writes it with --format csv.

        Raises RecordsError for runs without such numbers, and UnknownNameError for an unknown name.
        """
        reports = {kind.report.name: kind.report for kind in KINDS if isinstance(kind.report, TableReport)}
        if name not in reports:
            raise unknown_name("table", name, reports, valid_label="Valid")
        return reports[name].show(self.folders).numbers


def _require_one_data_per_suite(records: Iterable[Record]) -> None:
    """Raise RecordsError for records of one suite, or for scores of one protocol, that are of different data."""
    suites: dict[str, list[Record]] = {}
    scores: dict[tuple[str, str], list[Record]] = {}
    for record in records:
        suites.setdefault(record.suite, []).append(record)
        if record.kind == SCORE:
            scores.setdefault((record.suite, record.place[2]), []).append(record)
    for of_suite in suites.values():
        require_one_suite(of_suite, "records")
    for of_protocol in scores.values():
        require_comparable(of_protocol)


def _rows(record: Record) -> Iterator[dict[str, Any]]:
    """Yield a row per metric of a record; one without a metric if its cell failed."""
    model, adapter, protocol = record.place
    stream = record.seeds.get("stream")
    place = {
        "suite": record.suite,
        "kind": record.kind,
        "model": model,
        "seed": record.seed,
        "adapter": adapter,
        "protocol": protocol,
        "stream": stream if isinstance(stream, int) else None,
        "scorer": record.scorer,
        "probe": record.probe,
        "epoch": record.epoch,
        "estimator": record.estimator,
        "set": record.on,
        "group": record.group,
        "n": record.n_id if record.n_ood is None else record.n_ood,
        "n_id": record.n_id,
        "error": record.error,
    }
    if record.error is not None:
        yield place
        return
    for metric, found in record.metrics.items():
        yield place | {"metric": metric, **{key: found.get(key) for key in ("value", "lo", "hi")}}
