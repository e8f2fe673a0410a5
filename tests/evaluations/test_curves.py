"""Probes along training: which epochs are kept, loaded and measured, and how they are shown."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from journals import read_journal
from toys import run_suite, toy_module
from typer.testing import CliRunner

import harness
from harness.base.digests import digest
from harness.base.errors import HarnessError, InputError, RecordsError
from harness.cli import app
from harness.contract.registry import Registry
from harness.evaluations.curves.picture import lines
from harness.evaluations.curves.table import curve_table, curve_text
from harness.evaluations.pictures import FeatureOptions, draw
from harness.models.training.recipe import load_recipe
from harness.models.training.store import build_recipe
from harness.models.training.training import Training
from harness.reports.plots.curves import Choice
from harness.reports.text import as_csv, as_markdown

RECIPE = """
schema = 1
name = "grown"
model = "mlp"
model_params = { hidden = [16] }
optimizer = "adam"
lr = 0.003
epochs = 5
batch_size = 16
snapshots = 2

[preprocessing]
input_size = [1, 8, 8]
"""


@pytest.fixture
def grown(tmp_path: Path, tiny: harness.TrainingData, catalogue: Registry) -> harness.ModelRequest:
    """Request the model of a recipe that keeps every second epoch."""
    path = tmp_path / "grown.toml"
    path.write_text(RECIPE)
    return harness.ModelRequest(
        "recipe:grown", argument=str(path), data=tiny, store=tmp_path / "store", catalogue=catalogue
    )


def weights(request: harness.ModelRequest, epoch: int | None = None) -> dict[str, torch.Tensor]:
    model: Any = build_recipe(request.argument, replace(request, epoch=epoch)).classifier
    return dict(model.state_dict())


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a)


def training(request: harness.ModelRequest, **changes: object) -> Training:
    assert request.catalogue is not None and request.data is not None
    recipe = load_recipe(request.argument, request.catalogue).model_copy(update=changes)
    return Training(recipe, request.data, request.seed, request.catalogue)


# Snapshots ----------------------------------------------------------------------------------------------------------


def test_the_kept_epochs_are_the_first_every_nth_and_the_last(grown: harness.ModelRequest) -> None:
    assert harness.recipe_epochs(grown.argument, grown) == (0, 2, 4, 5)


def test_weights_of_an_epoch_are_those_of_the_training_at_that_time(grown: harness.ModelRequest) -> None:
    seen: dict[int, dict[str, torch.Tensor]] = {}

    def look(epoch: int, model: harness.Model) -> None:
        network: Any = model.classifier
        seen[epoch] = {name: value.clone() for name, value in network.state_dict().items()}

    training(grown).run(on_epoch=look)
    assert all(same(weights(grown, epoch), seen[epoch]) for epoch in (0, 2, 4, 5))
    assert same(weights(grown), seen[5])
    assert not same(weights(grown, 2), seen[4])


def test_snapshots_change_no_weight_and_recipes_without_them_keep_their_digest(
    grown: harness.ModelRequest,
) -> None:
    plain = training(grown, snapshots=None)
    network: Any = plain.run().model.classifier
    assert same(weights(grown), dict(network.state_dict()))
    whole = plain.recipe.model_dump(mode="json", by_alias=True)
    assert {"snapshots", "labels"} <= whole.keys()
    before = {
        k: v for k, v in whole.items() if k not in ("snapshots", "labels", "description", "seeds", "data")
    }
    assert plain.recipe.digest == digest("recipe", before)
    assert plain.digest != training(grown).digest  # its folder has more files


def test_an_epoch_that_is_not_kept_is_refused_before_anything_is_trained(grown: harness.ModelRequest) -> None:
    with pytest.raises(InputError, match=r"does not keep the weights of epoch 3\. Kept: 0, 2, 4, 5"):
        weights(grown, 3)
    assert grown.store is not None and not grown.store.exists()
    path = Path(grown.argument)
    path.write_text(path.read_text().replace("snapshots = 2", ""))
    with pytest.raises(InputError, match=r"epoch 2\. Give it snapshots = 1"):
        weights(grown, 2)


def test_a_damaged_snapshot_is_found_and_the_model_trained_again(
    grown: harness.ModelRequest, caplog: pytest.LogCaptureFixture
) -> None:
    good = weights(grown, 2)
    assert grown.store is not None
    (file,) = grown.store.glob("*/epochs/00002.safetensors")
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    assert same(weights(grown, 2), good)
    assert "00002.safetensors is damaged" in caplog.text


def test_a_training_that_is_killed_ends_with_the_same_snapshots(
    grown: harness.ModelRequest, tmp_path: Path
) -> None:
    whole = {epoch: weights(grown, epoch) for epoch in (0, 2, 4, 5)}
    assert grown.store is not None
    shutil.rmtree(grown.store)
    script = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
import time
from pathlib import Path
import harness
from harness.contract.registry import Registry
from harness.models.training import loop, snapshots
from training_data import bright_and_dark
loop.SECONDS_BETWEEN_SAVES = 0.0
keep = snapshots.Snapshots.keep
def slow(self, epoch, model):
    keep(self, epoch, model)
    print(epoch, flush=True)
    time.sleep(0.2)
snapshots.Snapshots.keep = slow
request = harness.ModelRequest("recipe:grown", argument={grown.argument!r}, data=bright_and_dark(),
                               store=Path({str(grown.store)!r}), catalogue=Registry.load(blocked=()))
harness.build_recipe(request.argument, request)
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert "3" in (line.strip() for line in process.stdout)  # reads no further than that line
        process.send_signal(signal.SIGKILL)
    assert not list(grown.store.glob("grown-*"))
    assert all(same(weights(grown, epoch), whole[epoch]) for epoch in whole)
    assert not list(grown.store.glob(".grown-*"))  # nothing is left of the state


def test_shuffled_labels_are_those_of_train_in_another_order(grown: harness.ModelRequest) -> None:
    made = training(grown, labels="shuffled")
    taught, again = made._taught(), training(grown, labels="shuffled")._taught()
    true = made.data.train.labels
    assert sorted(taught.train.labels) == sorted(true)
    assert (taught.train.labels != true).any()
    assert np.array_equal(taught.train.labels, again.train.labels)  # a seed's labels are the same every time
    assert taught.validation is made.data.validation
    other = replace(made, seed=1)._taught()
    assert (other.train.labels != taught.train.labels).any()
    assert made.config(made.run())["trained_labels"] == "shuffled"


# Curves -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def watched(toy_suite: dict[str, Any]) -> dict[str, Any]:
    return toy_suite | {"scorers": [], "curves": {"probes": ["mean"]}}


def values(folder: Path) -> dict[tuple[str, str, int], float]:
    return {
        (r["probe"], r["ood"] or "id", r["epoch"]): r["metrics"][r["probe"].partition("(")[0]]["value"]
        for r in read_journal(folder)
        if r["kind"] == "curve"
    }


def test_a_probe_is_measured_after_every_kept_epoch(
    watched: dict[str, Any], toys: Any, tmp_path: Path
) -> None:
    result = run_suite(watched, tmp_path / "out")
    found = values(tmp_path / "out")
    assert result.succeeded
    assert [key for key in sorted(found)] == [("mean", "id", epoch) for epoch in (0, 1, 3, 4)]
    # The toy's features are the mean level after so many times its brightness, (255 · mean - 40) / 30, and the spread.
    slope = found["mean", "id", 1] - found["mean", "id", 0]
    assert slope > 0.1
    assert found["mean", "id", 4] == pytest.approx(found["mean", "id", 0] + 4 * slope, rel=1e-6)
    assert toy_module().OPENED == 2 * [
        0,
        1,
        3,
        4,
    ]  # each once to tell whether it is done, and once to measure it


def test_every_and_on_choose_epochs_and_sets(watched: dict[str, Any], tmp_path: Path) -> None:
    watched["curves"] |= {"every": 3, "on": ["close", "id"], "probes": ["mean", "labels"]}
    run_suite(watched, tmp_path / "out")
    found = values(tmp_path / "out")
    assert {epoch for _, _, epoch in found} == {0, 3, 4}  # the last one, too
    assert {(probe, on) for probe, on, _ in found} == {("mean", "id"), ("mean", "close"), ("labels", "id")}


def test_a_probe_that_is_fitted_is_fitted_after_each_epoch(
    watched: dict[str, Any], toys: Any, tmp_path: Path
) -> None:
    watched["curves"]["probes"] = ["from_training"]
    run_suite(watched, tmp_path / "out")
    assert toy_module().FITTED["from_training"] == 4
    assert len(set(values(tmp_path / "out").values())) == 4


def test_a_second_run_measures_no_epoch_and_a_new_epoch_only_itself(
    watched: dict[str, Any], toys: Any, tmp_path: Path
) -> None:
    found = []
    for every in (4, 4, 1):
        watched["curves"]["every"] = every
        measured = run_suite(watched, tmp_path / "out").measured
        found.append((measured, list(toy_module().OPENED)))  # of the plugin as this run has loaded it
    assert found == [(2, [0, 4, 0, 4]), (0, [0, 4]), (2, [0, 1, 3, 4, 1, 3])]


def test_pixels_are_decoded_once_for_all_epochs(watched: dict[str, Any], toys: Any, tmp_path: Path) -> None:
    watched["curves"]["probes"] = ["brightness"]
    result = run_suite(watched, tmp_path / "out")
    found = values(tmp_path / "out")
    assert result.succeeded
    assert len(set(found.values())) == 1  # the same images after every epoch
    # 40 images of ID test, for the features of the trained network and of each epoch's, and once for their pixels.
    assert result.counts.decoded == (1 + 4 + 1) * 40


def test_a_failing_probe_is_a_record_for_each_epoch(watched: dict[str, Any], tmp_path: Path) -> None:
    watched["curves"]["probes"] = ["mean", "unruly"]
    result = run_suite(watched, tmp_path / "out")
    errors = [r["error"] for r in read_journal(tmp_path / "out") if r["error"]]
    assert errors == ["ZeroDivisionError: by design"] * 4
    assert result.failed == 4
    assert "unruly failed on id" in curve_text(curve_table([tmp_path / "out"])).legend[-1]


@pytest.mark.parametrize(
    ("curves", "message"),
    [
        ({"every": 2}, "at curves.probes: this key is missing. Add it"),
        ({"probes": []}, "at curves.probes"),
        ({"probes": ["maen"]}, "no probe named 'maen'"),
        ({"probes": ["mean"], "on": ["clsoe"]}, "no set of \\[curves\\] named 'clsoe'"),
        ({"probes": ["mean"], "on": []}, "at curves.on"),
        ({"probes": ["mean"], "every": 0}, "at curves.every"),
        ({"probes": ["mean"], "evry": 2}, "evry"),
    ],
)
def test_a_mistake_is_one_line_before_anything_runs(
    curves: dict[str, Any], message: str, watched: dict[str, Any], toys: Any, tmp_path: Path
) -> None:
    watched["curves"] = curves
    with pytest.raises(HarnessError, match=message) as error:
        run_suite(watched, tmp_path / "out")
    assert "\n" not in str(error.value)
    assert not toy_module().FORWARDED


def test_models_without_kept_epochs_are_refused_with_the_fix(watched: dict[str, Any], tmp_path: Path) -> None:
    watched["models"] = [{"name": "network", "params": {"keeps": False}}]
    with pytest.raises(
        InputError, match="no model keeps the weights of its epochs. Give a recipe snapshots = 1"
    ):
        run_suite(watched, tmp_path / "out")


# Tables and pictures ------------------------------------------------------------------------------------------------


@pytest.fixture
def seeds(watched: dict[str, Any], tmp_path: Path) -> Path:
    watched["models"] = [{"name": "network", "seeds": [0, 1]}]
    watched["curves"]["probes"] = ["mean", {"name": "mean", "plus": 1.0}]
    run_suite(watched, tmp_path / "out")
    return tmp_path / "out"


def test_the_table_has_a_row_per_model_seed_set_probe_and_epoch(seeds: Path) -> None:
    frame = curve_table([seeds]).frame
    assert list(frame.columns) == ["model", "seed", "on", "probe", "epoch", "value", "lo", "hi"]
    assert len(frame) == 2 * 2 * 4
    assert frame["epoch"].is_monotonic_increasing
    csv = (seeds / "curves.csv").read_text()
    assert csv == as_csv(curve_text(curve_table([seeds])))
    assert (seeds / "curves.md").read_text() == as_markdown(curve_text(curve_table([seeds])))


def test_the_text_shows_mean_and_deviation_over_seeds_at_few_epochs(seeds: Path) -> None:
    (sheet,) = curve_text(curve_table([seeds])).sheets
    assert list(sheet.headers) == ["model", "on", "probe", "epoch 0", "epoch 1", "epoch 3", "epoch 4"]
    frame = curve_table([seeds]).frame
    chosen = frame[(frame["probe"] == "mean") & (frame["epoch"] == 3)]["value"]
    (row,) = [row for row in sheet.rows if row[2] == "mean"]
    assert row[5] == f"{chosen.mean():.4g} ± {chosen.std(ddof=1):.2g}"


def test_the_command_prints_the_table_and_says_what_a_folder_lacks(seeds: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["curves", str(seeds), "--format", "json"])
    assert result.exit_code == 0
    assert len(json.loads(result.output)["curves"]) == 16
    (tmp_path / "empty").mkdir()
    with pytest.raises(RecordsError):
        curve_table([tmp_path / "empty"])


def test_the_picture_has_a_panel_per_probe_and_refuses_what_is_not_there(seeds: Path, tmp_path: Path) -> None:
    picture = lines(seeds, Choice())
    assert list(picture.panels) == ["mean on id", "mean(plus=1.0) on id"]
    line = picture.panels["mean on id"]["network"]
    assert line.epochs.tolist() == [0, 1, 3, 4]
    assert (line.low <= line.mean).all() and (line.mean <= line.high).all()
    one = lines(seeds, Choice(seed=1)).panels["mean on id"]["network"]
    assert np.array_equal(one.low, one.high)
    title = draw("curves", seeds, tmp_path / "curves.svg", Choice())
    assert title == "toy: probes along training"
    assert "mean on id" in (tmp_path / "curves.svg").read_text()
    with pytest.raises(HarnessError, match="no model named 'other'"):
        lines(seeds, Choice(model="other"))
    with pytest.raises(InputError, match="--scorer does not apply to curves"):
        draw("curves", seeds, tmp_path / "curves.svg", Choice(scorers=("gen",)))
    with pytest.raises(InputError, match="--samples does not apply to curves"):
        draw("curves", seeds, tmp_path / "curves.svg", Choice(), options=FeatureOptions(samples=5))
