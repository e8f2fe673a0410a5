"""A suite's own preprocessing of a model, and what run.json says of it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from toys import run_suite

import harness
from harness.models.stated import StatedPreprocessing

if TYPE_CHECKING:
    from pathlib import Path

OWN = harness.Preprocessing((3, 32, 24), (0.5,) * 3, (0.5,) * 3, crop_pct=0.9, source="config.json")


def test_only_what_is_stated_replaces_the_models_own() -> None:
    stated = StatedPreprocessing(size=16, std=(0.2, 0.3, 0.4))
    assert stated.over(OWN) == harness.Preprocessing((3, 16, 16), (0.5,) * 3, (0.2, 0.3, 0.4), crop_pct=0.9)
    assert stated.over(OWN).source == "config.json, changed by the suite: input_size, std"
    assert StatedPreprocessing(size=(20, 10)).over(OWN).input_size == (3, 20, 10)
    assert StatedPreprocessing().over(OWN) is OWN
    with pytest.raises(harness.InputError, match="mean has 1 values for 3 channels"):
        StatedPreprocessing(mean=(0.5,)).over(OWN)


def test_a_suite_changes_the_preprocessing_and_run_json_says_so(
    toy_suite: dict[str, Any], tmp_path: Path
) -> None:
    keys = []
    for number, stated in enumerate((None, {"std": [0.5]}, {"std": [1.0]})):
        if stated is not None:
            toy_suite["models"] = [{"name": "network", "preprocessing": stated}]
        result = run_suite(toy_suite, tmp_path / str(number))
        assert result.failed == 0
        facts = json.loads((result.folder / "run.json").read_text())["models"]["network (seed 0)"]
        lines = [json.loads(line) for line in (result.folder / "records.jsonl").read_text().splitlines()]
        keys.append(next(line["code_id"] for line in lines if line["kind"] == "model"))
        if stated is not None:
            assert facts["preprocessing"]["std"] == stated["std"]
            assert facts["preprocessing"]["source"].endswith("changed by the suite: std")
    assert keys[0] != keys[1]
    assert keys[0] == keys[2]  # the values are those of the model's own, so its features are, too
