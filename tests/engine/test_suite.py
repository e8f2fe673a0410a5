"""A suite's faults are found before anything runs, each in one line with the place and the fix."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from toys import TOY_PLUGIN

from harness.base.errors import HarnessError, InputError, UnknownNameError
from harness.contract.registry import Registry
from harness.data.sets import SetEntry, set_entries
from harness.engine.plan import Plan
from harness.engine.suite import Suite, load_id
from harness.evaluations.adaptation.section import adapters, mixtures
from harness.evaluations.run import plan_suite, read_suite


@pytest.fixture
def registry() -> Registry:
    return Registry.load([TOY_PLUGIN])


def parsed(content: dict[str, Any]) -> Suite:
    return planned(content, Registry.load([TOY_PLUGIN])).suite


def planned(content: dict[str, Any], registry: Registry) -> Plan:
    return plan_suite(content, registry, source="toy.toml")


def sets_of(content: dict[str, Any]) -> list[SetEntry]:
    registry = Registry.load([TOY_PLUGIN])
    suite = read_suite(content, registry, source="toy.toml")
    return set_entries(suite.ood, suite.shift, registry)


def test_a_misspelt_key_names_its_place_and_the_nearest(toy_suite: dict[str, Any]) -> None:
    toy_suite["ood"][1]["grup"] = toy_suite["ood"][1].pop("group")
    with pytest.raises(
        InputError, match=r"^toy.toml: at ood\.1\.grup: no key named .grup.\. Did you mean .group.\?"
    ):
        parsed(toy_suite)
    toy_suite["ood"][1]["group"] = "near"
    with pytest.raises(
        InputError, match=r"at ood\.1\.grup: no key named 'grup'\. Did you mean 'group'\? Valid: .*limit"
    ):
        parsed(toy_suite)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": 0}, r"at batch_size: Input should be greater than 0, not 0"),
        ({"schema": 2}, r"at schema: Input should be 1, not 2"),
        ({"fpr": "both"}, r"at fpr: Input should be 'id' or 'ood', not 'both'"),
        ({"modles": []}, r"no key named 'modles'\. Did you mean 'models'\?"),
        (
            {"shift": [{"corrupt": ["fog"]}]},
            r"at shift\.0: give either corrupt and severity, or name and dataset",
        ),
        ({"ood": []}, r"there are no ood, and no probes, curves, adapters or estimators either"),
        ({"models": []}, r"at models: List should have at least 1 item, not \[\]"),
        ({"scorers": []}, r"there are no scorers, and no probes, curves, adapters or estimators either"),
        (
            {"scorers": [{"name": "level", "sign": float("inf")}]},
            r"at scorers\.0\.sign: inf is not a finite number",
        ),
        ({"models": [{"recipe": "a", "timm": "b"}]}, r"recipe and timm name two models"),
        ({"models": [{"recipe": ["a"], "timm": ["b"]}]}, r"recipe and timm name two models"),
        ({"models": [{"timm": []}]}, r"at models: timm = \[\] names no model\. Name one or more"),
        (
            {"models": [{"timm": ["a", "b"], "label": "net"}]},
            r"at models: the label 'net' is for 2 models\. Leave it out, or give each model an entry of its own",
        ),
        (
            {"shift": [{"corrupt": ["fog"], "severity": [1], "name": "x"}]},
            r"give either corrupt and severity, or",
        ),
        (
            {"shift": [{"corrupt": ["fog"], "dataset": "published:x", "name": "fog"}]},
            r"at shift\.0: give either .* or corrupt and dataset, with severity if its files have severities",
        ),
        ({"shift": [{"severity": [1], "dataset": "published:x"}]}, r"or corrupt and dataset, with severity"),
        (
            {"shift": [{"name": "fog", "severity": [1], "dataset": "published:x"}]},
            r"or name and dataset, or corrupt",
        ),
        ({"ood": [{"name": "id", "dataset": "levels", "group": "far"}]}, r"'id' cannot name a dataset"),
        ({"name": "../up"}, r"at name: Input should be lower-case letters"),
    ],
)
def test_a_wrong_value_is_named(toy_suite: dict[str, Any], change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        parsed(toy_suite | change)


def test_two_sets_of_one_name_are_refused(toy_suite: dict[str, Any]) -> None:
    toy_suite["ood"][1]["name"] = "bright"
    with pytest.raises(InputError, match="two datasets are named 'bright'"):
        parsed(toy_suite)


def test_validation_held_out_of_nothing_is_refused(toy_suite: dict[str, Any]) -> None:
    del toy_suite["id"]["train"]
    toy_suite["id"]["validation"] = {"holdout": 0.1}
    with pytest.raises(InputError, match=r"validation\.holdout is given without train"):
        parsed(toy_suite)


@pytest.mark.parametrize(
    ("place", "name", "kind"),
    [("scorers", "levl", "scorer"), ("models", {"name": "netwrk"}, "model")],
)
def test_an_unknown_name_is_found_before_anything_runs(
    toy_suite: dict[str, Any], registry: Registry, place: str, name: Any, kind: str
) -> None:
    toy_suite[place] = [name]
    with pytest.raises(UnknownNameError, match=rf"no {kind} named '.*'\. Did you mean"):
        planned(toy_suite, registry)


def test_an_unknown_dataset_or_parameter_is_found_before_anything_runs(
    toy_suite: dict[str, Any], registry: Registry
) -> None:
    toy_suite["ood"][0]["dataset"] = "lvels"
    with pytest.raises(UnknownNameError, match=r"no dataset named 'lvels'\. Did you mean 'levels'\?"):
        planned(toy_suite, registry)
    toy_suite["ood"][0]["dataset"] = "levels"
    toy_suite["scorers"] = [{"name": "level", "sgn": 1}]
    with pytest.raises(
        UnknownNameError, match=r"no parameter of scorer level named 'sgn'\. Did you mean 'sign'\?"
    ):
        planned(toy_suite, registry)


def test_a_scorer_with_two_settings_has_two_rows(toy_suite: dict[str, Any], registry: Registry) -> None:
    toy_suite["scorers"] = ["level", {"name": "level", "sign": -1.0}]
    assert [s.label for s in planned(toy_suite, registry).named("scorers")] == ["level", "level(sign=-1.0)"]
    toy_suite["scorers"] = ["level", "level"]
    with pytest.raises(InputError, match="two scorers are both 'level'"):
        planned(toy_suite, registry)


def test_a_star_means_every_scorer_that_neither_adapts_the_model_nor_is_unstable(
    toy_suite: dict[str, Any], registry: Registry
) -> None:
    toy_suite["scorers"] = ["*"]
    found = [s.label for s in planned(toy_suite, registry).named("scorers")]
    assert found == sorted({*registry.names("scorer")} - {"flips", "whole", "dse_change", "turning"})
    assert "gradient" in found
    toy_suite["scorers"] = ["*", "whole"]
    assert [s.label for s in planned(toy_suite, registry).named("scorers")] == [*found, "whole"]


def test_a_shift_is_one_set_a_corruption_and_severity(toy_suite: dict[str, Any]) -> None:
    toy_suite["shift"] = [{"corrupt": ["contrast", "pixelate"], "severity": [1, 5]}]
    shifted = [(e.name, e.group, e.dataset) for e in sets_of(toy_suite) if e.shifts_id]
    assert shifted == [
        ("contrast-1", "csid", "corrupt:contrast"),
        ("contrast-5", "csid", "corrupt:contrast"),
        ("pixelate-1", "csid", "corrupt:pixelate"),
        ("pixelate-5", "csid", "corrupt:pixelate"),
    ]


def test_a_shift_of_a_datasets_corruptions_hands_them_on_as_parameters(toy_suite: dict[str, Any]) -> None:
    toy_suite["shift"] = [
        {
            "dataset": "published:CIFAR-10-C",
            "corrupt": ["fog", "snow"],
            "severity": [1, 5],
            "params": {"other": 2},
            "limit": 7,
        }
    ]
    shifted = [e for e in sets_of(toy_suite) if e.group == "csid"]
    assert [(e.name, e.severity, dict(e.params)) for e in shifted] == [
        (f"{kind}-{severity}", severity, {"other": 2, "corruption": kind, "severity": severity})
        for kind in ("fog", "snow")
        for severity in (1, 5)
    ]
    assert {(e.dataset, e.limit, e.shifts_id) for e in shifted} == {("published:CIFAR-10-C", 7, False)}


def test_a_shift_of_files_without_severities_is_named_by_the_corruption(toy_suite: dict[str, Any]) -> None:
    toy_suite["shift"] = [
        {"dataset": "published:mnist_c", "corrupt": ["fog", "stripe"], "split": "train", "revision": "a"}
    ]
    shifted = [e for e in sets_of(toy_suite) if e.group == "csid"]
    assert [(e.name, e.severity, dict(e.params)) for e in shifted] == [
        ("fog", None, {"corruption": "fog"}),
        ("stripe", None, {"corruption": "stripe"}),
    ]
    assert {(e.split, e.revision, e.shifts_id) for e in shifted} == {("train", "a", False)}


def test_fresh_and_published_corruptions_of_one_name_are_refused(toy_suite: dict[str, Any]) -> None:
    fresh = {"corrupt": ["fog"], "severity": [3]}
    toy_suite["shift"] = [fresh, fresh | {"dataset": "published:CIFAR-10-C"}]
    with pytest.raises(InputError, match="two sets are named 'fog-3'"):
        sets_of(toy_suite)


def test_published_corruptions_do_not_come_over_ood(toy_suite: dict[str, Any], registry: Registry) -> None:
    toy_suite["shift"] = [{"corrupt": ["fog"], "severity": [3], "dataset": "published:CIFAR-10-C"}]
    toy_suite["adapters"] = [{"name": "bump", "protocol": "mixed"}]
    plan = planned(toy_suite, registry)
    (adapter,) = adapters(plan, meets_ood=True)
    assert [m.shift for m in mixtures(plan, adapter)] == [None] * len(toy_suite["ood"])
    toy_suite["adaptation"] = {"shares": [[0.0, 0.5, 0.5]]}
    with pytest.raises(InputError, match=r"no \[\[shift\]\] corrupts ID test"):
        parsed(toy_suite)


def test_a_set_for_tuning_is_not_tested_on(toy_suite: dict[str, Any]) -> None:
    toy_suite["ood"][0]["role"] = "validation"
    assert [e.name for e in sets_of(toy_suite)] == ["close", "closer"]


def test_the_digest_follows_the_data_and_not_the_competitors(toy_suite: dict[str, Any]) -> None:
    before = parsed(toy_suite).digest
    assert parsed(toy_suite | {"scorers": ["level"], "description": "other"}).digest == before
    assert parsed(toy_suite | {"models": [{"name": "network", "seeds": [1]}]}).digest == before
    assert parsed(toy_suite | {"batch_size": 8}).digest != before
    assert parsed(toy_suite).limited(10).digest != before
    toy_suite["ood"][0]["params"]["offset"] = 61
    assert parsed(toy_suite).digest != before


def test_family_keys_are_short_for_names(toy_suite: dict[str, Any]) -> None:
    toy_suite["models"] = [{"timm": "resnet18"}, {"checkpoint": "a/b"}, {"recipe": "x", "seeds": [3]}]
    assert [m.name for m in parsed(toy_suite).models] == ["timm:resnet18", "checkpoint:a/b", "recipe:x"]


def test_an_entry_may_name_several_models_of_a_family(toy_suite: dict[str, Any]) -> None:
    toy_suite["models"] = [{"timm": ["resnet18", "vgg11"], "seeds": [3]}, {"name": ["network"], "label": "n"}]
    models = parsed(toy_suite).models
    assert [(m.name, m.seeds, m.label) for m in models] == [
        ("timm:resnet18", [3], None),
        ("timm:vgg11", [3], None),
        ("network", [0], "n"),
    ]


def test_a_label_is_the_models_whole_name_and_parameters_tell_those_without_one_apart(
    toy_suite: dict[str, Any], registry: Registry
) -> None:
    entry = {"name": "network", "params": {"head": "distance"}}
    toy_suite["models"] = [entry, entry | {"label": "distance"}]
    assert [m.label for m in planned(toy_suite, registry).models] == ["network(head=distance)", "distance"]
    toy_suite["models"] = [{"name": "network", "label": "distance"}, entry | {"label": "distance"}]
    with pytest.raises(InputError, match="two models are both 'distance.*another label"):
        planned(toy_suite, registry)


def test_a_file_that_is_no_toml_or_no_suite_is_named(tmp_path: Path, registry: Registry) -> None:
    (tmp_path / "bad.toml").write_text("name = [")
    with pytest.raises(InputError, match=r"bad\.toml' is not valid TOML"):
        load_id(str(tmp_path / "bad.toml"), registry)
    with pytest.raises(InputError, match=r"gone\.toml' cannot be read: No such file"):
        load_id(str(tmp_path / "gone.toml"), registry)
    with pytest.raises(
        HarnessError, match=r"no suite named 'digts'\. Did you mean 'digits'\?.*path of a \.toml file"
    ):
        load_id("digts", registry)


def test_a_parameter_that_a_dataset_or_scorer_refuses_is_found_before_anything_runs(
    toy_suite: dict[str, Any], registry: Registry
) -> None:
    with pytest.raises(
        InputError, match=r"the scorer 'gen' does not take gamma=-1: gamma=-1.*Give gamma > 0"
    ):
        planned(toy_suite | {"scorers": [{"name": "gen", "gamma": -1}]}, registry)
    toy_suite["ood"][0]["params"] = {"ofset": 1}
    with pytest.raises(
        UnknownNameError, match=r"no parameter of dataset levels named 'ofset'\. Did you mean 'offset'"
    ):
        planned(toy_suite, registry)


def test_a_class_named_twice_is_refused(toy_suite: dict[str, Any]) -> None:
    toy_suite["id"]["classes"] = [0, 1, 1]
    with pytest.raises(InputError, match=r"classes \[0, 1, 1\] name one twice"):
        parsed(toy_suite)
