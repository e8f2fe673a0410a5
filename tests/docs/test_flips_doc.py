"""The tables and numbers of docs/estimation.md on both definitions of flips are those of the committed study."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

ROOT = Path(__file__).parents[2]
TABLE = pd.read_csv(ROOT / "results" / "studies" / "flips.csv")
TEXT = " ".join(
    (ROOT / "docs" / "estimation.md").read_text().partition("## Both definitions side by side\n")[2].split()
)
SHIFTED = TABLE[(TABLE["group"] == "test") & (TABLE["kind"] != "clean")]


def shifted(dataset: str, norm: str = "batchnorm") -> pd.DataFrame:
    return SHIFTED[(SHIFTED["dataset"] == dataset) & (SHIFTED["norm"] == norm)]


@pytest.fixture
def study(monkeypatch: pytest.MonkeyPatch) -> Any:
    folder = ROOT / "benchmarks" / "studies"
    monkeypatch.syspath_prepend(str(folder))
    spec = importlib.util.spec_from_file_location("flips_study", folder / "flips.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "flips_study", module)
    spec.loader.exec_module(module)
    return module


def test_the_tables_are_the_study_s(study: Any, tmp_path: Path) -> None:
    study.write_summary(TABLE, tmp_path / "flips.md")
    written = (tmp_path / "flips.md").read_text()
    assert written == (ROOT / "results" / "studies" / "flips.md").read_text()
    for line in filter(None, written.splitlines()):
        assert " ".join(line.split()) in TEXT


def test_what_batch_statistics_leave() -> None:
    for dataset, name in (("fashion-mnist", "Fashion-MNIST"), ("mnist", "MNIST")):
        mine = shifted(dataset)
        own, left = mine["source"].mean(), mine["adapted_100"].mean()
        assert f"{name}: {own:.3f} and {left:.3f}" in TEXT
        batch, source = (
            mine["adapted_100"].corr(mine[c], "spearman") for c in ("accuracy_batch", "accuracy")
        )
        assert batch < source <= 0 or dataset == "mnist"


def test_the_share_of_steps_that_update() -> None:
    exact = TABLE.dropna(subset=["updated_exact"])
    low, high = 100 * exact["updated_exact"].min(), 100 * exact["updated_exact"].max()
    assert f"in {low:.1f} to {high:.1f} % of 990 steps" in TEXT
    assert len(exact) == 4
    assert exact["exact"].max() == 0
    for dataset in ("fashion-mnist", "mnist"):
        ceiling = 100 * np.abs(shifted(dataset)["accuracy"] - 0.756618580).mean()
        assert f"{ceiling:.1f} points" in TEXT
    two = SHIFTED[SHIFTED["norm"] == "batchnorm"]
    assert f"{100 * two['updated_strict'].mean():.0f} % of the steps" in TEXT
    assert f"{100 * two['updated'].mean():.0f} % with" in TEXT


def test_groupnorm_has_one_definition() -> None:
    mine = TABLE[TABLE["norm"] == "groupnorm"]
    assert len(mine) == 15
    assert (mine["source"] == mine["adapted_100"]).all()
    assert (mine["accuracy"] == mine["accuracy_batch"]).all()
    found = mine[(mine["group"] == "test") & (mine["kind"] != "clean")]
    correlation = found["source"].corr(found["accuracy"], "spearman")
    assert f"correlation is {correlation:.2f} on five sets" in TEXT
    (fog,) = found[found["kind"] == "fog"].to_dict(orient="records")
    assert f"an accuracy of {100 * fog['accuracy']:.0f} %, one of 40 steps updated" in TEXT
    assert 40 * fog["updated"] == 1
    assert f"and {100 * fog['source']:.1f} % of the weighted predictions" in TEXT
