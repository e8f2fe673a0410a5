"""A run as a whole: one pass, isolation, resuming, and the same bytes every time."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from journals import read_journal, records_of
from sklearn.metrics import roc_auc_score
from toys import TOY_PLUGIN, as_toml, run_suite, toy_module

import harness
from harness.base.errors import DatasetError, InputError
from harness.contract.registry import Registry
from harness.engine.recorder import Recorder
from harness.engine.runner import RunOptions
from harness.evaluations.run import plan_suite, run_plan
from harness.reports.run_folder import RunFolder


def test_each_image_is_decoded_and_forwarded_exactly_once_for_all_scorers(
    toy_suite: dict[str, Any], toys: Any, tmp_path: Path
) -> None:
    result = run_suite(toy_suite, tmp_path / "out")

    module = toy_module()
    images = 5 * 40  # train, test and three OOD sets; nothing here needs validation
    assert result.counts.decoded == result.counts.forwarded == images
    assert len(module.DECODED) == sum(module.FORWARDED.values()) == images
    assert set(module.FORWARDED.values()) == {1}
    assert Counter(module.DECODED.values()) == {
        1: images - 10,
        2: 10,
    }  # two of each set, to see whether they repeat


def test_a_warm_cache_serves_a_new_folder_without_decoding_or_forwarding(
    toy_suite: dict[str, Any], tmp_path: Path
) -> None:
    first = run_suite(toy_suite, tmp_path / "first")
    second = run_suite(toy_suite, tmp_path / "second")

    assert first.counts.forwarded > 0
    assert (second.counts.decoded, second.counts.forwarded) == (0, 0)
    assert (tmp_path / "first/records.jsonl").read_bytes() == (tmp_path / "second/records.jsonl").read_bytes()
    assert (tmp_path / "first/paired.json").read_bytes() == (tmp_path / "second/paired.json").read_bytes()
    assert (tmp_path / "first/leaderboard.csv").read_bytes() == (
        tmp_path / "second/leaderboard.csv"
    ).read_bytes()


def test_a_second_run_into_the_same_folder_measures_nothing(
    toy_suite: dict[str, Any], tmp_path: Path
) -> None:
    first = run_suite(toy_suite, tmp_path / "out")
    before = (tmp_path / "out/records.jsonl").read_bytes()
    second = run_suite(toy_suite, tmp_path / "out")

    assert (first.measured, second.measured) == (9, 0)
    assert (tmp_path / "out/records.jsonl").read_bytes() == before


def test_recorded_auroc_is_that_of_the_kept_scores(toy_suite: dict[str, Any], tmp_path: Path) -> None:
    run_suite(toy_suite, tmp_path / "out")

    for record in records_of(tmp_path / "out").values():
        sides = {
            side: np.load(tmp_path / "out/scores" / f"{name}.npy") for side, name in record["scores"].items()
        }
        truth = np.repeat([0, 1], [len(sides["id"]), len(sides["ood"])])
        expected = roc_auc_score(truth, np.concatenate([sides["id"], sides["ood"]]))
        assert record["metrics"]["auroc"]["value"] == pytest.approx(expected, abs=1e-12)
        assert record["metrics"]["auroc"]["lo"] <= expected <= record["metrics"]["auroc"]["hi"]


def test_unruly_scorers_become_error_records_while_the_others_finish(
    toy_suite: dict[str, Any], tmp_path: Path
) -> None:
    toy_suite["scorers"] += ["nan", "shape", "undeclared", "raises"]
    result = run_suite(toy_suite, tmp_path / "out")

    errors = {
        scorer: record["error"]
        for (scorer, ood), record in records_of(tmp_path / "out").items()
        if ood == "close"
    }
    assert (result.failed, result.succeeded) == (12, False)
    assert errors["level"] is errors["margin"] is errors["from_train"] is None
    assert errors["nan"].startswith("NaN for 40 of 40 samples")
    assert "(40, 3), expected (40,)" in errors["shape"]
    assert "'penultimate' was read but not declared" in errors["undeclared"]
    assert errors["raises"] == "ZeroDivisionError: by design"


def test_infinite_scores_are_ranked(toy_suite: dict[str, Any], tmp_path: Path) -> None:
    toy_suite["scorers"] = ["infinite"]
    result = run_suite(toy_suite, tmp_path / "out")

    assert result.succeeded
    assert all(0 <= r["metrics"]["auroc"]["value"] <= 1 for r in records_of(tmp_path / "out").values())


def test_an_unreadable_dataset_fails_its_own_cells_only_and_they_alone_run_again(
    toy_suite: dict[str, Any], tmp_path: Path
) -> None:
    toy_suite["ood"].append({"name": "lost", "dataset": "unreadable", "group": "far"})
    first = run_suite(toy_suite, tmp_path / "out")
    second = run_suite(toy_suite, tmp_path / "out")

    errors = {key: record["error"] for key, record in records_of(tmp_path / "out").items()}
    assert (first.measured, first.failed) == (12, 3)
    assert (second.measured, second.failed) == (3, 3)
    assert "image 0 of 'unreadable' is damaged" in errors["level", "lost"]
    assert [key for key, error in errors.items() if error] == [
        (s, "lost") for s in ("from_train", "level", "margin")
    ]


def test_a_model_that_no_longer_loads_loses_no_number_of_before(
    toy_suite: dict[str, Any], tmp_path: Path
) -> None:
    run_suite(toy_suite, tmp_path / "out")
    before = (tmp_path / "out/records.jsonl").read_bytes()
    broken = tmp_path / "toy_plugin.py"
    raising = "    raise OSError('gone')\n    model = Network("
    broken.write_text(TOY_PLUGIN.read_text().replace("    model = Network(", raising))
    result = run_suite(toy_suite, tmp_path / "out", plugins=(broken,))

    assert (result.failed, result.succeeded) == (9, False)
    assert (tmp_path / "out/records.jsonl").read_bytes() == before


def test_a_strangers_dataset_that_raises_is_named_with_its_plugin(
    toy_suite: dict[str, Any], tmp_path: Path
) -> None:
    toy_suite["id"]["params"] = {"count": -1}
    with pytest.raises(
        DatasetError, match=r"the dataset 'levels' of plugin file:toy_plugin\.py raised ValueError: "
    ):
        run_suite(toy_suite, tmp_path / "out")


def test_a_crash_loses_no_finished_cell(
    toy_suite: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run_suite(toy_suite, tmp_path / "whole")
    original = Recorder.write
    calls = 0

    def crash_at_the_fifth(self: Recorder, *arguments: Any, **more: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 5:
            raise KeyboardInterrupt
        original(self, *arguments, **more)

    monkeypatch.setattr(Recorder, "write", crash_at_the_fifth)
    with pytest.raises(KeyboardInterrupt):
        run_suite(toy_suite, tmp_path / "out")
    monkeypatch.setattr(Recorder, "write", original)
    with (tmp_path / "out/records.jsonl").open("a") as journal:
        journal.write('{"cell_id": "torn')
    resumed = run_suite(toy_suite, tmp_path / "out")

    assert resumed.measured == whole.measured - 4
    assert (tmp_path / "out/records.jsonl").read_bytes() == (tmp_path / "whole/records.jsonl").read_bytes()
    assert (tmp_path / "out/paired.json").read_bytes() == (tmp_path / "whole/paired.json").read_bytes()


def test_lost_scores_are_made_again_when_a_scorer_joins(toy_suite: dict[str, Any], tmp_path: Path) -> None:
    run_suite({**toy_suite, "scorers": ["level", "margin"]}, tmp_path / "out")
    shutil.rmtree(tmp_path / "out/scores")
    joined = run_suite(toy_suite, tmp_path / "out")
    run_suite(toy_suite, tmp_path / "fresh")

    assert joined.measured == 3
    assert (tmp_path / "out/paired.json").read_text() == (tmp_path / "fresh/paired.json").read_text()


def test_a_scorer_of_images_runs_in_the_extraction_pass_and_its_work_is_counted(
    toy_suite: dict[str, Any], tmp_path: Path
) -> None:
    toy_suite["scorers"].append("gradient")
    result = run_suite(toy_suite, tmp_path / "out")

    timings = [json.loads(line) for line in (tmp_path / "out/timings.jsonl").read_text().splitlines()]
    work = [(t["forwards"], t["backwards"]) for t in timings if t["scorer"] == "gradient" and "forwards" in t]
    assert result.succeeded
    assert result.counts.decoded == 5 * 40
    assert records_of(tmp_path / "out")["gradient", "bright"]["metrics"]["auroc"]["value"] == 1.0
    assert work == [(40, 40)] * 4


def test_a_scorer_whose_needs_the_model_does_not_offer_is_not_applicable_and_no_error(
    toy_suite: dict[str, Any], tmp_path: Path
) -> None:
    toy_suite["scorers"].append("needs_linear")
    toy_suite["models"] = [
        {"name": "network", "params": {"head": "distance"}},
        {"name": "network", "label": "linear"},
    ]
    result = run_suite(toy_suite, tmp_path / "out")

    manifest = json.loads((tmp_path / "out/run.json").read_text())
    scorers = {(r["model"], r["scorer"]) for r in read_journal(tmp_path / "out")}
    assert result.succeeded
    assert [(a["model"], a["scorer"], a["missing"]) for a in manifest["not_applicable"]] == [
        ("network(head=distance)", "needs_linear", ["linear"])
    ]
    assert ("linear", "needs_linear") in scorers
    assert ("network(head=distance)", "needs_linear") not in scorers


def test_a_model_with_fewer_classes_than_the_suite_fails_with_both_counts(
    toy_suite: dict[str, Any], tmp_path: Path
) -> None:
    toy_suite["models"].append({"name": "network", "label": "narrow", "params": {"outputs": 2}})
    result = run_suite(toy_suite, tmp_path / "out")

    errors = {r["error"] for r in read_journal(tmp_path / "out") if r["model"] == "narrow"}
    assert result.failed == 9
    assert len(errors) == 1
    assert "has 2 classes, the suite's ID data have 3" in errors.pop()


def test_a_model_with_more_outputs_than_classes_runs(toy_suite: dict[str, Any], tmp_path: Path) -> None:
    toy_suite["models"] = [{"name": "network", "params": {"outputs": 7, "classes": 3}}]
    assert run_suite(toy_suite, tmp_path / "out").succeeded


def test_model_accuracy_is_recorded_with_its_interval(toy_suite: dict[str, Any], tmp_path: Path) -> None:
    run_suite(toy_suite, tmp_path / "out")

    (record,) = records_of(tmp_path / "out", "model").values()
    accuracy = record["metrics"]["accuracy"]
    assert accuracy["value"] == 1.0  # the levels of the classes are 30 apart, the noise is at most 12
    assert accuracy["lo"] == pytest.approx(1 / (1 + 1.959964**2 / 40), abs=1e-6)  # Wilson at 40 of 40
    assert (record["group"], record["n_id"]) == ("id", 40)


def test_a_folder_of_another_suite_is_refused_before_anything_is_run(
    toy_suite: dict[str, Any], tmp_path: Path
) -> None:
    run_suite(toy_suite, tmp_path / "out")
    toy_suite["ood"].pop()
    with pytest.raises(InputError, match="holds records of suite toy .* Name another with --out"):
        run_suite(toy_suite, tmp_path / "out")


def test_a_folder_that_cannot_be_written_is_named(toy_suite: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="the run's folder .*file/out' cannot be written: .*file is a file"):
        run_suite(toy_suite, tmp_path / "file/out")


def test_seeds_are_models_of_their_own(toy_suite: dict[str, Any], tmp_path: Path) -> None:
    toy_suite["models"] = [{"name": "network", "seeds": [0, 1, 2]}]
    result = run_suite(toy_suite, tmp_path / "out")

    records = [r for r in read_journal(tmp_path / "out") if r["kind"] == "score"]
    assert result.cells == len(records) == 27
    assert {r["seeds"]["model"] for r in records} == {0, 1, 2}


def test_a_run_from_python_returns_the_leaderboard(toy_suite: dict[str, Any], tmp_path: Path) -> None:
    suite = tmp_path / "toy.toml"
    suite.write_text(as_toml(toy_suite))
    frame = harness.run(str(suite), out=tmp_path / "out", plugins=[TOY_PLUGIN], device="cpu")

    assert set(frame["scorer"]) == {"level", "margin", "from_train"}
    assert frame["near_auroc"].between(0, 1).all()


def test_a_scorer_that_changes_features_in_place_changes_its_own_copy(
    toy_suite: dict[str, Any], tmp_path: Path
) -> None:
    run_suite(toy_suite, tmp_path / "alone")
    result = run_suite(toy_suite | {"scorers": ["in_place", *toy_suite["scorers"]]}, tmp_path / "beside")

    alone, beside = records_of(tmp_path / "alone"), records_of(tmp_path / "beside")
    assert result.failed == 0
    for key, record in alone.items():
        assert beside[key]["scores"] == record["scores"]


def test_a_model_that_gives_nan_fails_and_the_other_goes_on(
    toy_suite: dict[str, Any], tmp_path: Path
) -> None:
    toy_suite["models"].append({"name": "network", "label": "broken", "params": {"broken": True}})
    result = run_suite(toy_suite, tmp_path / "out")

    errors = {(r["model"], r["error"]) for r in read_journal(tmp_path / "out") if r["kind"] == "score"}
    assert result.failed == 9
    assert ("network", None) in errors
    assert all("NaN in logits for 16 of 16 images" in error for model, error in errors if model != "network")


def test_an_unreadable_training_image_fails_only_what_needs_training_data(
    toy_suite: dict[str, Any], tmp_path: Path
) -> None:
    plugin = tmp_path / "toy_plugin.py"
    reading = "        image = self._images[index]\n"
    raising = "        if len(self) == 41:\n            raise OSError('truncated')\n"
    text = TOY_PLUGIN.read_text().replace(reading, raising + reading)
    text = text.replace(
        "    dataset = Levels(", "    count += request.split == 'train'\n    dataset = Levels("
    )
    plugin.write_text(text)
    result = run_suite(toy_suite, tmp_path / "out", plugins=(plugin,))

    errors = {scorer: record["error"] for (scorer, _), record in records_of(tmp_path / "out").items()}
    assert result.failed == 3
    fault = "ID train: the dataset 'id-train' raised OSError: truncated for image 0"
    assert errors == {"from_train": fault, "level": None, "margin": None}


def test_one_sample_is_too_few_for_an_interval_and_no_crash(
    toy_suite: dict[str, Any], tmp_path: Path
) -> None:
    toy_suite["ood"][0]["limit"] = 1
    result = run_suite(toy_suite, tmp_path / "out")

    assert result.failed == 3
    assert "1 OOD sample" in records_of(tmp_path / "out")["level", "bright"]["error"]
    assert records_of(tmp_path / "out")["level", "close"]["error"] is None


def test_a_limit_keeps_the_number_of_classes(toy_suite: dict[str, Any], tmp_path: Path) -> None:
    toy_suite["id"]["params"] = {"classes": 6, "count": 60}
    toy_suite["models"] = [{"name": "network", "params": {"outputs": 6}}]
    for part in ("train", "test"):
        toy_suite["id"][part]["limit"] = 3  # seed 0 draws none of the last class
    assert run_suite(toy_suite, tmp_path / "out").succeeded


def test_a_scorer_that_joins_a_folder_is_ranked_with_those_before_it(
    toy_suite: dict[str, Any], tmp_path: Path
) -> None:
    run_suite(toy_suite | {"scorers": ["level", "margin"]}, tmp_path / "out")
    run_suite(toy_suite | {"scorers": ["from_train"]}, tmp_path / "out")
    run_suite(toy_suite, tmp_path / "whole")

    blocks = {
        folder: json.loads((tmp_path / folder / "paired.json").read_text()) for folder in ("out", "whole")
    }
    aurocs = {
        folder: {
            block["group"]: dict(zip(block["scorers"], block["auroc"], strict=True)) for block in of_folder
        }
        for folder, of_folder in blocks.items()
    }
    assert aurocs["out"] == aurocs["whole"]


def test_equal_weights_under_two_seeds_do_not_count_twice(toy_suite: dict[str, Any], tmp_path: Path) -> None:
    plugin = tmp_path / "same.py"
    plugin.write_text(
        "import dataclasses, sys, harness\n"
        "toys = next(m for name, m in sys.modules.items() if name.startswith('ood_harness_file_toy_plugin'))\n"
        "def build(request): return toys.network(dataclasses.replace(request, seed=0))\n"
        "@harness.hookimpl\n"
        "def harness_models(): yield harness.ModelSpec('same', build)\n"
    )
    suite = toy_suite | {"models": [{"name": "same", "seeds": [0, 1]}]}
    result = run_suite(suite, tmp_path / "out", plugins=(TOY_PLUGIN, plugin))
    assert (result.cells, result.failed) == (18, 9)
    errors = {r["error"] for r in read_journal(tmp_path / "out") if r["seeds"]["model"] == 1}
    assert errors == {
        "model: it has the same weights as seed 0, so one network would count twice. Give each seed its own"
    }


def test_complex_scores_have_no_order(toy_suite: dict[str, Any], tmp_path: Path) -> None:
    plugin = tmp_path / "odd.py"
    plugin.write_text(
        "import harness\n"
        "class Odd:\n"
        "    def score(self, features): return features.logits[:, 0] * 1j\n"
        "@harness.hookimpl\n"
        "def harness_scorers(): yield harness.ScorerSpec('odd', Odd)\n"
    )
    run_suite(toy_suite | {"scorers": ["odd"]}, tmp_path / "out", plugins=(TOY_PLUGIN, plugin))
    errors = {r["error"] for r in read_journal(tmp_path / "out") if r["kind"] == "score"}
    assert errors == {"scores are complex, which have no order. Give real scores"}


def test_two_runs_at_once_do_not_share_a_folder(toy_suite: dict[str, Any], tmp_path: Path) -> None:
    other = RunFolder(tmp_path / "out")
    with pytest.raises(
        InputError, match=r"another run \(process [0-9]+ on .*\) is writing to .*out'. Wait until it ends"
    ):
        run_suite(toy_suite, tmp_path / "out")
    other.close()
    assert run_suite(toy_suite, tmp_path / "out").succeeded


def test_a_run_that_does_not_begin_leaves_its_folder_open(toy_suite: dict[str, Any], tmp_path: Path) -> None:
    run_suite(toy_suite, tmp_path / "out")
    refused: list[Exception] = []  # kept, as a notebook keeps the last error with its frames
    for suite, device in ((toy_suite | {"name": "other"}, "cpu"), (toy_suite, "cuda:99")):
        with pytest.raises(InputError) as caught:
            plan = plan_suite(suite, Registry.load([TOY_PLUGIN]), source="toy.toml")
            run_plan(plan, RunOptions(out=tmp_path / "out", device=device))
        refused.append(caught.value)
    assert run_suite(toy_suite, tmp_path / "out").succeeded
