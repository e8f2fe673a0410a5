"""The numbers of finished runs in pandas: the same columns for every suite, and the tables that commands print."""

from __future__ import annotations

import copy
import io
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from journals import read_journal
from pandas.testing import assert_frame_equal
from toys import run_suite

import harness
from harness.base.errors import InputError, RecordsError, UnknownNameError
from harness.evaluations.results import COLUMNS
from harness.reports.board_text import as_csv
from harness.reports.leaderboard import leaderboards

DOC = Path(__file__).parents[2] / "docs/results.md"
PLACE = [
    "suite",
    "kind",
    "model",
    "seed",
    "adapter",
    "protocol",
    "stream",
    "scorer",
    "epoch",
    "probe",
    "estimator",
    "set",
    "metric",
]


@pytest.fixture
def ran(toy_suite: dict[str, Any], tmp_path: Path) -> Path:
    return run_suite(toy_suite, tmp_path / "out").folder


def test_the_columns_are_those_of_the_documents_for_every_suite(everything: Path, ran: Path) -> None:
    text = DOC.read_text().split("## The long frame")[1].split("## The board")[0]
    cells = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
    documented = [name for cell in cells for name in re.findall("`(\\w+)`", cell)]
    assert list(COLUMNS) == documented
    for folder in (everything, ran):
        frame = harness.load(folder)
        assert frame.columns.tolist() == documented
        assert {name: str(kind) for name, kind in frame.dtypes.items()} == COLUMNS


def test_every_number_of_the_journal_is_a_row(everything: Path) -> None:
    frame = harness.load(everything)
    assert not frame.duplicated(PLACE).any()
    measured = frame[frame["error"].isna()]
    assert set(measured["kind"]) == {"score", "model", "probe", "curve", "adaptation", "estimate"}
    columns = ["kind", "model", "seed", "adapter", "set", "metric", "value", "lo", "hi"]
    rows = [
        tuple(None if pd.isna(v) else v for v in row) for row in measured[columns].itertuples(index=False)
    ]
    expected = [
        (r["kind"], r["model"], r["seeds"]["model"], r["adapter"], r["ood"] or "id", metric, *bounds)
        for r in read_journal(everything)
        if not r["error"]
        for metric, found in r["metrics"].items()
        for bounds in [(found["value"], found["lo"], found["hi"])]
    ]
    assert Counter(rows) == Counter(expected)
    assert len(rows) > 1000


def test_a_score_has_its_place_its_interval_and_its_sizes(ran: Path) -> None:
    frame = harness.load(str(ran))
    (record,) = [r for r in read_journal(ran) if (r["scorer"], r["ood"]) == ("margin", "close")]
    chosen = (frame["scorer"] == "margin") & (frame["set"] == "close") & (frame["metric"] == "auroc")
    (row,) = frame[chosen].to_dict(orient="records")
    assert (row["value"], row["lo"], row["hi"]) == tuple(
        record["metrics"]["auroc"][k] for k in ("value", "lo", "hi")
    )
    assert (row["n"], row["n_id"]) == (record["n_ood"], record["n_id"])
    assert (row["suite"], row["kind"], row["model"], row["seed"]) == ("toy", "score", "network", 0)
    assert (row["adapter"], row["protocol"], row["group"]) == ("source", "separate", "near")


def test_a_cell_that_failed_is_a_row_with_its_error(toy_suite: dict[str, Any], tmp_path: Path) -> None:
    toy_suite["scorers"].append("raises")
    frame = harness.load(run_suite(toy_suite, tmp_path / "out").folder)
    failed = frame[frame["scorer"] == "raises"]
    assert failed["error"].tolist() == ["ZeroDivisionError: by design"] * 3
    assert failed[["metric", "value", "lo", "hi"]].isna().all(axis=None)
    assert frame[frame["scorer"] != "raises"]["error"].isna().all()


def test_the_board_is_what_the_command_writes(everything: Path) -> None:
    frame = harness.load(everything)
    written = as_csv(*leaderboards([everything]))
    assert frame.board().to_csv(index=False, lineterminator="\n") == written
    protocol = next(p for p in frame["protocol"].unique() if p.startswith("mixed "))
    one = frame.board(metric="dtacc", group="near", protocol=protocol)
    assert set(one["protocol"]) == {protocol}
    assert "near_dtacc" in one
    with pytest.raises(UnknownNameError, match="no metric named 'aurok'"):
        frame.board(metric="aurok")


@pytest.mark.parametrize("name", ["probes", "adaptation", "estimates"])
def test_the_tables_are_what_a_run_writes(name: str, everything: Path) -> None:
    table = harness.load(everything).table(name)
    written = pd.read_csv(everything / f"{name}.csv")
    assert_frame_equal(pd.read_csv(io.StringIO(table.to_csv(index=False))), written)


def test_an_unknown_table_and_one_without_numbers_are_refused(ran: Path) -> None:
    frame = harness.load(ran)
    with pytest.raises(
        UnknownNameError, match=r"no table named 'probs'\. Did you mean 'probes'\? Valid: adaptation,"
    ):
        frame.table("probs")
    with pytest.raises(RecordsError, match="no probes in"):
        frame.table("probes")


def test_what_is_computed_from_the_frame_is_a_plain_one(ran: Path, tmp_path: Path) -> None:
    frame = harness.load(ran)
    assert isinstance(frame, pd.DataFrame)
    assert type(frame[frame["metric"] == "auroc"]) is pd.DataFrame
    assert type(frame.head()) is pd.DataFrame
    frame.to_parquet(tmp_path / "frame.parquet")
    assert_frame_equal(pd.read_parquet(tmp_path / "frame.parquet"), pd.DataFrame(frame))


def test_several_runs_are_one_frame_and_the_last_ones_numbers_count(
    toy_suite: dict[str, Any], tmp_path: Path
) -> None:
    more = copy.deepcopy(toy_suite)
    toy_suite["scorers"], more["scorers"] = ["level", "margin"], ["margin", "from_train"]
    a, b = (run_suite(suite, tmp_path / name).folder for suite, name in ((toy_suite, "a"), (more, "b")))
    both = harness.load(a, b)
    assert len(both) == len(harness.load(a)) + len(harness.load(b)) - len(
        harness.load(a)[lambda f: (f["scorer"] == "margin") | (f["kind"] == "model")]
    )
    assert both.board().equals(leaderboards([a, b])[0].frame)


def test_runs_of_two_suites_are_one_frame_and_no_board(toy_suite: dict[str, Any], tmp_path: Path) -> None:
    other = copy.deepcopy(toy_suite) | {"name": "other"}
    a, b = (run_suite(suite, tmp_path / suite["name"]).folder for suite in (toy_suite, other))
    both = harness.load(a, b)
    assert set(both["suite"]) == {"toy", "other"}
    with pytest.raises(RecordsError, match="of different suites: other, toy"):
        both.board()


def test_runs_over_different_data_are_refused(toy_suite: dict[str, Any], tmp_path: Path) -> None:
    folder = run_suite(toy_suite, tmp_path / "a").folder
    changed = [{**r, "data": {**r["data"], "id": "0" * 32}} for r in read_journal(folder)]
    other = tmp_path / "b"
    other.mkdir()
    (other / "records.jsonl").write_text(
        "".join(json.dumps({**r, "cell_id": f"{r['cell_id'][:-1]}x"}) + "\n" for r in changed)
    )
    with pytest.raises(RecordsError, match="are of different data"):
        harness.load(folder, other)


def test_no_folder_and_no_run_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no folder is given"):
        harness.load()
    with pytest.raises(RecordsError, match="is no run's folder: it has no records.jsonl"):
        harness.load(tmp_path)
    (tmp_path / "records.jsonl").write_text("")
    with pytest.raises(RecordsError, match="no records in"):
        harness.load(tmp_path)
