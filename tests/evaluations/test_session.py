"""`ood-harness estimate`: the accuracy of a model on a folder of images without labels, in one command."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits
from toys import TOY_PLUGIN
from typer.testing import CliRunner

from harness.base.errors import DatasetError, HarnessError, InputError, UnknownNameError
from harness.cli import app
from harness.contract.isolated import Isolation
from harness.contract.registry import Registry
from harness.evaluations.estimation import choice
from harness.evaluations.estimation.options import EstimateOptions
from harness.evaluations.estimation.pace import Pace
from harness.evaluations.estimation.session import Guesses, _Session, estimate

SUITE = "digits"  # its ID are the digits 0 to 4


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Write 120 digits, 0 to 4, as grey PNG files without labels; the sixteenth pixels are noise."""
    found = load_digits()
    chosen = np.flatnonzero(found.target < 5)[:120]
    noise = np.random.default_rng(0).integers(0, 60, size=(120, 8, 8))
    for number, image in enumerate(found.images[chosen]):
        pixels = np.clip(image * 255 / 16 + noise[number], 0, 255).astype(np.uint8)
        (tmp_path / "photos").mkdir(exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{number:03}.png")
    return tmp_path / "photos"


def asked(data: Path | str, cache: Path, **options: Any) -> Guesses:
    given = {"suite": SUITE, "estimators": ("confident",), "device": "cpu"} | options
    return estimate("digits-cnn", str(data), EstimateOptions(cache=cache, **given), plugins=[TOY_PLUGIN])


def test_a_score_is_read_by_a_curve_that_is_fitted_once_and_kept(
    photos: Path, cache: Path, tmp_path: Path
) -> None:
    first = asked(photos, cache, curves=tmp_path / "curves")
    (row,) = first.rows
    assert (row.estimator, row.seen, row.error) == ("confident", "shifted ID", None)
    assert row.lo is not None
    assert row.accuracy is not None
    assert 0 <= row.lo <= row.accuracy <= 1
    assert (first.images, list(first.skipped)) == (120, [])
    kept = json.loads((tmp_path / "curves" / "confident.json").read_text())
    assert len(kept["points"]) == 1 + 4 * 5  # clean, and four kinds at five severities
    assert {point[0] for point in kept["points"]} == {
        "clean", "speckle_noise", "gaussian_blur", "spatter", "saturate",
    }  # fmt: skip
    assert kept["key"]["classes"] == 5
    assert kept["key"]["size"] == 120
    before = (tmp_path / "curves" / "confident.json").stat().st_mtime_ns
    assert asked(photos, cache, curves=tmp_path / "curves") == first
    assert (tmp_path / "curves" / "confident.json").stat().st_mtime_ns == before


def test_another_models_curve_is_refused(photos: Path, cache: Path, tmp_path: Path) -> None:
    asked(photos, cache, curves=tmp_path / "curves")
    with pytest.raises(InputError, match=r"confident\.json was fitted for model '\w+', but this is '\w+'"):
        asked(photos, cache, curves=tmp_path / "curves", seed=1)
    with pytest.raises(InputError, match=r"was fitted for size 120, but this is 100\. Fit a new one"):
        asked(photos, cache, curves=tmp_path / "curves", size=100)


def test_one_that_says_an_accuracy_stands_beside_its_curve(photos: Path, cache: Path) -> None:
    found = asked(photos, cache, estimators=("confident", "halves"))
    assert [(row.estimator, row.seen) for row in found.rows] == [
        ("confident", "shifted ID"),
        ("halves", "nothing"),
    ]
    assert found.rows[1].accuracy == 0.5  # a score that never moves has no curve


def test_without_labelled_data_a_score_is_no_accuracy(photos: Path, cache: Path) -> None:
    """timm's network of no training knows no validation data."""
    options = EstimateOptions(cache=cache, device="cpu", estimators=("halves",))
    found = estimate("network", "levels", options, plugins=[TOY_PLUGIN])
    assert found.rows[0].accuracy == 0.5
    with pytest.raises(
        InputError, match=r"'confident' needs validation.*Give labelled ID data with --calibration"
    ):
        estimate(
            "network", "levels", EstimateOptions(cache=cache, device="cpu", estimators=("confident",)),
            plugins=[TOY_PLUGIN],
        )  # fmt: skip


def test_the_test_part_stands_in_for_a_validation_part_that_is_not_there(
    photos: Path, cache: Path, tmp_path: Path
) -> None:
    suite = tmp_path / "mine.toml"
    suite.write_text(
        'schema = 1\nname = "mine"\nscorers = []\nestimators = ["halves"]\nmodels = [{ recipe = "digits-cnn" }]\n'
        'id = { dataset = "digits", train = { split = "train" }, test = { split = "test" } }\n'
    )
    (row,) = asked(photos, cache, suite=str(suite)).rows
    assert row.seen == "shifted ID"
    assert row.error is None


def test_an_estimator_that_fails_on_calibration_data_leaves_the_others_their_rows(
    photos: Path, cache: Path
) -> None:
    """A hundred and twenty images are enough for it, and the ten that the others are fitted on are not."""
    found = asked(photos, cache, estimators=("easily_bored", "halves"))
    assert [(row.estimator, row.error is None) for row in found.rows] == [
        ("easily_bored", False),
        ("halves", True),
    ]
    assert "bored by the second set" in str(found.rows[0].error)


def test_an_accuracy_of_its_own_stays_if_its_curve_cannot_be_fitted(photos: Path, cache: Path) -> None:
    label = "easily_bored(says=0.5)"
    own, fitted = asked(photos, cache, estimators=("easily_bored:says=0.5",)).rows
    assert (own.estimator, own.accuracy, own.error) == (label, 0.5, None)
    assert (fitted.estimator, fitted.seen) == (f"{label}-fitted", "shifted ID")
    assert "bored by the second set" in str(fitted.error)


def test_labelled_data_can_be_given(cache: Path) -> None:
    options = EstimateOptions(cache=cache, device="cpu", estimators=("halves",), calibration="levels")
    assert estimate("network", "levels", options, plugins=[TOY_PLUGIN]).rows[0].accuracy == 0.5


def test_images_that_cannot_be_read_are_named_or_skipped_and_counted(photos: Path, cache: Path) -> None:
    (photos / "050.png").write_bytes(b"no image")
    (photos / "051.png").write_bytes((photos / "052.png").read_bytes()[:60])
    with pytest.raises(HarnessError, match=r"05[01]\.png"):
        asked(photos, cache)
    found = asked(photos, cache, skip_unreadable=True)
    assert found.images == 118
    assert len(found.skipped) == 2
    assert "050.png" in found.skipped[0]


def test_an_empty_folder_and_what_is_not_there_are_one_line(
    photos: Path, cache: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match="empty") as raised:
        asked(tmp_path / "empty", cache)
    assert "\n" not in str(raised.value)
    with pytest.raises(HarnessError, match="nowhere"):
        asked(tmp_path / "nowhere", cache)
    with pytest.raises(UnknownNameError, match="Did you mean 'confident'"):
        asked(photos, cache, estimators=("confidant",))
    with pytest.raises(UnknownNameError, match="digits-cnm"):
        estimate("digits-cnm", str(photos), EstimateOptions(cache=cache), plugins=[TOY_PLUGIN])


def test_calibration_data_of_other_classes_are_refused(photos: Path, cache: Path) -> None:
    with pytest.raises(
        DatasetError, match=r"calibration data have 10 classes, the model has 5 without names"
    ):
        asked(photos, cache, calibration="digits", calibration_split="validation")


@pytest.mark.parametrize("format", ["table", "md", "csv", "json"])
def test_the_command_prints_every_format(photos: Path, cache: Path, format: str) -> None:
    arguments = [
        "estimate", "--model", "digits-cnn", "--data", str(photos), "--suite", SUITE, "--estimator", "confident",
        "--cache", str(cache), "--plugin", str(TOY_PLUGIN), "--format", format, "--device", "cpu",
    ]  # fmt: skip
    shown = CliRunner().invoke(app, arguments)
    assert shown.exit_code == 0, shown.output
    assert "confident" in shown.stdout
    if format == "json":
        (row,) = json.loads(shown.stdout)["rows"]
        assert 0 <= row["accuracy"] <= 1


# Which estimators run ----------------------------------------------------------------------------------------------


def test_parameters_are_given_behind_the_name(photos: Path, cache: Path, tmp_path: Path) -> None:
    curves = tmp_path / "curves"
    found = asked(photos, cache, estimators=("confident:says=0.25,named=mine",), curves=curves)
    label = "confident(named=mine, says=0.25)"
    assert [(row.estimator, row.definition) for row in found.rows] == [
        (label, "mine"),
        (f"{label}-fitted", "mine"),
    ]
    assert found.rows[0].accuracy == 0.25
    kept = json.loads((curves / "confident(named=mine, says=0.25).json").read_text())
    assert kept["key"]["params"] == {"named": "mine", "says": 0.25}
    (curves / "confident(named=mine, says=0.25).json").rename(curves / "confident.json")
    with pytest.raises(InputError, match="confident.json was fitted for params"):
        asked(photos, cache, curves=curves)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("confident:says=much", "says of estimator confident is 'much'. Give a number"),
        ("confident:sais=1", "no parameter of estimator confident named 'sais'"),
        ("confident:says", "'says' is no new parameter"),
        ("confident:", "'' is no new parameter"),
        ("confident:says=1,says=0", "'says=0' is no new parameter"),
        (
            "flips:published=weighted_quadratic,steps=40",
            "steps is 40, but the published curve was fitted with 990",
        ),
    ],
)
def test_parameters_are_checked_before_anything_is_opened(cache: Path, given: str, message: str) -> None:
    with pytest.raises(HarnessError, match=re.escape(message)) as raised:
        asked("nowhere", cache, estimators=(given,))
    assert "\n" not in str(raised.value)


def test_an_estimator_is_named_once(photos: Path, cache: Path) -> None:
    with pytest.raises(InputError, match="'halves' is named twice"):
        asked(photos, cache, estimators=("halves", "halves"))


def by_default(classes: int) -> list[str]:
    found = choice.planned((), Registry.load([TOY_PLUGIN]), Isolation())
    return [one.label for one in found if choice.suits(one, classes)]


def test_what_takes_long_or_was_fitted_elsewhere_is_named_on_purpose() -> None:
    assert "long" not in by_default(3)
    assert "of_three_classes" in by_default(3)
    assert "of_three_classes" not in by_default(10)
    assert {name for name in by_default(1000) if name.startswith("flips")} == {
        "flips", "flips_published", "flips_published_scaled",
    }  # fmt: skip
    assert {name for name in by_default(10) if name.startswith("flips")} == {"flips"}
    assert [one.label for one in choice.planned(("long",), Registry.load([TOY_PLUGIN]), Isolation())] == [
        "long"
    ]


def test_estimators_are_told_as_they_finish_cheapest_first(photos: Path, cache: Path) -> None:
    told: list[tuple[str, float]] = []
    options = EstimateOptions(cache=cache, device="cpu", estimators=("of_three_classes", "long", "halves"))
    found = estimate(
        "network",
        "levels",
        options,
        plugins=[TOY_PLUGIN],
        finished=lambda rows, left: told.append((rows[0].estimator, left)),
    )
    assert [name for name, _ in told] == ["halves", "long", "of_three_classes"]
    assert [row.estimator for row in found.rows] == [name for name, _ in told]
    assert told[0][1] > told[1][1] > told[2][1] == 0


def test_the_time_left_is_the_work_left_at_the_rate_so_far(monkeypatch: pytest.MonkeyPatch) -> None:
    """A set takes .1 passes of halves, and 1 more as it is the first to see it; 21.1 of long."""
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    halves, long = choice.planned(("halves", "long"), Registry.load([TOY_PLUGIN]), Isolation())
    with Pace([halves, long], [4, 2]) as pace:
        assert pace.seconds_left == 0
        now[0] = 3.0
        pace.step(halves)
        assert pace.seconds_left == pytest.approx((3 * 1.1 + 2 * 21.1) * 3.0 / 1.1)
        pace.finish(halves)  # its curve was kept, so three sets were not needed
        assert pace.seconds_left == pytest.approx(2 * 21.1 * 3.0 / 4.4)
        now[0] = 14.0
        pace.step(long)
        assert pace.seconds_left == pytest.approx(21.1 * 14.0 / 25.5)


def test_a_long_estimator_has_a_curve_only_if_it_is_named(photos: Path, cache: Path) -> None:
    session = _Session("network", "levels", EstimateOptions(cache=cache), Registry.load([TOY_PLUGIN]))
    halves, long = choice.planned(("halves", "long"), session.registry, Isolation())
    assert [session._wants_curve(one) for one in (halves, long)] == [True, False]
    named = _Session("network", "levels", EstimateOptions(estimators=("long",)), session.registry)
    assert named._wants_curve(long)


# One argument -------------------------------------------------------------------------------------------------------


def test_the_default_model_is_that_of_the_first_reference(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = Registry.load([TOY_PLUGIN])
    assert choice.default_model(registry) == "timm:resnet50.tv_in1k"
    monkeypatch.setattr(choice, "default_model", lambda registry: "network")
    options = EstimateOptions(cache=cache, device="cpu")
    found = estimate(None, "levels", options, plugins=[TOY_PLUGIN])
    assert found.model == "network"
    assert "of_three_classes" in {row.estimator for row in found.rows}


def test_a_default_model_that_is_not_at_hand_is_said_in_a_line(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("harness_plugins.models.timm_models._weights", unreachable)
    with pytest.raises(
        InputError, match=r"default model 'timm:resnet50.tv_in1k' is not at hand \(no hub\)\. Name.*--model"
    ) as raised:
        estimate(None, "digits", EstimateOptions(cache=cache, device="cpu", split="test"))
    assert "\n" not in str(raised.value)


def unreachable(name: str) -> Path:
    raise InputError("no hub")


def test_valdata_is_calibration_and_each_estimate_is_a_line_on_stderr(cache: Path) -> None:
    arguments = [
        "estimate", "--model", "network", "--data", "levels", "--valdata", "levels", "--estimator", "halves",
        "--estimator", "confident:says=0.5", "--cache", str(cache), "--plugin", str(TOY_PLUGIN), "--device", "cpu",
    ]  # fmt: skip
    shown = CliRunner().invoke(app, arguments)
    assert shown.exit_code == 0, shown.output
    lines = [line for line in shown.stderr.splitlines() if line.startswith("ood-harness: ")]
    assert lines[0].startswith("ood-harness: halves 50.0")
    assert "left" in lines[1]
    assert any(line.startswith("ood-harness: confident(says=0.5) 50.0") for line in lines)
