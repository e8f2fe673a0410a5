from __future__ import annotations

import pytest

from harness.contract.bases import read_based
from harness.contract.registry import Registry
from harness.evaluations.run import plan_suite
from harness.models.training.recipe import load_recipe
from harness_plugins.datasets import digits, hub, imglists, synthetic
from harness_plugins.datasets.corruptions import offered as corruptions
from harness_plugins.shipped import harness_suites

INSTALLED = Registry.load(blocked=())
SUITES = {spec.name: read_based(spec.path, "suite", INSTALLED) for spec in harness_suites()}
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
    assert {ood["group"] for ood in suite.get("ood", [])} <= {"near", "far"}
    names = [ood["name"] for ood in suite.get("ood", [])]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("name", SUITES)
def test_everything_that_a_suite_names_is_installed(name: str, catalogue: Registry) -> None:
    suite = plan_suite(SUITES[name], catalogue, source=name).suite
    assert suite.name == name
    recipes = [
        model.name.removeprefix("recipe:") for model in suite.models if model.name.startswith("recipe:")
    ]
    for recipe in recipes:
        assert load_recipe(recipe, catalogue).name == recipe


@pytest.mark.parametrize("name", [name for name in SUITES if "-objectives" in name])
def test_the_objectives_of_a_suite_differ_in_nothing_but_the_objective(
    name: str, catalogue: Registry
) -> None:
    suite = plan_suite(SUITES[name], catalogue, source=name).suite
    recipes = [load_recipe(model.name.removeprefix("recipe:"), catalogue) for model in suite.models]
    assert [recipe.objective for recipe in recipes] == ["cross_entropy", "isomax", "isomaxplus"]
    said = [recipe.model_dump(exclude={"name", "description", "objective"}) for recipe in recipes]
    assert said[0] == said[1] == said[2]
    assert all(model.seeds == [0, 1, 2, 3, 4] for model in suite.models)
    assert recipes[0].data is not None
    assert (recipes[0].data.dataset, recipes[0].data.params) == (suite.id.dataset, suite.id.params)
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
    for dataset in [suite["id"], *suite.get("ood", []), *shifted]:
        family, _, argument = dataset["dataset"].partition(":")
        assert bool(DATASETS[family].argument) == bool(argument)
    for shift in suite.get("shift", []):
        assert set(shift.get("corrupt", [])) <= set(corruptions.CORRUPTIONS)


def test_the_family_of_the_isomax_papers_is_three_datasets_on_two_networks() -> None:
    family = {name: suite for name, suite in SUITES.items() if name.startswith(("cifar", "svhn"))}
    family = {name: suite for name, suite in family.items() if "-objectives" in name}
    assert set(family) == {
        f"{data}-objectives{network}"
        for data in ("cifar10", "cifar100", "svhn")
        for network in ("", "-resnet110")
    }
    for name, suite in family.items():
        other = "cifar10" if name.startswith("svhn") else "svhn"
        assert {ood["name"] for ood in suite.get("ood", [])} == {other, "imagenet_resize", "lsun_resize"}
        assert {"entropic", "min_distance", "msp"} <= set(suite["scorers"])
        assert not suite["verified"]
