"""The document of results shows what its commands print, and its lines run."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

import harness
from harness.evaluations.results import Results
from harness.reports.metric_table import metric_table, metric_text
from harness.reports.terminal import as_terminal

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs/results.md").read_text()


def test_the_papers_table_is_what_the_command_prints() -> None:
    (line,) = re.findall(
        r"^ood-harness leaderboard (results/\S+) --metrics (\S+) --sets$", TEXT, re.MULTILINE
    )
    folder, metrics = line
    (shown,) = re.findall(r"```text\n(.*?)```", TEXT, flags=re.DOTALL)
    text = metric_text(metric_table([ROOT / folder], metrics.split(",")), with_sets=True)
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(as_terminal(text, 100))
    printed = [row.rstrip() for row in console.export_text().splitlines()]
    lines = shown.splitlines()
    start = printed.index(lines[0])
    assert printed[start : start + len(lines)] == lines
    assert len(lines) > 8


def test_the_lines_of_python_run(monkeypatch: pytest.MonkeyPatch) -> None:
    load = Results.of
    committed = [ROOT / "results/fashion-mnist-objectives"]
    monkeypatch.setattr(Results, "of", lambda folders: load(committed))
    names: dict[str, object] = {}
    for block in re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL):
        exec(block, names)
    board, aurocs, over_seeds = (names[name] for name in ("board", "aurocs", "over_seeds"))
    assert isinstance(board, pd.DataFrame)
    assert isinstance(aurocs, pd.DataFrame)
    assert isinstance(over_seeds, pd.DataFrame)
    knn = board[(board["model"] == "softmax") & (board["scorer"] == "knn")].iloc[0]
    assert aurocs.loc[("softmax", "knn"), "letters"] == pytest.approx(knn["letters_auroc"], abs=1e-12)
    of_knn = over_seeds.loc[("softmax", "knn", "letters", "auroc")]
    assert of_knn["count"] == 5
    assert of_knn["mean"] == pytest.approx(knn["letters_auroc"], abs=1e-12)


def test_the_columns_of_the_board_are_those_of_the_document() -> None:
    text = TEXT.split("## The board")[1].split("## Other tables")[0]
    documented = set(re.findall(r"`(\w+)`", text))
    frame = harness.load(ROOT / "results/fashion-mnist-objectives")
    sets = set(frame[frame["kind"] == "score"]["set"])
    for column in frame.board().columns:
        plain = re.sub("_(lo|hi)$", "", column)
        of_set = next(
            (plain.replace(f"{name}_", "SET_", 1) for name in sets if plain.startswith(f"{name}_")), plain
        )
        of_group = re.sub("^(far|csid|all)_(fpr)", r"near_\2", of_set)
        assert of_group in documented, column
