"""Several metrics side by side: means and standard deviations over seeds, of sets and of groups."""

from __future__ import annotations

import copy
import io
import json
import statistics
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from journals import read_journal
from rich.cells import cell_len
from toys import TOY_SUITE, run_suite

from harness import cli
from harness.base.errors import InputError, UnknownNameError
from harness.reports.metric_table import as_latex, metric_table, metric_text
from harness.reports.terminal import as_terminal
from harness.reports.text import as_csv, as_json, as_markdown

PAPERS = ["tnr95_id", "auroc", "dtacc", "aupr_in", "aupr_out"]  # of the IsoMax papers


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three seeds of a model and one of another, with a scorer that fails and one that does not apply."""
    suite: dict[str, Any] = copy.deepcopy(TOY_SUITE)
    suite["models"] = [{"name": "network", "seeds": [0, 1, 2]}, {"name": "network", "label": "single"}]
    suite["scorers"] = ["level", "margin", "from_train", "raises", "whole"]
    folder = tmp_path_factory.mktemp("metrics")
    return run_suite(suite, folder / "out", cache=folder / "cache").folder


def values(folder: Path, scorer: str, metric: str, model: str = "network") -> dict[str, list[float]]:
    """Read a metric of the journal: by set, seed after seed."""
    found: dict[str, list[float]] = {}
    records = [r for r in read_journal(folder) if r["kind"] == "score" and not r["error"]]
    for record in sorted(records, key=lambda r: r["seeds"]["model"]):
        if (record["scorer"], record["model"]) == (scorer, model):
            found.setdefault(record["ood"], []).append(record["metrics"][metric]["value"])
    return found


@pytest.mark.parametrize("scorer", ["level", "margin"])
@pytest.mark.parametrize("metric", PAPERS)
def test_a_cell_is_the_mean_and_standard_deviation_over_seeds(ran: Path, scorer: str, metric: str) -> None:
    frame = metric_table([ran], PAPERS).frame
    rows = frame[(frame["model"] == "network") & (frame["scorer"] == scorer)].set_index("set")
    of_sets = values(ran, scorer, metric)
    assert rows["seeds"].unique().tolist() == [3]
    near = [(a + b) / 2 for a, b in zip(of_sets["close"], of_sets["closer"], strict=True)]
    both = [(a + b) / 2 for a, b in zip(near, of_sets["bright"], strict=True)]
    for name, expected in {**of_sets, "near": near, "far": of_sets["bright"], "all": both}.items():
        assert len(expected) == 3
        assert rows.loc[name, metric] == pytest.approx(statistics.fmean(expected), abs=1e-12)
        assert rows.loc[name, f"{metric}_sd"] == pytest.approx(statistics.stdev(expected), abs=1e-12)


def test_one_seed_has_no_deviation_and_a_failed_cell_no_number(ran: Path) -> None:
    frame = metric_table([ran], ["auroc"]).frame
    single = frame[(frame["model"] == "single") & (frame["scorer"] == "level")].set_index("set")
    (expected,) = values(ran, "level", "auroc", "single")["close"]
    assert single.loc["close", "auroc"] == pytest.approx(expected)
    assert single["auroc_sd"].isna().all()
    assert frame[frame["scorer"] == "raises"][["auroc", "auroc_sd"]].isna().all(axis=None)
    assert any("raises failed on" in note for note in metric_table([ran], ["auroc"]).notes)


def test_rows_are_in_the_order_of_the_first_metric(ran: Path) -> None:
    frame = metric_table([ran], ["fpr95_id", "auroc"], group="near").frame
    near = frame[(frame["set"] == "near") & (frame["model"] == "network")]
    assert near["fpr95_id"].dropna().is_monotonic_increasing
    assert near["scorer"].iloc[-1] == "raises"
    assert frame["set"].drop_duplicates().tolist() == ["near", "far", "all", "close", "closer", "bright"]


def test_every_format_has_every_set(ran: Path) -> None:
    text = metric_text(metric_table([ran], ["auroc", "dtacc"]))
    table = pd.read_csv(io.StringIO(as_csv(text)))
    assert table.columns.tolist()[-4:] == ["auroc", "auroc_sd", "dtacc", "dtacc_sd"]
    rows = json.loads(as_json(text))["rows"]
    assert len(rows) == len(table)
    assert {row["set"] for row in rows} == {"near", "far", "all", "close", "closer", "bright"}
    row = next(r for r in rows if (r["set"], r["model"], r["scorer"]) == ("close", "network", "margin"))
    shown = f"{100 * row['auroc']:.1f} ± {100 * row['auroc_sd']:.1f}"
    assert f"| close | network (3 seeds) | margin | {shown} |" in as_markdown(text)
    latex, in_latex = as_latex(text), shown.replace("±", r"$\pm$")
    assert f"close & network (3 seeds) & margin & {in_latex} & " in latex
    assert r"\begin{tabular}{lllrr}" in latex


@pytest.mark.parametrize(("columns", "with_sets"), [(80, False), (80, True), (100, True), (60, True)])
def test_the_terminal_shows_groups_and_on_request_sets(ran: Path, columns: int, with_sets: bool) -> None:
    from rich.console import Console

    text = metric_text(metric_table([ran], PAPERS), with_sets=with_sets)
    console = Console(width=columns, file=io.StringIO())
    console.print(as_terminal(text, columns))
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert max(map(cell_len, lines)) <= columns
    titles = [line.strip() for line in lines if line.startswith("toy: ")]
    groups = ["toy: near, mean over sets", "toy: far, mean over sets"]
    assert titles == ([*groups, "toy: close", "toy: closer", "toy: bright"] if with_sets else groups)
    assert not [line for line in lines if line.strip().startswith("raises ")]  # it has no number to show


def test_each_protocol_has_its_own_rows(everything: Path) -> None:
    table = metric_table([everything], ["auroc"])
    protocols = table.frame["protocol"].drop_duplicates().tolist()
    assert protocols[0] == "separate"
    assert len(protocols) > 1
    one = metric_table([everything], ["auroc"], protocol=protocols[1]).frame
    expected = table.frame[table.frame["protocol"] == protocols[1]].reset_index(drop=True)
    pd.testing.assert_frame_equal(one, expected, check_dtype=False)


def test_bad_metrics_are_refused(ran: Path) -> None:
    with pytest.raises(UnknownNameError) as unknown:
        metric_table([ran], ["auroc", "aurok"])
    assert str(unknown.value) == (
        "no metric named 'aurok'. Did you mean 'auroc'? Valid: ap_in, ap_out, aupr_in, aupr_out, auroc, dtacc, "
        "fpr95_id, fpr95_ood, tnr95_id"
    )
    with pytest.raises(InputError, match="no metric is given. Valid: auroc, fpr95_id"):
        metric_table([ran], [])
    with pytest.raises(UnknownNameError, match="no group named 'nearby'"):
        metric_table([ran], ["auroc"], group="nearby")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--metrics", "tnr,auroc"], "no metric named 'tnr'. Valid: ap_in,"),
        (["--metrics", ","], "no metric is given"),
        (
            ["--metrics", "auroc", "--metric", "dtacc"],
            "--metric dtacc and --metrics auroc are given. Give only one",
        ),
    ],
)
def test_the_command_refuses_in_one_line(
    options: list[str],
    message: str,
    ran: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["ood-harness", "leaderboard", str(ran), *options])
    with pytest.raises(SystemExit) as exit_:
        cli.main()
    output = capfd.readouterr()
    assert (exit_.value.code, output.out) == (2, "")
    assert message in output.err
    assert len(output.err.strip().splitlines()) == 1


@pytest.mark.parametrize("format", ["table", "md", "csv", "json", "latex"])
def test_the_command_prints_every_format(
    format: str, ran: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments = ["leaderboard", str(ran), "--metrics", ",".join(PAPERS), "--format", format, "--sets"]
    monkeypatch.setattr(sys, "argv", ["ood-harness", *arguments])
    cli.app(arguments, standalone_mode=False)
    printed = capfd.readouterr().out
    for name in ("margin", "closer", "tnr95_id" if format in ("csv", "json") else "TNR95"):
        assert name in printed
