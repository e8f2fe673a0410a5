"""Estimators in a suite: their numbers, the curves that read their scores, and the table of their errors."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from journals import read_journal, records_of
from scipy.stats import spearmanr
from sklearn.isotonic import IsotonicRegression
from toys import run_suite, toy_module
from typer.testing import CliRunner

from harness.base.errors import HarnessError, InputError, RecordsError
from harness.cli import app
from harness.evaluations.estimation.curve import Curve, Point
from harness.evaluations.estimation.table import estimate_table, estimate_text
from harness.reports.text import as_json, as_markdown


@pytest.fixture
def estimating(toy_suite: dict[str, Any]) -> dict[str, Any]:
    """Give a suite of two models, one estimator and two shifts, whose calibration is by other shifts."""
    suite = copy.deepcopy(toy_suite)
    suite |= {"scorers": [], "ood": [], "estimators": ["confident"]}
    suite["id"]["params"] = {"side": 8}
    suite["models"] = [{"name": "network", "params": {"size": 8}, "seeds": [0, 1]}]
    suite["shift"] = [{"corrupt": ["fog", "frost"], "severity": [1, 3]}]
    suite["estimation"] = {"corrupt": ["brightness", "contrast", "snow"], "severity": [2, 5]}
    return suite


def estimates(folder: Path) -> dict[tuple[int, str, str], dict[str, Any]]:
    """Read records by model's seed, estimator and set."""
    return {
        (r["seeds"]["model"], r["estimator"], r["ood"] or "id"): r
        for r in read_journal(folder)
        if r["kind"] == "estimate"
    }


def test_scores_and_true_accuracies_are_recorded_on_every_set(
    estimating: dict[str, Any], tmp_path: Path
) -> None:
    result = run_suite(estimating, tmp_path / "out")
    assert result.succeeded
    found = estimates(tmp_path / "out")
    sets = ["id", "fog-1", "fog-3", "frost-1", "frost-3", "validation"]
    calibration = [f"validation+{kind}-{s}" for kind in estimating["estimation"]["corrupt"] for s in (2, 5)]
    assert {place[2] for place in found} == {*sets, *calibration}
    assert result.cells == result.measured == 2 * 12
    module = toy_module()
    validation, test = module.Levels(40, 3, 2, 0, 8), module.Levels(40, 3, 3, 0, 8)
    record = found[0, "confident", "id"]
    levels = [(data._images.mean() - 40) / 30 for data in (test, validation)]
    assert record["metrics"]["score"]["value"] == pytest.approx(levels[0] - levels[1], abs=1e-5)
    assert record["facts"]["level"] == pytest.approx(levels[0], abs=1e-5)
    nearest = np.rint((test._images.mean(axis=(1, 2)) - 40) / 30).clip(0, 2)
    assert record["metrics"]["accuracy"]["value"] == pytest.approx(np.mean(nearest == test.labels))
    assert (record["group"], record["shift"], record["n_ood"]) == ("id", "clean", 40)
    shifted = found[1, "confident", "validation+snow-5"]
    assert (shifted["group"], shifted["shift"]) == ("calibration", "snow")
    assert toy_module().FITTED["confident"] >= 2  # once a model


def test_rows_are_by_this_models_curve_and_by_that_of_the_others(
    estimating: dict[str, Any], tmp_path: Path
) -> None:
    run_suite(estimating, tmp_path / "out")
    found = estimates(tmp_path / "out")
    table = estimate_table([tmp_path / "out"])
    assert set(table.frame["estimator"]) == {"confident", "confident-shared"}
    for seed, name in ((0, "confident"), (1, "confident-shared")):  # both are the curve of seed 0
        points = [r["metrics"] for (s, _, on), r in found.items() if s == 0 and on.startswith("validation")]
        scores, truths = ([p[key]["value"] for p in points] for key in ("score", "accuracy"))
        rises = spearmanr(scores, truths).statistic >= 0
        curve = IsotonicRegression(y_min=0, y_max=1, increasing=rises, out_of_bounds="clip")
        curve.fit(scores, truths)
        frame = table.frame[(table.frame["seed"] == seed) & (table.frame["estimator"] == name)]
        for row in frame.to_dict(orient="records"):
            score = found[seed, "confident", row["set"]]["metrics"]["score"]["value"]
            assert row["estimate"] == pytest.approx(curve.predict([score])[0])
            assert row["error"] == pytest.approx(abs(row["estimate"] - row["accuracy"]))
            assert row["extrapolates"] == (not min(scores) <= score <= max(scores))
            assert row["lo"] <= row["estimate"] <= row["hi"]
    assert set(table.frame["supervision"]) == {"shifted ID", "shifted ID of other models"}


def test_means_are_over_shifted_sets_and_their_interval_over_kinds(
    estimating: dict[str, Any], tmp_path: Path
) -> None:
    estimating["estimators"] = [{"name": "confident", "says": 0.5}]
    run_suite(estimating, tmp_path / "out")
    table = estimate_table([tmp_path / "out"])
    means = table.means.set_index("estimator")
    assert list(means["supervision"]) != []
    row = means.loc["confident(says=0.5)"]
    mine = table.frame[(table.frame["estimator"] == "confident(says=0.5)") & (table.frame["group"] == "csid")]
    assert row["error"] == pytest.approx(np.abs(0.5 - mine["accuracy"]).mean())
    assert row["supervision"] == "clean ID"
    by_kind = [np.abs(0.5 - of["accuracy"]).mean() for _, of in mine.groupby("shift")]
    assert row["lo"] == pytest.approx(min(by_kind))  # of two kinds, one in four draws is twice the same
    assert row["hi"] == pytest.approx(max(by_kind))
    assert {"confident(says=0.5)-fitted", "confident(says=0.5)-shared"} < set(means.index)
    assert (means["behind"] >= 0).all()
    assert means["behind"].min() == 0
    assert (tmp_path / "out" / "estimates.md").read_text() == as_markdown(estimate_text(table))
    assert json.loads(as_json(estimate_text(table)))["means"][0]["sets"] == 2 * 4
    shown = CliRunner().invoke(app, ["estimates", str(tmp_path / "out")])
    assert shown.exit_code == 0, shown.output
    assert "toy: estimates of accuracy" in shown.stdout


def test_records_and_the_table_say_which_definition_was_used(
    estimating: dict[str, Any], tmp_path: Path
) -> None:
    estimating["estimators"] = [{"name": "confident", "named": "the longer way"}, "halves"]
    run_suite(estimating, tmp_path / "out")
    said = {r.get("definition") for (_, name, _), r in estimates(tmp_path / "out").items() if "conf" in name}
    assert said == {"the longer way"}
    assert all(
        "definition" not in r for (_, name, _), r in estimates(tmp_path / "out").items() if name == "halves"
    )
    text = estimate_text(estimate_table([tmp_path / "out"]))
    assert [line for line in text.legend if "longer" in line] == [
        "confident(named=the longer way): the longer way."
    ]


def test_a_peer_is_another_training_of_the_model(estimating: dict[str, Any], tmp_path: Path) -> None:
    estimating["estimators"] = ["peering"]
    run_suite(estimating, tmp_path / "out")
    found = estimates(tmp_path / "out")
    assert found[0, "peering", "id"]["metrics"]["estimate"]["value"] == pytest.approx(
        found[1, "peering", "id"]["metrics"]["estimate"]["value"]
    )
    estimating["models"][0]["seeds"] = [0]
    run_suite(estimating, tmp_path / "alone")
    assert not estimates(tmp_path / "alone")
    (listed,) = json.loads((tmp_path / "alone" / "run.json").read_text())["not_applicable"]
    assert (listed["estimator"], listed["missing"]) == ("peering", ["peer"])


def test_a_second_run_measures_nothing_and_equal_runs_are_the_same_bytes(
    estimating: dict[str, Any], tmp_path: Path
) -> None:
    first, again = (run_suite(estimating, tmp_path / "one", cache=tmp_path / "cache") for _ in range(2))
    run_suite(estimating, tmp_path / "two", cache=tmp_path / "other")
    assert (first.measured, again.measured) == (24, 0)
    assert records_of(tmp_path / "one") == records_of(tmp_path / "two")
    estimating["estimation"]["seed"] = 1
    assert run_suite(estimating, tmp_path / "one", cache=tmp_path / "cache").measured == 24


def test_a_set_is_as_large_as_it_is_said_to_be(estimating: dict[str, Any], tmp_path: Path) -> None:
    estimating["estimation"]["size"] = 15
    run_suite(estimating, tmp_path / "out")
    assert {record["n_ood"] for record in estimates(tmp_path / "out").values()} == {15}


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("raises", "ZeroDivisionError: by design"),
        ("number", "gave a float. Return harness.Estimate"),
        ("large", "an accuracy of 1.5"),
    ],
)
def test_a_failure_is_a_record_and_the_others_go_on(
    estimating: dict[str, Any], tmp_path: Path, how: str, message: str
) -> None:
    estimating["estimators"] = ["confident", {"name": "confident", "how": how}]
    result = run_suite(estimating, tmp_path / "out")
    assert result.failed == 24
    found = estimates(tmp_path / "out")
    assert message in found[0, f"confident(how={how})", "id"]["error"]
    assert found[0, "confident", "id"]["error"] is None
    table = estimate_table([tmp_path / "out"])
    assert set(table.means["estimator"]) == {"confident", "confident-shared"}
    assert any(message in note for note in table.notes)


def test_a_set_that_cannot_be_read_is_a_record(estimating: dict[str, Any], tmp_path: Path) -> None:
    estimating["shift"].append({"name": "gone", "dataset": "unreadable"})
    result = run_suite(estimating, tmp_path / "out")
    found = estimates(tmp_path / "out")
    assert "is damaged" in found[0, "confident", "gone"]["error"]
    assert found[0, "confident", "fog-1"]["error"] is None
    assert (result.cells, result.measured, result.failed) == (26, 26, 2)  # two trainings, thirteen sets


def test_without_validation_data_what_needs_it_is_not_applicable(
    estimating: dict[str, Any], tmp_path: Path
) -> None:
    del estimating["id"]["validation"]
    with pytest.raises(InputError, match="nothing of the suite can be measured: .*needs validation"):
        run_suite(estimating, tmp_path / "out")
    assert run_suite(estimating | {"scorers": ["level"]}, tmp_path / "out").succeeded
    listed = json.loads((tmp_path / "out" / "run.json").read_text())["not_applicable"]
    assert {tuple(entry["missing"]) for entry in listed} == {("validation",)}
    with pytest.raises(RecordsError, match="no estimators in"):
        estimate_table([tmp_path / "out"])


def test_a_model_that_does_not_load_is_told(estimating: dict[str, Any], tmp_path: Path) -> None:
    estimating["models"] = [{"name": "network", "params": {"outputs": 2}}]
    assert not run_suite(estimating, tmp_path / "out").succeeded
    assert "2 classes" in estimates(tmp_path / "out")[0, "confident", "id"]["error"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"estimators": ["confidant"]}, "Did you mean 'confident'"),
        ({"estimators": ["confident", "confident"]}, "two estimators are both 'confident'"),
        ({"estimation": {"severity": [1], "sizes": 3}}, "size"),
        ({"estimation": {"size": 1}}, "size"),
    ],
)
def test_mistakes_in_a_suite_are_one_line(
    estimating: dict[str, Any], tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(HarnessError, match=message) as raised:
        run_suite(estimating | change, tmp_path / "out")
    assert "\n" not in str(raised.value)


def test_the_default_calibration_is_what_the_plugin_sets_aside(
    estimating: dict[str, Any], tmp_path: Path
) -> None:
    """The four corruptions that were published for validation, never one of the fifteen for tests."""
    estimating["estimation"] = {"severity": [3]}
    run_suite(estimating, tmp_path / "out")
    kinds = {r["shift"] for r in estimates(tmp_path / "out").values() if r["group"] == "calibration"}
    assert kinds == {"clean", "speckle_noise", "gaussian_blur", "spatter", "saturate"}


# Curves -------------------------------------------------------------------------------------------------------------

POINTS = [
    Point("clean", 0.0, 0.95), Point("blur", 0.1, 0.9), Point("blur", 0.3, 0.6),
    Point("noise", 0.2, 0.7), Point("noise", 0.5, 0.4),
]  # fmt: skip


def test_a_curve_falls_where_scores_fall_and_is_constant_beyond() -> None:
    curve = Curve.of(POINTS)
    assert curve.accuracy(0.2) == pytest.approx(0.7)
    assert curve.accuracy(0.25) == pytest.approx(0.65)  # halfway
    assert (curve.accuracy(-1), curve.accuracy(9)) == (pytest.approx(0.95), pytest.approx(0.4))
    assert (curve.extrapolates(0.5), curve.extrapolates(0.51), curve.extrapolates(-0.1)) == (
        False,
        True,
        True,
    )
    assert curve.interval(0.2, 0.3) == (pytest.approx(0.6), pytest.approx(0.7))
    assert curve.interval(None, None) == (None, None)


def test_a_curve_pools_what_violates_its_order() -> None:
    curve = Curve.of([Point("a", 1, 0.2), Point("a", 2, 0.6), Point("b", 3, 0.4), Point("b", 4, 0.9)])
    assert curve.accuracy(2) == curve.accuracy(3) == pytest.approx(0.5)


def test_the_error_at_unseen_kinds_is_that_of_curves_without_them() -> None:
    """By hand: each kind's points on the line through the others' neighbours."""
    errors = [abs(0.9 - 0.95)]  # clean, left of all: the curve is constant
    errors += [abs(0.825 - 0.9), abs(0.6 - 0.6)]  # blur: halfway from .95 to .7, and a third from .7 to .4
    errors += [abs(0.75 - 0.7), abs(0.6 - 0.4)]  # noise: halfway from .9 to .6, and right of all
    assert Curve.of(POINTS).left_out_error() == pytest.approx(np.mean(errors))


def test_a_curve_is_kept_as_json_and_refuses_what_it_was_not_fitted_for(tmp_path: Path) -> None:
    key = {"model": "abc", "classes": 10, "size": 1000}
    Curve.of(POINTS, key).save(tmp_path / "f.json")
    again = Curve.load(tmp_path / "f.json", key)
    assert again.accuracy(0.25) == Curve.of(POINTS).accuracy(0.25)
    with pytest.raises(InputError, match=r"fitted for classes 10, but this is 5\. Fit a new one"):
        Curve.load(tmp_path / "f.json", key | {"classes": 5})
    (tmp_path / "broken.json").write_text("{}")
    with pytest.raises(InputError, match="is no curve"):
        Curve.load(tmp_path / "broken.json", key)


def test_too_few_different_scores_make_no_curve() -> None:
    with pytest.raises(InputError, match="2 calibration sets have 2 different scores; a curve needs 3"):
        Curve.of(POINTS[:2])
    with pytest.raises(InputError, match="not finite"):
        Curve.of([*POINTS, Point("x", float("nan"), 0.5)])
