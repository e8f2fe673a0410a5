"""With few classes, filters by entropy let samples pass: adapters do update on real images, as their records say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from journals import read_journal
from toys import run_suite

FILTERING = ("eta", "eata", "rdumb", "sar", "deyo")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def adapted(classes: int, adapters: list[Any], folder: Path, cache: Path) -> dict[str, dict[str, float]]:
    """Adapt a convnet of so many digits to noisy ones: each adapter's numbers."""
    suite: dict[str, Any] = {
        "schema": 1,
        "name": "few-classes",
        "batch_size": 32,
        "scorers": [],
        "id": {
            "dataset": "digits",
            "classes": list(range(classes)),
            "train": {"split": "train"},
            "test": {"split": "test"},
        },
        "models": [{"name": "recipe:digits-cnn"}],
        "shift": [{"corrupt": ["gaussian_noise"], "severity": [5]}],
        "adapters": adapters,
    }
    records = read_journal(run_suite(suite, folder, plugins=(), cache=cache).folder)
    found = {record["adapter"]: record["metrics"] for record in records if record["kind"] == "adaptation"}
    return {adapter: {name: metric["value"] for name, metric in of.items()} for adapter, of in found.items()}


@pytest.mark.parametrize("classes", [2, 5, 10])
def test_most_steps_update(classes: int, tmp_path: Path, cache: Path) -> None:
    found = adapted(classes, list(FILTERING), tmp_path / "out", cache)
    assert {adapter: numbers["updated"] > 0.8 for adapter, numbers in found.items()} == dict.fromkeys(
        FILTERING, True
    )


def test_a_filter_that_lets_nothing_pass_is_told_by_the_record(tmp_path: Path, cache: Path) -> None:
    """At five classes a cosine below .05 is out of reach: a one-hot vector and an even one have .45."""
    found = adapted(5, [{"name": "eta", "epsilon": 0.05}], tmp_path / "out", cache)
    assert found["eta(epsilon=0.05)"]["updated"] == pytest.approx(
        1 / 8
    )  # the first batch alone, of 225 images


def test_the_reset_that_was_set_for_a_thousand_classes_is_counted(tmp_path: Path, cache: Path) -> None:
    """Few classes have low entropies, so that sar takes every batch for a collapse unless its bound is lowered."""
    adapters = ["sar", {"name": "sar", "reset_below": 0.0}]
    found = adapted(2, adapters, tmp_path / "out", cache)
    assert found["sar"]["resets"] == 3  # batches of 90 images
    assert found["sar(reset_below=0.0)"]["resets"] == 0
