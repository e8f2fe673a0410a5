"""`ood-harness train` as a user meets it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from journals import read_journal
from PIL import Image
from typer.testing import CliRunner

import harness
from harness.base.errors import InputError
from harness.cli import app, main
from harness.models.training import training
from harness.reports.leaderboard import leaderboard

RECIPE = """
schema = 1
name = "small"
model = "mlp"
model_params = { hidden = [16] }
objective = "isomaxplus"
lr = 0.01
epochs = 2
batch_size = 64
seeds = [0, 1]

[preprocessing]
input_size = [1, 8, 8]
"""
DATA = """
[data]
dataset = "digits"
train = { split = "train" }
validation = { split = "validation" }
test = { split = "test" }
"""
SUITE = """
schema = 1
name = "own"
scorers = ["min_distance", "vim"]
models = [{ recipe = "small.toml", label = "small", seeds = [0, 1] }]
ood = [{ name = "letters", dataset = "letters", group = "near" }]

[id]
dataset = "digits"
train = { split = "train" }
validation = { split = "validation" }
test = { split = "test" }
"""


@pytest.fixture
def files() -> None:
    Path("small.toml").write_text(RECIPE + DATA)
    Path("own.toml").write_text(SUITE)


def invoke(*arguments: str) -> Any:
    return CliRunner().invoke(app, arguments, catch_exceptions=False)


@pytest.mark.usefixtures("files")
def test_it_trains_every_seed_of_the_recipe_and_says_where(tmp_path: Path) -> None:
    result = invoke("train", "small.toml", "--out", "out")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["small, seed 0", "small, seed 1"]
    for line in lines:
        folder = Path(line.rpartition(": ")[2])
        config = json.loads((folder / "config.json").read_text())
        assert f"validation accuracy {100 * config['validation_accuracy']:.2f} %" in line
        assert (folder / "model.safetensors").is_file()
    again = invoke("train", "small.toml", "--out", "out", "--seed", "1")
    assert again.stdout.splitlines() == [lines[1].replace("(epoch 2)", "(epoch 2), trained before")]


@pytest.mark.usefixtures("files")
def test_a_suite_finds_what_was_trained_for_it_and_shows_what_does_not_apply(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert invoke("train", "small.toml", "--suite", "own.toml").exit_code == 0
    monkeypatch.setattr(training, "train", None)  # nothing is trained any more
    frame = harness.run("own.toml", out="results", device="cpu")
    by_scorer = frame.set_index("scorer")
    assert by_scorer.loc["min_distance", "near_auroc"] > 0.5
    assert by_scorer.loc["vim", "near_auroc"] != by_scorer.loc["vim", "near_auroc"], "vim needs a linear head"
    manifest = json.loads(Path("results/run.json").read_text())
    assert {entry["missing"][0] for entry in manifest["not_applicable"]} == {"linear"}
    of_model = manifest["models"]["small (seed 0)"]
    assert of_model["objective"] == {"name": "isomaxplus", "params": {}}
    assert "linear" not in of_model["offers"]
    assert "head" in of_model["offers"]


@pytest.mark.usefixtures("files")
def test_training_from_python_gives_the_folders() -> None:
    folders = harness.train("small.toml", out="out", seeds=[3], device="cpu")
    assert [folder.parent.name for folder in folders] == ["out"]
    model = harness.load_checkpoint(folders[0], catalogue=harness.Registry.load(blocked=()))
    assert model.num_classes == 10
    assert model.facts["seed"] == 3


def test_a_recipe_says_only_what_differs_from_its_base() -> None:
    Path("small.toml").write_text(RECIPE + DATA)
    Path("child.toml").write_text('schema = 1\nname = "child"\nbase = "small.toml"\nepochs = 1\nseeds = [4]')
    result = invoke("train", "child.toml", "--out", "out")
    config = json.loads((Path(result.stdout.strip().rpartition(": ")[2]) / "config.json").read_text())
    assert (config["recipe"], config["seed"], len(config["history"])) == ("child", 4, 1)
    assert config["builder_params"] == {"hidden": [16]}
    assert config["objective"]["name"] == "isomaxplus"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "smal"], "no recipe named 'smal'."),
        (["train", "absent.toml"], "the recipe 'absent.toml' cannot be read: No such file or directory"),
        (["train", "small.toml"], "the recipe 'small' trains on ID data, but none were given"),
        (["train", "small.toml", "--suite", "digit"], "no suite named 'digit'. Did you mean 'digits'?"),
        (
            ["train", "small.toml", "--suite", "digits", "--seed", "1", "--seed", "1"],
            "the seeds [1, 1] contain a seed twice",
        ),
        (["train", "small.toml", "--suite", "digits", "--device", "tpu"], "the device 'tpu' is not there"),
        (
            ["train", "small.toml", "--suite", "digits", "--seed", str(2**63)],
            "are not all from 0 to 2^63 - 1",
        ),
        (
            ["train", "leak.toml", "--out", "small.toml"],
            "the folder 'small.toml' cannot be written: File exists",
        ),
        (["train", "outliers.toml"], "[auxiliary] 'digits' shares"),
        (["train", "circle.toml"], "is based on itself: circle.toml → circle.toml"),
        (["train", "leak.toml"], "ID train and test share"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("small.toml").write_text(RECIPE)
    Path("circle.toml").write_text('schema = 1\nname = "circle"\nbase = "circle.toml"')
    outliers = '[auxiliary]\ndataset = "digits"\nsplit = "train"\n'
    Path("outliers.toml").write_text(RECIPE.replace('"isomaxplus"', '"outlier_exposure"') + outliers + DATA)
    Path("leak.toml").write_text(
        RECIPE + DATA.replace('test = { split = "test" }', 'test = { split = "train" }')
    )
    monkeypatch.setattr("sys.argv", ["ood-harness", *arguments])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 2
    error = capsys.readouterr().err.strip()
    assert message in error
    assert "\n" not in error


def test_a_seed_that_diverges_is_told_and_the_next_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    from harness_plugins.objectives.isomax import IsoMaxPlus

    original, calls = IsoMaxPlus.loss, []

    def once_nan(self: IsoMaxPlus, outputs: Any, targets: Any) -> Any:
        calls.append(1)
        return original(self, outputs, targets) * (float("nan") if len(calls) == 3 else 1.0)

    monkeypatch.setattr(IsoMaxPlus, "loss", once_nan)
    Path("small.toml").write_text(RECIPE + DATA)
    result = invoke("train", "small.toml", "--out", "out")
    assert result.exit_code == 1
    assert "(seed 0): the loss became nan at step 3" in result.stderr
    assert "small, seed 1: validation accuracy" in result.stdout


def test_outliers_that_are_a_test_set_as_well_are_flagged_and_noted() -> None:
    exposed = (
        RECIPE.replace('"isomaxplus"', '"outlier_exposure"')
        + '[auxiliary]\ndataset = "letters"\nlimit = 200\n'
    )
    Path("small.toml").write_text(exposed)
    others = 'group = "near" }, { name = "noise", dataset = "uniform", group = "far" }]'
    Path("own.toml").write_text(
        SUITE.replace('group = "near" }]', others).replace("seeds = [0, 1]", "seeds = [0]")
    )
    harness.run("own.toml", out="results", device="cpu")
    flags = {
        record["ood"]: record["flags"]
        for record in read_journal(Path("results"))
        if record["kind"] == "score"
    }
    assert "trained_on" in flags["letters"]
    assert "trained_on" not in flags["noise"]
    assert any(
        "trained to reject the datasets of letters" in note for note in leaderboard([Path("results")]).notes
    )


def test_a_suite_without_training_data_never_trains_on_the_recipes_own() -> None:
    Path("small.toml").write_text(RECIPE + DATA)
    Path("own.toml").write_text(
        SUITE.replace('train = { split = "train" }\nvalidation = { split = "validation" }\n', "")
    )
    with pytest.raises(InputError, match=r"the suite's \[id\] has no train part"):
        invoke("run", "own.toml", "--out", "results", "--device", "cpu")
    assert not Path("results").exists()


def test_paths_of_a_recipe_start_beside_its_file(tmp_path: Path) -> None:
    """The suite, its recipe, the recipe's base and their data lie in one folder, and the command runs in another."""
    home = tmp_path / "home"
    for split, level in (("train", 0), ("test", 40)):
        write_folders(home / "grey" / split, level)
    write_folders(home / "noise", 80)
    (home / "base.toml").write_text(RECIPE)
    data = 'data = { dataset = "grey", train = { split = "train" }, test = { split = "test" } }'
    outliers = 'objective = "outlier_exposure"\nauxiliary = { dataset = "noise" }'
    (home / "child.toml").write_text(f'schema = 1\nname = "child"\nbase = "base.toml"\n{outliers}\n{data}')
    assert invoke("train", str(home / "child.toml"), "--seed", "0", "--out", "out").exit_code == 0
    suite = re.sub(r"(?s)\[id\].*", data.replace("data", "id", 1), SUITE.replace("small.toml", "child.toml"))
    (home / "own.toml").write_text(suite.replace('["min_distance", "vim"]', '["msp"]'))
    invoke("run", str(home / "own.toml"), "--out", "results", "--device", "cpu")
    assert {r["model"] for r in read_journal(Path("results")) if r["error"] is None} == {"small"}


def write_folders(folder: Path, level: int) -> None:
    for number, name in enumerate(("bright", "dark")):
        (folder / name).mkdir(parents=True)
        for image in range(4):
            grey = np.full((8, 8), level + 16 * number + image, np.uint8)
            Image.fromarray(grey).save(folder / name / f"{image}.png")
