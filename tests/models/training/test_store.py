from __future__ import annotations

import json
import logging
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

import harness
from harness.contract.registry import Registry
from harness.models.training import training
from harness.models.training.loop import Trained
from harness.models.training.recipe import Recipe, load_recipe
from harness.models.training.store import build_recipe
from harness.models.training.training import Training
from harness_plugins.models.timm_models import build_checkpoint

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness import Selection

RECIPE = """
schema = 1
name = "tiny"
description = "For tests."
model = "cnn"
model_params = { width = 4 }
lr = 0.01
epochs = 1
batch_size = 16

[preprocessing]
input_size = [1, 8, 8]
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.toml"
    path.write_text(RECIPE)
    return path


@pytest.fixture
def request_for(
    tiny: harness.TrainingData, tmp_path: Path, recipe: Path, catalogue: Registry
) -> harness.ModelRequest:
    return harness.ModelRequest(
        "recipe:tiny", argument=str(recipe), data=tiny, store=tmp_path / "store", catalogue=catalogue
    )


def built(request: harness.ModelRequest) -> harness.Model:
    return build_recipe(request.argument, request)


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The seeds of all trainings so far."""
    seeds: list[int] = []
    original: Callable[..., Trained] = training.train

    def counted(*arguments: Any, seed: int, **options: Any) -> Trained:
        seeds.append(seed)
        return original(*arguments, seed=seed, **options)

    monkeypatch.setattr(training, "train", counted)
    return seeds


def state(model: harness.Model) -> dict[str, bytes]:
    network: Any = model.classifier
    return {key: value.numpy().tobytes() for key, value in network.state_dict().items()}


def stored(request: harness.ModelRequest) -> list[Path]:
    assert request.store is not None
    return sorted(request.store.iterdir())


def test_listing_models_recipes_and_objectives_loads_nothing_heavy() -> None:
    code = (
        "import sys; from harness_plugins import shipped; from harness_plugins.objectives import offered; "
        "from harness_plugins.models import architectures, recipes, timm_models; "
        "specs = [*recipes.harness_models(), *timm_models.harness_models(), *architectures.harness_models(), "
        "*shipped.harness_recipes(), *offered.harness_objectives()]; "
        "heavy = {'torch', 'timm', 'pydantic', 'safetensors', 'huggingface_hub'} & sys.modules.keys(); "
        "sys.exit(f'{heavy}' if heavy or len(specs) < 18 else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_each_packaged_recipe_bears_its_file_name_and_names_what_is_installed(catalogue: Registry) -> None:
    names = catalogue.names("recipe")
    assert {"digits-cnn", "digits-mlp", "mnist-toy-10", "mnist-toy-5", "fashion-mnist-small"} <= set(names)
    for name in names:
        recipe = load_recipe(name, catalogue)
        assert recipe.name == name
        assert catalogue.get("model", recipe.model).spec.architecture
        assert catalogue.get("objective", recipe.objective)


def test_a_trained_model_keeps_the_names_of_its_classes(
    request_for: harness.ModelRequest, trainings: list[int]
) -> None:
    assert request_for.data is not None
    assert built(request_for).class_names is None
    named = replace(request_for, data=replace(request_for.data, class_names=("dark", "bright")))
    assert built(named).class_names == ("dark", "bright")
    assert trainings == [0]  # names do not change the weights
    elsewhere = replace(named, store=named.store / "other" if named.store else None)
    built(elsewhere)
    (folder,) = stored(elsewhere)
    assert json.loads((folder / "config.json").read_text())["label_names"] == ["dark", "bright"]
    assert harness.load_checkpoint(folder, catalogue=Registry.load(blocked=())).class_names == (
        "dark",
        "bright",
    )


def test_a_stored_model_is_loaded_with_the_same_bits(
    request_for: harness.ModelRequest, trainings: list[int]
) -> None:
    first, again = built(request_for), built(request_for)
    assert trainings == [0]
    assert state(first) == state(again)
    assert isinstance(again.classifier, torch.nn.Module)
    assert not again.classifier.training
    assert again.num_classes == 2
    assert again.preprocessing == harness.Preprocessing((1, 8, 8))

    unstored = built(replace(request_for, store=None))
    assert trainings == [0, 0]
    assert state(unstored) == state(first)


def test_a_stored_model_says_what_it_is_and_opens_as_a_checkpoint(request_for: harness.ModelRequest) -> None:
    model = built(replace(request_for, seed=7))
    (folder,) = stored(request_for)
    assert folder.name.startswith("tiny-s7-")
    config = json.loads((folder / "config.json").read_text())
    assert request_for.data is not None
    assert {
        key: config[key] for key in ("architecture", "num_classes", "num_features", "num_outputs", "seed")
    } == {
        "architecture": "cnn",
        "num_classes": 2,
        "num_features": 16,
        "num_outputs": 2,
        "seed": 7,
    }
    assert (config["builder"], config["builder_params"]) == ("cnn", {"width": 4})
    assert config["objective"] == {"name": "cross_entropy", "params": {}}
    assert len(config["history"]) == 1
    assert config["data_digest"] == request_for.data.train.digest
    assert config["pretrained_cfg"]["input_size"] == [1, 8, 8]
    opened = build_checkpoint(
        harness.ModelRequest("checkpoint", argument=str(folder), catalogue=request_for.catalogue)
    )
    assert state(opened) == state(model)
    assert opened.preprocessing == model.preprocessing


@pytest.mark.parametrize("file", ["model.safetensors", "config.json"])
@pytest.mark.parametrize("damage", ["truncated", "flipped", "gone"])
def test_a_damaged_stored_model_is_trained_again(
    request_for: harness.ModelRequest,
    trainings: list[int],
    caplog: pytest.LogCaptureFixture,
    file: str,
    damage: str,
) -> None:
    before = state(built(request_for))
    path = stored(request_for)[0] / file
    content = bytearray(path.read_bytes())
    if damage == "gone":
        path.unlink()
    else:
        content[-20] ^= 0x80
        path.write_bytes(content if damage == "flipped" else content[:40])

    with caplog.at_level(logging.WARNING, logger="ood_harness"):
        after = state(built(request_for))

    assert trainings == [0, 0]
    assert after == before
    assert "damaged and is trained again" in caplog.text
    assert len(stored(request_for)) == 1
    built(request_for)
    assert trainings == [0, 0]


def test_where_another_process_stores_first_its_model_is_used(
    request_for: harness.ModelRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = training.train
    theirs: list[harness.Model] = []

    def beaten(*arguments: Any, **options: Any) -> Trained:
        monkeypatch.setattr(training, "train", original)
        theirs.append(built(request_for))
        result = original(*arguments, **options)
        with torch.no_grad():
            network: Any = result.model.classifier
            network.fc.bias.add_(1)
        return result

    monkeypatch.setattr(training, "train", beaten)
    ours = built(request_for)
    assert state(ours) == state(theirs[0])
    assert len(stored(request_for)) == 1


def test_a_state_that_outlived_its_training_is_removed_once_the_model_is_found(
    request_for: harness.ModelRequest,
) -> None:
    built(request_for)
    (folder,) = stored(request_for)
    state = folder.with_name(f".{folder.name}.training") / "state.safetensors"
    state.parent.mkdir()
    state.write_bytes(b"left by a process that was killed at its very end")
    built(request_for)
    assert stored(request_for) == [folder]


def test_a_failed_training_leaves_nothing_in_the_store(
    request_for: harness.ModelRequest, recipe: Path
) -> None:
    recipe.write_text(RECIPE.replace("lr = 0.01", "lr = 1e30").replace("epochs = 1", "epochs = 9"))
    with pytest.raises(harness.HarnessError, match="Lower the recipe's lr.*nothing is kept"):
        built(request_for)
    assert request_for.store is not None
    assert not [path for path in request_for.store.glob("*/model.safetensors")]


def test_recipe_data_and_seed_each_change_the_digest_and_the_description_does_not(
    tiny: harness.TrainingData, recipe: Path, catalogue: Registry
) -> None:
    base = load_recipe(str(recipe), Registry.load(blocked=()))
    smaller = replace(tiny, train=tiny.train.limited(20))

    def digest(recipe: Recipe, data: harness.TrainingData = tiny, seed: int = 0) -> str:
        return Training(recipe, data, seed, catalogue).digest

    digests = [
        digest(base),
        digest(base.model_copy(update={"lr": 0.02})),
        digest(base.model_copy(update={"model_params": {"width": 5}})),
        digest(base.model_copy(update={"objective": "isomax"})),
        digest(base, smaller),
        digest(base, replace(tiny, validation=None)),
        digest(base, replace(tiny, num_classes=3)),
        digest(base, tiny, 1),
    ]
    assert len(set(digests)) == len(digests)
    assert digest(base.model_copy(update={"description": "Other.", "seeds": [7]})) == digests[0]


@pytest.mark.parametrize(
    ("edit", "counts"),
    [
        (lambda code: f"# A comment.\n{code}", False),
        (lambda code: code.replace('"""', '"""In other words: ', 1), False),
        (lambda code: f"{code}\n\nfrom __future__ import annotations\n", False),
        (lambda code: code.replace(") -> None:", ") -> object:"), False),
        (lambda code: f"{code}\nEDITED = 1\n", True),
        (lambda code: f"{code}\nimport antigravity\n", True),
    ],
    ids=["comment", "docstring", "an import that stands twice", "annotation", "constant", "import"],
)
@pytest.mark.parametrize("module", training._DECISIVE)
def test_an_edit_of_the_training_code_counts_if_it_does_something(
    edit: Callable[[str], str],
    counts: bool,
    module: str,
    tiny: harness.TrainingData,
    recipe: Path,
    catalogue: Registry,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loaded = load_recipe(str(recipe), Registry.load(blocked=()))
    original = Training(loaded, tiny, 0, catalogue).digest
    folder = shutil.copytree(Path(training.__file__).parent, tmp_path / "code")
    monkeypatch.setattr(training, "__file__", str(folder / "training.py"))
    assert Training(loaded, tiny, 0, catalogue).digest == original

    path = folder / f"{module}.py"
    path.write_text(edit(path.read_text()))
    assert (Training(loaded, tiny, 0, catalogue).digest != original) == counts


def test_a_suite_may_change_keys_of_a_recipe(
    request_for: harness.ModelRequest, recipe: Path, tmp_path: Path, trainings: list[int]
) -> None:
    changed = build_recipe(request_for.argument, request_for, epochs=2, model_params={"width": 2})
    (tmp_path / "other.toml").write_text(
        RECIPE.replace("epochs = 1", "epochs = 2").replace("width = 4", "width = 2")
    )
    same = built(replace(request_for, argument=str(tmp_path / "other.toml")))
    assert state(changed) == state(same)
    assert trainings == [0]  # what was changed is the same training, so it is not done again
    assert state(changed).keys() == state(built(request_for)).keys()
    assert len(stored(request_for)) == 2
    assert harness.recipe_epochs(request_for.argument, request_for, snapshots=1) == (0, 1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"epoch": 2},
            "tiny.toml with the suite's params: at epoch: no key named 'epoch'. Did you mean 'epochs'?",
        ),
        (
            {"epochs": 0},
            "tiny.toml with the suite's params: at epochs: Input should be greater than or equal to 1",
        ),
        (
            {"seeds": [1]},
            "tiny.toml with the suite's params: seeds follows from the suite. Remove it from params",
        ),
        ({"model": "cnnn"}, "no model named 'cnnn'"),
    ],
)
def test_a_wrong_change_of_a_recipe_is_one_line(
    changes: dict[str, Any], message: str, request_for: harness.ModelRequest
) -> None:
    with pytest.raises(harness.HarnessError, match=re.escape(message)) as raised:
        harness.check_recipe(request_for.argument, request_for, **changes)
    assert "\n" not in str(raised.value)


def test_auxiliary_data_change_the_digest(
    tiny: harness.TrainingData, recipe: Path, catalogue: Registry
) -> None:
    text = recipe.read_text().replace(
        "[prep", 'objective = "outlier_exposure"\n[auxiliary]\ndataset = "X"\n[prep'
    )
    digests = set()
    for name in ("letters", "uniform"):
        recipe.write_text(text.replace('"X"', f'"{name}"'))
        digests.add(Training(load_recipe(str(recipe), Registry.load(blocked=())), tiny, 0, catalogue).digest)
    assert len(digests) == 2


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[prep", 'objective = "isomx"\n[prep', "no objective named 'isomx'. Did you mean 'isomax'?"),
        (
            "[prep",
            "objective_params = { smoothing = 0.1 }\n[prep",
            "no parameter of objective cross_entropy named 'smoothing'",
        ),
        (
            "[prep",
            "objective_params = { label_smoothing = 2.0 }\n[prep",
            "label_smoothing is 2.0. Give a share",
        ),
        ('model = "cnn"', 'model = "cnnn"', "no model named 'cnnn'. Did you mean 'cnn'?"),
        (
            'model = "cnn"',
            'model = "recipe:x"',
            "the model 'recipe:x' is not an architecture, so it cannot be trained.",
        ),
        ("{ width = 4 }", "{ widht = 4 }", "no parameter of model cnn named 'widht'. Did you mean 'width'?"),
        ("{ width = 4 }", '{ width = "4" }', "width of model cnn is '4'. Give a whole number"),
        (
            'model = "cnn"\nmodel_params = { width = 4 }',
            'model = "timm:resnet0"',
            "no timm architecture named 'resnet0'",
        ),
        (
            'model = "cnn"\nmodel_params = { width = 4 }',
            'model = "timm:deit_tiny_distilled_patch16_224"',
            "ends in tuple, not in one linear layer",
        ),
        ("[prep", 'objective = "outlier_exposure"\n[prep', "which trains on outliers, but no [auxiliary]"),
        (
            "[prep",
            '[auxiliary]\ndataset = "letters"\n[prep',
            "which the objective 'cross_entropy' does not read",
        ),
        (
            "[prep",
            '[augmentation]\nauto_augment = "loud"\n[prep',
            "auto_augment = 'loud' is not known to timm",
        ),
        (
            "batch_size = 16",
            'batch_size = 16\noptimizer = "sdg"',
            "no optimizer named 'sdg'. Did you mean 'sgd'?",
        ),
    ],
)
def test_a_recipe_whose_parts_do_not_exist_or_fit_is_one_line(
    request_for: harness.ModelRequest, recipe: Path, old: str, new: str, message: str
) -> None:
    recipe.write_text(RECIPE.replace(old, new))
    with pytest.raises(harness.HarnessError) as caught:
        built(request_for)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_where_training_diverges_the_last_good_weights_are_kept(
    request_for: harness.ModelRequest, recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from harness_plugins.objectives.linear import CrossEntropy

    original, calls = CrossEntropy.loss, []

    def exploding(self: CrossEntropy, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        return original(self, outputs, targets) * (float("nan") if len(calls) > 7 else 1.0)

    monkeypatch.setattr(CrossEntropy, "loss", exploding)
    recipe.write_text(RECIPE.replace("epochs = 1", "epochs = 9"))
    with pytest.raises(
        harness.HarnessError, match=r"at step 8 .*last good weights, of epoch 2, are kept in (.*)"
    ) as caught:
        built(request_for)
    folder = str(caught.value).rpartition(" ")[2]
    kept = build_checkpoint(
        harness.ModelRequest("checkpoint", argument=folder, catalogue=request_for.catalogue)
    )
    assert all(torch.isfinite(torch.from_numpy(v)).all() for v in numbers(kept))
    assert kept.facts["epoch"] == 2


def numbers(model: harness.Model) -> list[Any]:
    network: Any = model.classifier
    return [value.numpy() for value in network.state_dict().values() if value.is_floating_point()]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("epochs = 1", "epocs = 1", "no key named 'epocs'. Did you mean 'epochs'? Valid: epochs,"),
        ("[preprocessing]", "[preprocesing]", "no key named 'preprocesing'. Did you mean 'preprocessing'?"),
        (
            "input_size",
            "inputsize",
            "at preprocessing.inputsize: no key named 'inputsize'. Did you mean 'input_size'?",
        ),
        ("epochs = 1", "", "at epochs: this key is missing. Add it"),
        ("epochs = 1", "epochs = 0", "at epochs: Input should be greater than or equal to 1, not 0"),
        ("epochs = 1", 'epochs = "1"', "at epochs: Input should be a whole number, not '1'"),
        ("lr = 0.01", "lr = nan", "at lr: nan is not a finite number"),
        ("schema = 1", "schema = 2", "at schema: Input should be 1, not 2"),
        (
            "[1, 8, 8]",
            "[2, 8, 8]",
            "at preprocessing: input_size (2, 8, 8) has 2 channels. Valid: 1 (grey) or 3 (RGB)",
        ),
        ("[1, 8, 8]", "[3, 8, 8]", "at preprocessing: mean has 1 values for 3 channels. Give 3"),
        ("[1, 8, 8]", "[1, 8, 8]\nstd = [0.0]", "at preprocessing: std (0.0,) must be above 0"),
        ('"tiny"', '"../tiny"', "at name: Input should be lower-case letters"),
        ("schema = 1", "schema = ", "is not valid TOML"),
    ],
)
def test_a_mistake_in_a_recipe_is_one_line_that_names_it(
    recipe: Path, old: str, new: str, message: str
) -> None:
    recipe.write_text(RECIPE.replace(old, new))
    with pytest.raises(harness.InputError) as caught:
        load_recipe(str(recipe), Registry.load(blocked=()))
    text = str(caught.value)
    assert message in text
    assert recipe.name in text
    assert "\n" not in text


def test_an_unknown_recipe_names_the_nearest_and_an_absent_file_its_path(
    request_for: harness.ModelRequest, tmp_path: Path
) -> None:
    with pytest.raises(
        harness.HarnessError, match=r"no recipe named 'digit-cnn'\. Did you mean 'digits-cnn'\?"
    ):
        built(replace(request_for, argument="digit-cnn"))
    with pytest.raises(harness.InputError, match=r"the recipe .*absent\.toml. cannot be read: No such file"):
        built(replace(request_for, argument=str(tmp_path / "absent.toml")))


def test_a_recipe_without_data_or_with_too_few_outputs_is_refused(
    request_for: harness.ModelRequest, recipe: Path
) -> None:
    with pytest.raises(harness.InputError, match=r"trains on ID data, and the suite's \[id\] has no train"):
        built(replace(request_for, data=None))
    recipe.write_text("num_outputs = 1\n" + RECIPE)
    with pytest.raises(harness.InputError, match="num_outputs = 1 for 2 classes"):
        built(request_for)


def test_a_model_may_have_more_outputs_than_classes(request_for: harness.ModelRequest, recipe: Path) -> None:
    recipe.write_text("num_outputs = 6\n" + RECIPE)
    model = built(request_for)
    assert model.num_classes == 2
    head = model.classifier.get_classifier()
    assert isinstance(head, torch.nn.Linear)
    assert head.out_features == 6


@pytest.mark.parametrize("name", ["digits-cnn", "digits-mlp"])
def test_the_digits_recipes_learn_the_digits_0_to_4(
    digits: tuple[Selection, Selection, Selection], name: str
) -> None:
    train, validation, test = digits
    model = built(
        harness.ModelRequest(f"recipe:{name}", argument=name, data=harness.TrainingData(train, validation, 5))
    )
    images = model.preprocessing.normalise(model.preprocessing.batch(test.images(range(len(test)))))
    with torch.inference_mode():
        logits = model.classifier.forward_head(model.classifier.forward_features(images))
    accuracy = float((logits.argmax(dim=1).numpy() == test.labels).mean())
    assert accuracy >= 0.95
