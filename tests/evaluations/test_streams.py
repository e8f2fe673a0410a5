"""Transductive scorers: on mixtures of several seeds, with records that say so, on the board without a rank."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from journals import read_journal
from scipy.stats import t as student
from sklearn.metrics import roc_auc_score
from toys import run_suite, toy_module

from harness.reports.board_text import as_markdown
from harness.reports.leaderboard import leaderboard


@pytest.fixture
def whole(toy_suite: dict[str, Any]) -> dict[str, Any]:
    toy_suite["scorers"] = ["level", "margin", "whole"]
    return toy_suite


def records_of_whole(folder: Path, label: str = "whole") -> dict[str, dict[str, Any]]:
    return {record["ood"]: record for record in read_journal(folder) if record["scorer"] == label}


def test_scores_are_those_of_mixtures_with_students_interval(whole: dict[str, Any], tmp_path: Path) -> None:
    whole["ood"][1]["limit"] = 30
    assert run_suite(whole, tmp_path / "out").succeeded
    record = records_of_whole(tmp_path / "out")["close"]
    module = toy_module()
    ids, outliers = module.Levels(40, 3, 3, 0, 4), module.Levels(40, 3, 5, 15, 4)
    kept = np.sort(np.random.default_rng(0).choice(40, size=30, replace=False))
    expected = []
    for seed in range(5):
        rng = np.random.default_rng(seed)
        chosen, others = rng.permutation(40)[:30], kept[rng.permutation(30)]
        levels = [ids._images[chosen].mean(axis=(1, 2)), outliers._images[others].mean(axis=(1, 2))]
        expected.append(roc_auc_score(np.repeat([0, 1], 30), np.concatenate(levels)))
    assert record["by_stream"]["auroc"] == pytest.approx(expected)
    reach = student.ppf(0.975, 4) * np.std(expected, ddof=1) / np.sqrt(5)
    found = record["metrics"]["auroc"]
    assert (found["value"], found["hi"]) == pytest.approx((np.mean(expected), np.mean(expected) + reach))
    assert record["variants"] == {"negative": pytest.approx(1 - np.mean(expected))}
    assert record["facts"].keys() == {"mean"}
    assert record["flags"] == ["transductive"]
    assert (record["n_id"], record["n_ood"], record["seeds"]["stream"]) == (30, 30, [0, 1, 2, 3, 4])


def test_shifted_id_is_no_ood(whole: dict[str, Any], tmp_path: Path) -> None:
    whole["shift"] = [{"name": "dim", "dataset": "levels", "params": {"seed": 9}}]
    run_suite(whole, tmp_path / "out")
    assert set(records_of_whole(tmp_path / "out")) == {"bright", "close", "closer"}


def test_the_board_shows_it_without_a_rank_and_says_what_it_is(whole: dict[str, Any], tmp_path: Path) -> None:
    run_suite(whole, tmp_path / "out")
    board = leaderboard([tmp_path / "out"])
    rows = board.frame.set_index("scorer")
    assert rows.loc["whole", "near_auroc_lo"] <= rows.loc["whole", "near_auroc"]
    assert rows["rank_best"].isna().to_dict() == {"level": False, "margin": False, "whole": True}
    assert any("whole: transductive" in note for note in board.notes)
    assert "transductive" in as_markdown(board)


def test_a_second_run_scores_nothing_and_another_seed_all(whole: dict[str, Any], tmp_path: Path) -> None:
    first, again = (run_suite(whole, tmp_path / "out", cache=tmp_path / "cache") for _ in range(2))
    whole["adaptation"] = {"seeds": [7]}
    other = run_suite(whole, tmp_path / "out", cache=tmp_path / "cache")
    assert (first.cells, first.measured, again.measured, other.measured) == (9, 9, 0, 3)
    record = records_of_whole(tmp_path / "out")["close"]
    assert (record["metrics"]["auroc"]["lo"], record["seeds"]["stream"]) == (None, [7])


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("raises", "stream 0: ZeroDivisionError: by design"),
        ("short", r"scores have shape \(79,\), expected \(80,\)"),
    ],
)
def test_a_failure_is_a_record_and_the_others_go_on(
    whole: dict[str, Any], tmp_path: Path, how: str, message: str
) -> None:
    whole["scorers"] = ["level", {"name": "whole", "how": how}]
    result = run_suite(whole, tmp_path / "out")
    assert result.failed == 3
    (error,) = {
        record["error"] for record in records_of_whole(tmp_path / "out", f"whole(how={how})").values()
    }
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(error)
    assert leaderboard([tmp_path / "out"]).frame.set_index("scorer").loc["level", "all_auroc"] > 0


def test_under_adapters_it_is_not_applicable(whole: dict[str, Any], tmp_path: Path) -> None:
    whole["adapters"] = [{"name": "slide", "protocol": "mixed"}]
    whole["adaptation"] = {"seeds": [0]}
    assert run_suite(whole, tmp_path / "out").succeeded
    adapted = {r["scorer"] for r in read_journal(tmp_path / "out") if "mixture" in r and r["kind"] == "score"}
    assert adapted == {"level", "margin"}
