"""Classes in another order, more of them, or without names: the accuracy is right, or the board says why it is not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from journals import read_journal
from toys import run_suite

from harness.base.errors import DatasetError
from harness.reports.leaderboard import leaderboard

FORWARD, BACKWARD = ["level 0", "level 1", "level 2"], ["level 2", "level 1", "level 0"]


def accuracies(folder: Path) -> dict[str, float]:
    """Read the accuracy on ID test and on each shifted set."""
    return {
        r["ood"] or "id": r["metrics"]["accuracy"]["value"]
        for r in read_journal(folder)
        if r["kind"] == "model"
    }


def manifest(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "run.json").read_text())
    return found


def notes(folder: Path) -> str:
    return "\n".join(leaderboard([folder]).notes)


def test_parts_and_shifts_are_numbered_as_train_by_name(toy_suite: dict[str, Any], tmp_path: Path) -> None:
    toy_suite["id"] |= {
        "params": {"names": FORWARD},
        "test": {"split": "test", "dataset": "levels", "params": {"names": BACKWARD}},
    }
    toy_suite["shift"] = [
        {
            "name": "shifted",
            "dataset": "levels",
            "split": "test",
            "params": {"names": ["level 1", "level 2"], "classes": 2},
        }
    ]
    toy_suite["adapters"] = ["source"]
    run_suite(toy_suite, tmp_path / "out")
    assert accuracies(tmp_path / "out") == {"id": 1.0, "shifted": 1.0}
    errors = [r["metrics"] for r in read_journal(tmp_path / "out") if r["kind"] == "adaptation"]
    assert {metrics["error"]["value"] for metrics in errors} == {0.0}
    assert {metrics["id_error"]["value"] for metrics in errors if "id_error" in metrics} == {0.0}


def test_a_models_outputs_are_matched_by_name(toy_suite: dict[str, Any], tmp_path: Path) -> None:
    toy_suite["id"]["params"] = {"names": FORWARD}
    toy_suite["models"][0]["params"] = {"names": BACKWARD}
    run_suite(toy_suite, tmp_path / "out")
    assert accuracies(tmp_path / "out")["id"] == 1.0
    (model,) = manifest(tmp_path / "out")["models"].values()
    assert model["classes"] == {"data": 3, "model": 3, "matched": "name"}
    assert "order" not in notes(tmp_path / "out")


def test_a_model_may_know_more_classes(toy_suite: dict[str, Any], tmp_path: Path) -> None:
    five = ["level 4", "level 2", "level 0", "level 3", "level 1"]
    toy_suite["id"]["params"] = {"names": FORWARD}
    toy_suite["models"][0]["params"] = {"outputs": 5, "names": five}
    assert run_suite(toy_suite, tmp_path / "out").succeeded
    assert accuracies(tmp_path / "out")["id"] == 1.0
    assert "accuracy on id is over all 5 outputs" in notes(tmp_path / "out")


def test_a_class_map_says_which_output_is_which_class(toy_suite: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "map.txt").write_text("level 0,2\nlevel 1,1\nlevel 2,0\n")
    toy_suite["id"]["params"] = {"names": FORWARD}
    toy_suite["models"][0] |= {
        "params": {"names": BACKWARD, "known": False},
        "class_map": str(tmp_path / "map.txt"),
    }
    run_suite(toy_suite, tmp_path / "out")
    assert accuracies(tmp_path / "out")["id"] == 1.0


def test_only_the_classes_that_occur_compete_if_asked(toy_suite: dict[str, Any], tmp_path: Path) -> None:
    """Shifted by half a level, some images are nearest to a level that does not occur, unless it may not compete."""
    moved = {"names": FORWARD, "offset": 20, "seed": 3}
    toy_suite["models"][0]["params"] = {"outputs": 4, "names": [*FORWARD, "level 3"]}
    toy_suite["id"]["params"] = {"names": FORWARD}
    toy_suite["shift"] = [
        {"name": "open", "dataset": "levels", "params": moved},
        {"name": "closed", "dataset": "levels", "params": moved, "restrict": True},
    ]
    run_suite(toy_suite, tmp_path / "out")
    found = accuracies(tmp_path / "out")
    assert found["open"] < found["closed"]
    # By hand: levels 0, 1, 2 plus 20/30 are nearest to 1, 2, 3; without 3, the third class is right.
    rng = np.random.default_rng(3)
    labels = np.arange(40) % 3
    means = (40 + 20 + 30 * labels[:, None, None] + rng.integers(-12, 13, size=(40, 4, 4))).mean(axis=(1, 2))
    nearest = np.rint((means - 40) / 30)
    assert found["open"] == np.mean(nearest == labels)
    assert found["closed"] == np.mean(np.minimum(nearest, 2) == labels)
    assert "accuracy on closed is over the 3 classes that occur there" in notes(tmp_path / "out")


def test_a_likely_wrong_order_is_told_on_the_board(toy_suite: dict[str, Any], tmp_path: Path) -> None:
    toy_suite["models"][0]["params"] = {"names": BACKWARD, "known": False}
    run_suite(toy_suite, tmp_path / "out")
    assert accuracies(tmp_path / "out")["id"] == pytest.approx(1 / 3, abs=0.02)  # the middle class is right
    assert "with its outputs in another order it would be 100.0 %" in notes(tmp_path / "out")


def test_an_accuracy_near_chance_is_told_if_classes_have_no_names(
    toy_suite: dict[str, Any], tmp_path: Path
) -> None:
    toy_suite["id"]["test"] |= {
        "dataset": "levels",
        "params": {"offset": 500},
    }  # all white: one class for all
    run_suite(toy_suite, tmp_path / "out")
    assert "near chance, which is 33.3 % for 3 classes" in notes(tmp_path / "out")


def test_id_without_labels_runs_all_that_needs_none(toy_suite: dict[str, Any], tmp_path: Path) -> None:
    toy_suite["id"]["dataset"] = "unlabelled"
    toy_suite |= {"probes": ["mean", "labels"], "estimators": ["confident"]}
    result = run_suite(toy_suite, tmp_path / "out")
    assert result.succeeded
    kinds = {(r["kind"], r["error"]) for r in read_journal(tmp_path / "out")}
    assert kinds == {("score", None), ("probe", None)}  # no accuracy, and no estimate of it
    lacking = {tuple(entry["missing"]) for entry in manifest(tmp_path / "out")["not_applicable"]}
    assert lacking == {("labels",)}
    assert leaderboard([tmp_path / "out"]).frame["id_accuracy"].isna().all()


def test_parts_are_labelled_all_or_none(toy_suite: dict[str, Any], tmp_path: Path) -> None:
    toy_suite["id"]["test"] |= {"dataset": "unlabelled"}
    with pytest.raises(DatasetError, match="has no labels in test, but in the other parts"):
        run_suite(toy_suite, tmp_path / "out")


def test_images_without_a_label_among_labelled_ones_are_refused_and_never_count_as_misses(
    toy_suite: dict[str, Any], tmp_path: Path
) -> None:
    toy_suite["id"]["test"] |= {"dataset": "partly"}
    with pytest.raises(DatasetError, match="id.test .* has 2 of 40 samples without a label"):
        run_suite(toy_suite, tmp_path / "out")
    toy_suite["id"] |= {"classes": [0, 1, 2]}  # which leaves them out
    run_suite(toy_suite, tmp_path / "out")
    assert accuracies(tmp_path / "out")["id"] == 1.0


def test_a_corruption_never_counts_as_another_order(toy_suite: dict[str, Any], tmp_path: Path) -> None:
    toy_suite["id"]["params"] = {"side": 8}
    toy_suite["models"][0]["params"] = {"size": 8}
    for entry in toy_suite["ood"]:
        entry["params"] |= {"side": 8}
    toy_suite["shift"] = [
        {"corrupt": ["fog"], "severity": [1]},
        {"name": "own", "dataset": "levels", "split": "test"},
    ]
    toy_suite["shift"][1]["params"] = {"side": 8}
    run_suite(toy_suite, tmp_path / "out")
    known = {r["ood"] for r in read_journal(tmp_path / "out") if "renamed_accuracy" in r}
    assert known == {None, "own"}
