from __future__ import annotations

import json
import logging
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch

import harness
from harness_plugins.models import recipes, training
from harness_plugins.models.recipe_schema import read_recipe
from harness_plugins.models.recipes import build_recipe, packaged_recipes, training_digest
from harness_plugins.models.timm_models import build_checkpoint

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from harness import Selection

RECIPE = """
schema = 1
name = "tiny"
description = "For tests."
network = "cnn"
network_params = { width = 4 }
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
def request_for(tiny: harness.TrainingData, tmp_path: Path, recipe: Path) -> harness.ModelRequest:
    return harness.ModelRequest("recipe:tiny", argument=str(recipe), data=tiny, store=tmp_path / "store")


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The seeds of all trainings so far."""
    seeds: list[int] = []
    original: Callable[..., training.Trained] = training.train

    def counted(*arguments: Any, seed: int, **options: Any) -> training.Trained:
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


def test_listing_the_models_loads_nothing_heavy() -> None:
    code = (
        "import sys; from harness_plugins.models import recipes, timm_models; "
        "specs = [*recipes.harness_models(), *timm_models.harness_models()]; "
        "heavy = {'torch', 'timm', 'pydantic', 'safetensors', 'huggingface_hub'} & sys.modules.keys(); "
        "sys.exit(f'{heavy}' if heavy or len(specs) < 4 else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_each_packaged_recipe_is_offered_and_bears_its_file_name() -> None:
    specs = list(recipes.harness_models())
    names = [spec.name for spec in specs]
    assert names == ["recipe", *packaged_recipes()]
    assert specs[0].argument == "NAME or PATH"
    assert {"digits-cnn", "digits-mlp", "mnist-toy-10", "mnist-toy-5", "fashion-mnist-small"} <= set(names)
    for name, path in packaged_recipes().items():
        assert read_recipe(path).name == name


def test_a_stored_model_is_loaded_with_the_same_bits(
    request_for: harness.ModelRequest, trainings: list[int]
) -> None:
    first, again = build_recipe(request_for), build_recipe(request_for)
    assert trainings == [0]
    assert state(first) == state(again)
    assert isinstance(again.classifier, torch.nn.Module)
    assert not again.classifier.training
    assert again.num_classes == 2
    assert again.preprocessing == harness.Preprocessing((1, 8, 8))

    unstored = build_recipe(replace(request_for, store=None))
    assert trainings == [0, 0]
    assert state(unstored) == state(first)


def test_a_stored_model_says_what_it_is_and_opens_as_a_checkpoint(request_for: harness.ModelRequest) -> None:
    model = build_recipe(replace(request_for, seed=7))
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
    assert config["builder"] == "harness_plugins.networks"
    assert config["data_digest"] == request_for.data.train.digest
    assert config["pretrained_cfg"]["input_size"] == [1, 8, 8]
    opened = build_checkpoint(harness.ModelRequest("checkpoint", argument=str(folder)))
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
    before = state(build_recipe(request_for))
    path = stored(request_for)[0] / file
    content = bytearray(path.read_bytes())
    if damage == "gone":
        path.unlink()
    else:
        content[-20] ^= 0x80
        path.write_bytes(content if damage == "flipped" else content[:40])

    with caplog.at_level(logging.WARNING, logger="ood_harness"):
        after = state(build_recipe(request_for))

    assert trainings == [0, 0]
    assert after == before
    assert "damaged and is trained again" in caplog.text
    assert len(stored(request_for)) == 1
    build_recipe(request_for)
    assert trainings == [0, 0]


def test_where_another_process_stores_first_its_model_is_used(
    request_for: harness.ModelRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = training.train
    theirs: list[harness.Model] = []

    def beaten(*arguments: Any, **options: Any) -> training.Trained:
        monkeypatch.setattr(training, "train", original)
        theirs.append(build_recipe(request_for))
        result = original(*arguments, **options)
        with torch.no_grad():
            result.network.fc.bias.add_(1)
        return result

    monkeypatch.setattr(training, "train", beaten)
    ours = build_recipe(request_for)
    assert state(ours) == state(theirs[0])
    assert len(stored(request_for)) == 1


def test_a_failed_training_leaves_nothing_in_the_store(
    request_for: harness.ModelRequest, recipe: Path
) -> None:
    recipe.write_text(RECIPE.replace("lr = 0.01", "lr = 1e30").replace("epochs = 1", "epochs = 9"))
    with pytest.raises(harness.InputError, match="Lower the recipe's lr"):
        build_recipe(request_for)
    assert request_for.store is not None
    assert not request_for.store.exists()


def test_recipe_data_and_seed_each_change_the_digest_and_the_description_does_not(
    tiny: harness.TrainingData, recipe: Path
) -> None:
    base = read_recipe(recipe)
    smaller = replace(tiny, train=tiny.train.limited(20))
    digests = [
        training_digest(base, tiny, 0),
        training_digest(base.model_copy(update={"lr": 0.02}), tiny, 0),
        training_digest(base.model_copy(update={"network_params": {"width": 5}}), tiny, 0),
        training_digest(base, smaller, 0),
        training_digest(base, replace(tiny, validation=None), 0),
        training_digest(base, replace(tiny, num_classes=3), 0),
        training_digest(base, tiny, 1),
    ]
    assert len(set(digests)) == len(digests)
    assert training_digest(base.model_copy(update={"description": "Other."}), tiny, 0) == digests[0]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("epochs = 1", "epocs = 1", "no key named 'epocs'. Did you mean 'epochs'? Valid: batch_size,"),
        ("[preprocessing]", "[preprocesing]", "no key named 'preprocesing'. Did you mean 'preprocessing'?"),
        (
            "input_size",
            "inputsize",
            "no key in [preprocessing] named 'inputsize'. Did you mean 'input_size'?",
        ),
        ("epochs = 1", "", "the key 'epochs' is missing"),
        ("epochs = 1", "epochs = 0", "epochs = 0: Input should be greater than or equal to 1"),
        ("epochs = 1", 'epochs = "1"', "epochs = '1': Input should be a valid integer"),
        ("lr = 0.01", "lr = nan", "lr = nan: Input should be"),
        ("schema = 1", "schema = 2", "schema = 2: Input should be 1"),
        (
            "[1, 8, 8]",
            "[2, 8, 8]",
            "preprocessing: input_size (2, 8, 8) has 2 channels. Valid: 1 (grey) or 3 (RGB)",
        ),
        ("[1, 8, 8]", "[3, 8, 8]", "preprocessing: mean has 1 values for 3 channels. Give one a channel"),
        ("[1, 8, 8]", "[1, 8, 8]\nstd = [0.0]", "std [0.0] must be above 0"),
        ('"tiny"', '"../tiny"', "name = '../tiny': String should match pattern"),
        ("schema = 1", "schema = ", "is not valid TOML"),
    ],
)
def test_a_mistake_in_a_recipe_is_one_line_that_names_it(
    recipe: Path, old: str, new: str, message: str
) -> None:
    recipe.write_text(RECIPE.replace(old, new))
    with pytest.raises(harness.InputError) as caught:
        read_recipe(recipe)
    text = str(caught.value)
    assert message in text
    assert str(recipe) in text
    assert "\n" not in text


def test_an_unknown_recipe_names_the_nearest_and_an_absent_file_its_path(
    request_for: harness.ModelRequest, tmp_path: Path
) -> None:
    with pytest.raises(
        harness.InputError, match=r"no recipe named 'digit-cnn'\. Did you mean 'digits-cnn'\?"
    ):
        build_recipe(replace(request_for, argument="digit-cnn"))
    with pytest.raises(harness.InputError, match=r"cannot read the recipe .*absent\.toml: No such file"):
        build_recipe(replace(request_for, argument=str(tmp_path / "absent.toml")))


def test_a_recipe_without_data_or_with_too_few_outputs_is_refused(
    request_for: harness.ModelRequest, recipe: Path
) -> None:
    with pytest.raises(harness.InputError, match="trains on ID data, and none was given"):
        build_recipe(replace(request_for, data=None))
    recipe.write_text("num_outputs = 1\n" + RECIPE)
    with pytest.raises(harness.InputError, match="num_outputs = 1 for 2 classes"):
        build_recipe(request_for)


def test_a_model_may_have_more_outputs_than_classes(request_for: harness.ModelRequest, recipe: Path) -> None:
    recipe.write_text("num_outputs = 6\n" + RECIPE)
    model = build_recipe(request_for)
    assert model.num_classes == 2
    head = model.classifier.get_classifier()
    assert isinstance(head, torch.nn.Linear)
    assert head.out_features == 6


@pytest.mark.parametrize("name", ["digits-cnn", "digits-mlp"])
def test_the_digits_recipes_learn_the_digits_0_to_4(
    digits: tuple[Selection, Selection, Selection], name: str
) -> None:
    train, validation, test = digits
    model = build_recipe(harness.ModelRequest(name, data=harness.TrainingData(train, validation, 5)))
    images = model.preprocessing.normalise(model.preprocessing.batch(test.images(range(len(test)))))
    with torch.inference_mode():
        logits = model.classifier.forward_head(model.classifier.forward_features(images))
    accuracy = float((logits.argmax(dim=1).numpy() == test.labels).mean())
    assert accuracy >= 0.95
