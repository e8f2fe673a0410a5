"""What a person sees while a run is under way."""

from __future__ import annotations

import logging
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from toys import run_suite


@pytest.fixture(autouse=True)
def show_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.base.progress._SECONDS_BETWEEN_LOG_LINES", 0.0)


def totals(shown: str) -> list[int]:
    """Read the totals of cells that the run's bar has shown, without repetitions."""
    found = [int(total) for total in re.findall(r"model \d of \d[^|]*\|[^|]*\| \d+/(\d+)", shown)]
    return list(dict.fromkeys(found))


def test_the_model_the_set_and_the_time_left_are_shown(
    tmp_path: Path, toy_suite: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    suite = toy_suite | {"models": [{"name": "network"}, {"name": "network", "params": {"size": 3}}]}
    run_suite(suite, tmp_path / "out", progress=True)
    shown = capsys.readouterr().err
    assert "model 1 of 2, network (seed 0)" in shown
    assert "model 2 of 2, network(size=3) (seed 0)" in shown
    assert "set 2 of 3, close" in shown
    assert re.search(r"model 2 of 2[^|]*\|[^|]*\| 15/20 \[\d\d:\d\d<\d\d:\d\d", shown)


def test_kept_cells_are_not_waited_for(
    tmp_path: Path, toy_suite: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    run_suite(toy_suite, tmp_path / "out")
    assert capsys.readouterr().err == ""
    run_suite(toy_suite | {"scorers": [*toy_suite["scorers"], "gradient"]}, tmp_path / "out", progress=True)
    assert totals(capsys.readouterr().err)[-1] == 3  # one scorer on three sets


def test_warnings_stand_above_the_bars(
    tmp_path: Path,
    toy_suite: dict[str, Any],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    handler = logging.StreamHandler(sys.stderr)
    monkeypatch.setattr(logging.getLogger(), "handlers", [handler])
    run_suite(toy_suite | {"scorers": ["level", "raises"]}, tmp_path / "out", progress=True)
    lines = re.split(r"[\r\n]", capsys.readouterr().err)
    assert any(line.startswith("network (seed 0), raises on bright: ") for line in lines)
