"""A part of a suite: some scorers, some models, or everything anew, in the folder of the whole."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
from journals import read_journal
from toys import TOY_PLUGIN, as_toml
from typer.testing import CliRunner

import harness
from harness.base.errors import UnknownNameError
from harness.cli import app
from harness.engine.runner import RunOptions, RunResult
from harness.evaluations.run import prepare, run_plan


@pytest.fixture
def suite(toy_suite: dict[str, Any], tmp_path: Path) -> Path:
    toy_suite["models"] = [
        {"name": "network", "seeds": [0, 1]},
        {"name": "network", "label": "distance", "params": {"head": "distance"}},
    ]
    toy_suite["scorers"] = ["level", "margin", "from_train", "needs_linear"]
    path = tmp_path / "toy.toml"
    path.write_text(as_toml(toy_suite))
    return path


def ran(suite: Path, out: Path, *, fresh: bool = False, **part: list[str]) -> RunResult:
    plan = prepare(str(suite), plugins=[TOY_PLUGIN], **part)
    return run_plan(plan, RunOptions(out=out, device="cpu", fresh=fresh))


def manifest(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "run.json").read_text())
    return found


def files(folder: Path) -> list[bytes]:
    return [(folder / name).read_bytes() for name in ("records.jsonl", "leaderboard.csv", "leaderboard.md")]


DISTANCE = "distance"


def test_a_part_is_measured_alone_and_the_rest_later_gives_the_whole(suite: Path, tmp_path: Path) -> None:
    whole = ran(suite, tmp_path / "whole")
    first = ran(suite, tmp_path / "parts", scorers=["margin"], models=["network"])
    assert {(r["scorer"], r["model"]) for r in read_journal(tmp_path / "parts") if r["kind"] == "score"} == {
        ("margin", "network")
    }
    rest = ran(suite, tmp_path / "parts")
    assert (first.measured, rest.measured) == (2 * 3, whole.measured - 2 * 3)
    assert files(tmp_path / "parts") == files(tmp_path / "whole")
    assert "part" not in manifest(tmp_path / "parts")


def test_parts_in_any_order_end_in_the_same_board(suite: Path, tmp_path: Path) -> None:
    ran(suite, tmp_path / "whole")
    ran(suite, tmp_path / "parts", models=[DISTANCE])
    ran(suite, tmp_path / "parts", scorers=["level", "margin"])
    ran(suite, tmp_path / "parts", scorers=["from_train", "needs_linear"], models=["network"])
    assert files(tmp_path / "parts") == files(tmp_path / "whole")
    of_parts, of_whole = manifest(tmp_path / "parts"), manifest(tmp_path / "whole")
    assert of_parts["models"] == of_whole["models"]
    assert of_parts["not_applicable"] == of_whole["not_applicable"] != []
    assert of_parts["part"] == {"models": ["network"], "scorers": ["from_train", "needs_linear"]}


def test_a_part_that_is_there_measures_nothing_and_loses_nothing(suite: Path, tmp_path: Path) -> None:
    ran(suite, tmp_path / "out")
    before, said = files(tmp_path / "out"), manifest(tmp_path / "out")
    again = ran(suite, tmp_path / "out", scorers=["level"], models=["network"])
    assert again.measured == 0
    assert files(tmp_path / "out") == before
    assert manifest(tmp_path / "out")["models"] == said["models"]
    assert manifest(tmp_path / "out")["not_applicable"] == said["not_applicable"]


def test_a_part_says_that_the_others_have_lost_their_ranks_if_their_scores_are_gone(
    suite: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ran(suite, tmp_path / "out")
    before = files(tmp_path / "out")
    shutil.rmtree(tmp_path / "out" / "scores")
    with caplog.at_level(logging.WARNING):
        ran(suite, tmp_path / "out", scorers=["level"], models=["network"])
    assert "network (seed 0): the scores of from_train, margin, needs_linear are gone" in caplog.text
    ran(suite, tmp_path / "out")
    assert files(tmp_path / "out") == before


def test_fresh_measures_again_what_is_there_from_the_same_features(suite: Path, tmp_path: Path) -> None:
    ran(suite, tmp_path / "out")
    before = files(tmp_path / "out")
    again = ran(suite, tmp_path / "out", fresh=True, scorers=["level", "margin"])
    assert again.measured == 2 * 3 * 3
    assert again.counts.forwarded == 0
    assert files(tmp_path / "out") == before


def test_a_part_never_ranks_the_scores_of_two_networks_together(suite: Path, tmp_path: Path) -> None:
    ran(suite, tmp_path / "out")
    before = files(tmp_path / "out")
    text = suite.read_text()
    suite.write_text(text.replace("seeds = [0, 1]", "seeds = [0, 1], preprocessing = { std = [0.5] }"))
    for _ in range(2):  # a refused part does not make the next one pass
        part = ran(suite, tmp_path / "out", scorers=["level"], models=["network"])
        assert part.failed == part.cells == 2 * 3
        assert files(tmp_path / "out") == before
    whole = ran(suite, tmp_path / "out")
    assert not whole.failed
    assert files(tmp_path / "out") != before


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (
            {"scorers": ["lvel"]},
            "no scorer named 'lvel'. Did you mean 'level'? In this suite: from_train, level",
        ),
        ({"models": ["net"]}, "no model named 'net'. Did you mean 'network'? In this suite: distance"),
        ({"scorers": ["level", "gen"]}, "no scorer named 'gen'. In this suite: from_train"),
    ],
)
def test_a_name_that_the_suite_does_not_have_is_one_line(
    part: dict[str, list[str]], message: str, suite: Path, tmp_path: Path
) -> None:
    with pytest.raises(UnknownNameError) as error:
        ran(suite, tmp_path / "out", **part)
    assert str(error.value).startswith(message)
    assert not (tmp_path / "out").exists()


def test_a_plugins_name_chooses_it_with_any_parameters(toy_suite: dict[str, Any], tmp_path: Path) -> None:
    toy_suite["scorers"] = ["margin", "level", {"name": "level", "sign": -1.0}]
    path = tmp_path / "toy.toml"
    path.write_text(as_toml(toy_suite))
    plan = prepare(str(path), plugins=[TOY_PLUGIN], scorers=["level"])
    assert [scorer.label for scorer in plan.named("scorers")] == ["level", "level(sign=-1.0)"]
    one = prepare(str(path), plugins=[TOY_PLUGIN], scorers=["level(sign=-1.0)"])
    assert [scorer.label for scorer in one.named("scorers")] == ["level(sign=-1.0)"]


def test_the_command_and_python_take_the_same_part(suite: Path, tmp_path: Path) -> None:
    options = ["--scorer", "level", "--model", "network", "--device", "cpu", "--plugin", str(TOY_PLUGIN)]
    result = CliRunner().invoke(app, ["run", str(suite), "--out", "cli", *options])
    assert result.exit_code == 0, result.output
    board = harness.run(
        str(suite), out="python", scorers=["level"], models=["network"], plugins=[TOY_PLUGIN], device="cpu"
    )
    assert len(board)
    assert files(Path("cli")) == files(Path("python"))
    fresh = CliRunner().invoke(app, ["run", str(suite), "--out", "cli", "--fresh", *options])
    assert "6 cells, 6 measured now" in fresh.stderr
    planned = CliRunner().invoke(app, ["run", str(suite), "--dry-run", *options])
    assert "scorers: level\n" in planned.stdout
    assert "distance" not in planned.stdout
