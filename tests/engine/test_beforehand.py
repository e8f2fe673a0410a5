"""Faults of the data are known before a model is loaded; doubts stand in run.json and on the board."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from journals import read_journal
from toys import run_suite

from harness.base.errors import DatasetError, HarnessError
from harness.engine.loading import Loader
from harness.reports.leaderboard import leaderboard


def manifest(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "run.json").read_text())
    return found


def notes(folder: Path) -> str:
    return "\n".join(leaderboard([folder]).notes)


# Images that ID and OOD share ---------------------------------------------------------------------------------------


def test_ood_images_that_are_ids_are_counted_and_told(
    toy_suite: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    toy_suite["ood"][0] = {"name": "same", "dataset": "levels", "split": "test", "group": "far"}
    toy_suite["ood"][1] = {"name": "seen", "dataset": "levels", "split": "train", "limit": 7, "group": "near"}
    with caplog.at_level(logging.WARNING):
        run_suite(toy_suite, tmp_path / "out")
    overlaps = manifest(tmp_path / "out")["overlaps"]
    assert overlaps["same and test"] == 40
    assert overlaps["seen and train"] == 7
    assert "closer and test" not in overlaps
    assert "same and test share 40 images, by content" in caplog.text
    assert "seen and train share 7 images, by content" in notes(tmp_path / "out")


def test_sets_that_are_too_large_to_compare_are_named(
    toy_suite: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "harness.data.id_data.CHECKED_FOR_OVERLAP", 130
    )  # the three parts of ID have 120 images
    run_suite(toy_suite, tmp_path / "out")
    assert manifest(tmp_path / "out")["overlaps_unchecked"] == ["bright", "close", "closer"]
    assert "data: too many images to compare with ID's: bright, close, closer" in notes(tmp_path / "out")


def test_facts_that_are_no_json_are_told_before_a_model_is_loaded(
    toy_suite: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy_suite["ood"][0] |= {"dataset": "levels", "params": {"factual": True}}
    monkeypatch.setattr(Loader, "load", None)
    with pytest.raises(DatasetError, match="bright: its facts cannot be written as JSON"):
        run_suite(toy_suite, tmp_path / "out")


# Images that cannot be read -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("table", ["ood", "shift", "id"])
def test_unreadable_images_are_left_out_if_asked_named_and_counted(
    table: str, toy_suite: dict[str, Any], tmp_path: Path
) -> None:
    broken: dict[str, Any] = {"dataset": "unreadable", "params": {"broken": 3}, "unreadable": "skip"}
    if table == "id":
        toy_suite["id"] |= {"unreadable": "skip"}
        toy_suite["id"]["test"] = {"dataset": "unreadable", "params": {"broken": 3}}
    elif table == "ood":
        toy_suite["ood"].append({"name": "torn", "group": "far", **broken})
    else:
        toy_suite["shift"] = [{"name": "torn", **broken}]
    assert run_suite(toy_suite, tmp_path / "out").succeeded
    name = "id" if table == "id" else "torn"
    key, of = ("n_id", None) if table == "id" else ("n_ood", "torn")
    sizes = {r[key] for r in read_journal(tmp_path / "out") if of is None or r["ood"] == of}
    assert sizes == {37}
    faults = manifest(tmp_path / "out")["data_facts"][name]["unreadable"]
    assert faults == [f"image {number} of 'unreadable' is damaged" for number in range(3)]
    assert f"{name}: 3 images cannot be read and are left out, first: image 0" in notes(tmp_path / "out")


def test_a_set_of_which_nothing_can_be_read_is_told(toy_suite: dict[str, Any], tmp_path: Path) -> None:
    toy_suite["ood"].append({"name": "torn", "group": "far", "dataset": "unreadable", "unreadable": "skip"})
    with pytest.raises(DatasetError, match="set torn: .* is empty: none of its images can be read, image 0"):
        run_suite(toy_suite, tmp_path / "out")


def test_an_image_that_cannot_be_read_is_an_error_by_default(
    toy_suite: dict[str, Any], tmp_path: Path
) -> None:
    toy_suite["ood"].append(
        {"name": "torn", "group": "far", "dataset": "unreadable", "params": {"broken": 3}}
    )
    assert run_suite(toy_suite, tmp_path / "out").failed == 3  # its three scorers


# Validation that the weights have seen ------------------------------------------------------------------------------


def scored_with_validation(folder: Path) -> dict[str, list[str]]:
    """Read the flags by scorer."""
    return {r["scorer"]: r["flags"] for r in read_journal(folder) if r["kind"] == "score"}


def test_what_is_calibrated_on_a_hold_out_of_train_is_marked_for_a_model_that_came_trained(
    toy_suite: dict[str, Any], tmp_path: Path
) -> None:
    toy_suite["id"]["validation"] = {"holdout": 0.5}
    toy_suite |= {"scorers": ["level", "calibrated"], "estimators": ["confident", "halves"]}
    run_suite(toy_suite, tmp_path / "out")
    assert scored_with_validation(tmp_path / "out") == {"level": [], "calibrated": ["seen"]}
    estimates = [r for r in read_journal(tmp_path / "out") if r["kind"] == "estimate"]
    assert {r["estimator"] for r in estimates} == {"confident", "halves"}
    for r in estimates:  # those of a curve are made from shifted validation data
        rests = r["estimator"] == "confident" or r["group"] == "calibration"
        assert r["flags"] == (["seen"] if rests else [])
    assert "calibrated on images held out of train, which this model was trained on" in notes(
        tmp_path / "out"
    )


@pytest.mark.parametrize("validation", [{"holdout": 0.5, "of": "test"}, {"split": "validation"}])
def test_a_part_of_test_or_a_set_of_its_own_was_not_seen(
    validation: dict[str, Any], toy_suite: dict[str, Any], tmp_path: Path
) -> None:
    toy_suite["id"]["validation"] = validation
    toy_suite["scorers"] = ["level", "calibrated"]
    run_suite(toy_suite, tmp_path / "out")
    assert scored_with_validation(tmp_path / "out") == {"level": [], "calibrated": []}
    sizes = {r["n_id"] for r in read_journal(tmp_path / "out")}
    overlaps = manifest(tmp_path / "out")["overlaps"]
    held_out = "of" in validation
    assert sizes == ({21} if held_out else {40})  # of 14, 13 and 13 per class, 7, 6 and 6 are held out
    assert {count for pair, count in overlaps.items() if "validation" in pair} == {0}


def test_a_model_that_was_trained_on_the_rest_has_not_seen_it(
    toy_suite: dict[str, Any], tmp_path: Path
) -> None:
    toy_suite["id"]["validation"] = {"holdout": 0.5}
    toy_suite["models"][0]["params"] = {"trains": True}
    toy_suite["scorers"] = ["calibrated"]
    run_suite(toy_suite, tmp_path / "out")
    assert scored_with_validation(tmp_path / "out") == {"calibrated": []}


# Models ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("recipe:gone", "the model 'gone': no recipe named 'gone'"),
        ("checkpoint:gone", "the model 'gone': the checkpoint .*gone is not a folder"),
        ("module:gone.py:build", "the model 'gone.py:build': there is no file 'gone.py'"),
        ("timm:resnet1", "the model 'resnet1': no timm architecture named 'resnet1'. Nearest"),
    ],
)
def test_a_model_that_its_plugin_refuses_ends_the_run_before_one_is_loaded(
    name: str, message: str, toy_suite: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(Loader, "load", refuse)
    toy_suite["models"].append({"name": name})
    with pytest.raises(HarnessError, match=message):
        run_suite(toy_suite, tmp_path / "out")


# Scorers whose order turns with their parameters --------------------------------------------------------------------


def test_an_unstable_scorer_is_flagged_and_told_on_the_board(
    toy_suite: dict[str, Any], tmp_path: Path
) -> None:
    toy_suite["scorers"] = ["level", "turning"]
    run_suite(toy_suite, tmp_path / "out")
    flags = scored_with_validation(tmp_path / "out")
    assert "unstable" in flags["turning"]
    assert "unstable" not in flags["level"]
    assert notes(tmp_path / "out").count("turning: unstable. Which of ID and OOD it puts higher turns") == 1
