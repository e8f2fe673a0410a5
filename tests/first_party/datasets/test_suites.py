from __future__ import annotations

import tomllib

import pytest

from harness.base.toml import read_toml
from harness.contract.registry import Registry
from harness.evaluations.run import plan_suite
from harness.models.training.recipe import load_recipe
from harness_plugins.datasets import digits, hub, imglists, synthetic
from harness_plugins.datasets.corruptions import offered as corruptions
from harness_plugins.shipped import harness_suites

SUITES = {spec.name: tomllib.loads(spec.path.read_text()) for spec in harness_suites()}
DATASETS = {
    spec.name: spec
    for plugin in (digits, synthetic, corruptions, hub, imglists)
    for spec in plugin.harness_datasets()
}


def test_the_packaged_suites_are_offered() -> None:
    assert set(SUITES) >= {"digits", "mnist-split", "fashion-mnist", "openood-cifar10", "openood-imagenet1k"}


@pytest.mark.parametrize("name", SUITES)
def test_a_suite_bears_its_files_name_and_known_keys(name: str) -> None:
    suite = SUITES[name]
    assert suite["name"] == name
    assert suite["schema"] == 1
    assert suite.get("fpr", "id") in ("id", "ood")
    assert {ood["group"] for ood in suite["ood"]} <= {"near", "far"}
    names = [ood["name"] for ood in suite["ood"]]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("name", SUITES)
def test_everything_that_a_suite_names_is_installed(name: str, catalogue: Registry) -> None:
    suite = plan_suite(read_toml(catalogue.path("suite", name), "suite"), catalogue, source=name).suite
    assert suite.name == name
    recipes = [
        model.name.removeprefix("recipe:") for model in suite.models if model.name.startswith("recipe:")
    ]
    for recipe in recipes:
        assert load_recipe(recipe, catalogue).name == recipe


@pytest.mark.parametrize("dataset", ["fashion-mnist", "mnist", "cifar10"])
def test_the_objectives_of_a_suite_differ_in_nothing_but_the_objective(
    dataset: str, catalogue: Registry
) -> None:
    path = catalogue.path("suite", f"{dataset}-objectives")
    suite = plan_suite(read_toml(path, "suite"), catalogue, source=path.name).suite
    recipes = [load_recipe(model.name.removeprefix("recipe:"), catalogue) for model in suite.models]
    assert [recipe.objective for recipe in recipes] == ["cross_entropy", "isomax", "isomaxplus"]
    said = [recipe.model_dump(exclude={"name", "description", "objective"}) for recipe in recipes]
    assert said[0] == said[1] == said[2]
    assert all(model.seeds == [0, 1, 2, 3, 4] for model in suite.models)
    assert recipes[0].data is not None
    assert recipes[0].data.train == suite.id.train
    assert recipes[0].data.validation == suite.id.validation


@pytest.mark.parametrize(
    ("one", "other"),
    [("fashion-mnist-batchnorm", "fashion-mnist-groupnorm"), ("digits-cnn", "digits-cnn-groupnorm")],
)
def test_networks_to_be_adapted_differ_in_nothing_but_their_normalisation(
    one: str, other: str, catalogue: Registry
) -> None:
    recipes = [load_recipe(name, catalogue) for name in (one, other)]
    said = [recipe.model_dump(exclude={"name", "description", "model_params"}) for recipe in recipes]
    assert said[0] == said[1]
    assert recipes[1].model_params == {**recipes[0].model_params, "norm": "group"}


@pytest.mark.parametrize("name", SUITES)
def test_a_suites_datasets_and_corruptions_exist(name: str) -> None:
    suite = SUITES[name]
    shifted = [shift for shift in suite.get("shift", []) if "dataset" in shift]
    for dataset in [suite["id"], *suite["ood"], *shifted]:
        family, _, argument = dataset["dataset"].partition(":")
        assert bool(DATASETS[family].argument) == bool(argument)
    for shift in suite.get("shift", []):
        assert set(shift.get("corrupt", [])) <= set(corruptions.CORRUPTIONS)
