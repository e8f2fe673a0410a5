"""The committed boards show what their suites run today, and results/README.md says where they do not."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from harness.contract.bases import read_based
from harness.contract.registry import Registry
from harness.engine.plan import Plan
from harness.evaluations.run import plan_suite

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "results"
OWN = {  # folders of a reader's own runs, such as that of `make leaderboard`, which are not committed
    line.removeprefix("results/").rstrip("/")
    for line in (ROOT / ".gitignore").read_text().splitlines()
    if line.startswith("results/")
}
BOARDS = sorted({path.parent.name for path in RESULTS.glob("*/run.json")} - OWN)
TABLES = {  # by key in a suite: the file of a run, and its column
    "scorers": ("leaderboard.csv", "scorer"),
    "probes": ("probes.csv", "probe"),
    "adapters": ("adaptation.csv", "adapter"),
    "estimators": ("estimates.csv", "estimator"),
    "curves": ("curves.csv", "probe"),
}


def stated() -> dict[str, tuple[str, set[str]]]:
    """Read the table of results/README.md: the commit of each board, and what it lacks."""
    text = (RESULTS / "README.md").read_text().split("## State of the boards")[1]
    rows = re.findall(r"^\| (\S+) \| ([0-9a-f]{7}) \| (.*)\|$", text, re.MULTILINE)
    return {board: (commit, set(re.findall(r"`([^`]+)`", lacks))) for board, commit, lacks in rows}


def manifest(board: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((RESULTS / board / "run.json").read_text())
    return found


def planned(suite: str, registry: Registry) -> Plan:
    return plan_suite(read_based(registry.path("suite", suite), "suite", registry), registry, source=suite)


def measured(board: str, key: str) -> set[str]:
    """Return the methods on a board; fitted again on adapted features, or read by a curve, they are no others."""
    file, column = TABLES[key]
    labels = pd.read_csv(RESULTS / board / file)[column]
    return set(labels.str.replace(r" \(refit\)$|-(?:fitted|shared)$", "", regex=True))


def test_every_board_is_in_the_table() -> None:
    assert sorted(stated()) == BOARDS


@pytest.mark.parametrize("board", BOARDS)
def test_the_commit_is_that_of_the_run(board: str) -> None:
    assert manifest(board)["git_commit"][:7] == stated()[board][0]


@pytest.mark.parametrize("board", BOARDS)
def test_a_board_has_the_methods_and_models_of_its_suite(board: str, catalogue: Registry) -> None:
    run = manifest(board)
    plan = planned(run["suite"], catalogue)
    titles = {model.title: model.label for model in plan.models}
    assert set(run["models"]) <= titles.keys()
    lacking = {label for title, label in titles.items() if title not in run["models"]}
    inapplicable = {cell.get(key.removesuffix("s")) for cell in run["not_applicable"] for key in TABLES}
    for key, workers in plan.workers.items():
        today = {worker.label for worker in workers}
        if today and (key != "scorers" or plan.sets):
            assert measured(board, key) <= today, "methods that the suite no longer runs"
            lacking |= today - measured(board, key) - inapplicable
    assert lacking == stated()[board][1]
