"""`ood-harness estimate`: the accuracy of a model on a folder of images without labels, in one command."""

from __future__ import annotations

import json
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
from harness.evaluations.estimation.options import EstimateOptions
from harness.evaluations.estimation.session import Guesses, estimate

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
