"""Plugins are found, called alone, and named in whatever goes wrong."""

from __future__ import annotations

import textwrap
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from toys import TESTS

import harness
from harness.base.errors import InputError, PluginError, UnknownNameError
from harness.contract.registry import Registry

Install = Callable[..., None]

SCORER = """
import harness

class Scorer:
    def score(self, features):
        return features.logits[:, 0]

@harness.hookimpl
def harness_scorers():
    yield harness.ScorerSpec({name!r}, Scorer)
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Lay out a distribution as an installer would: modules and metadata, on the path."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))

    def lay_out(name: str, version: str, entry_points: dict[str, str], **modules: str) -> None:
        for module, source in modules.items():
            (site / f"{module}.py").write_text(textwrap.dedent(source))
        metadata = site / f"{name.replace('-', '_')}-{version}.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        lines = "\n".join(f"{key} = {value}" for key, value in entry_points.items())
        (metadata / "entry_points.txt").write_text(f"[ood_harness]\n{lines}\n")

    return lay_out


def test_a_strangers_distribution_is_found_as_its_pyproject_describes_it(install: Install) -> None:
    project = tomllib.loads((TESTS / "sample_plugin/pyproject.toml").read_text())["project"]
    source = (TESTS / "sample_plugin/harness_sample.py").read_text()
    install(
        project["name"], project["version"], project["entry-points"]["ood_harness"], harness_sample=source
    )
    registry = Registry.load()

    offered = registry.get("scorer", "runner_up")
    assert (offered.plugin, offered.version) == ("harness-sample:sample", "1.2.3")
    assert not registry.problems


def test_first_party_plugins_come_by_entry_point_like_a_strangers() -> None:
    registry = Registry.load()
    wanted = {
        "msp",
        "max_logit",
        "energy",
        "gen",
        "entropic",
        "min_distance",
        "knn",
        "mahalanobis",
        "mahalanobis_pp",
    }
    assert wanted | {"vim", "dse"} <= set(registry.names("scorer"))
    assert {"digits", "hf", "letters", "patches", "uniform", "gaussian", "corrupt"} <= set(
        registry.names("dataset")
    )
    assert {"digits", "mnist-split", "fashion-mnist"} <= set(registry.names("suite"))
    assert registry.get("scorer", "gen").plugin == "ood-harness:gen"


def test_two_distributions_with_one_entry_point_name_both_load(install: Install) -> None:
    install("first-toy", "1", {"toy": "first_toy"}, first_toy=SCORER.format(name="first"))
    install("second-toy", "2", {"toy": "second_toy"}, second_toy=SCORER.format(name="second"))
    registry = Registry.load()

    assert registry.get("scorer", "first").plugin == "first-toy:toy"
    assert registry.get("scorer", "second").plugin == "second-toy:toy"
    assert not registry.problems


def test_one_module_under_two_names_is_reported_and_offers_once(install: Install) -> None:
    install("twice-toy", "1", {"one": "twice_toy", "two": "twice_toy"}, twice_toy=SCORER.format(name="only"))
    registry = Registry.load()

    assert registry.get("scorer", "only").plugin == "twice-toy:one"
    assert [str(p) for p in registry.problems] == [
        "plugin twice-toy:two: is the same module as twice-toy:one, which already offers its specs"
    ]


def test_a_hook_that_raises_is_reported_and_loses_nothing(install: Install) -> None:
    source = SCORER.format(name="before") + "    raise RuntimeError('by design')\n"
    source += "\n@harness.hookimpl\ndef harness_datasets():\n    yield harness.DatasetSpec('kept', object)\n"
    install("raising-toy", "1", {"toy": "raising_toy"}, raising_toy=source)
    install("sound-toy", "1", {"toy": "sound_toy"}, sound_toy=SCORER.format(name="sound"))
    registry = Registry.load()

    assert (
        registry.get("scorer", "before").plugin == registry.get("dataset", "kept").plugin == "raising-toy:toy"
    )
    assert registry.get("scorer", "sound").plugin == "sound-toy:toy"
    assert [str(p) for p in registry.problems] == [
        "plugin raising-toy:toy: harness_scorers raised RuntimeError: by design. "
        "Fix it, or block it with OOD_HARNESS_BLOCK=raising-toy:toy"
    ]


def test_a_plugin_that_cannot_be_imported_is_reported_and_can_be_blocked(
    install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    install("broken-toy", "1", {"toy": "broken_toy"}, broken_toy="import nowhere_to_be_found")
    registry = Registry.load()
    (problem,) = registry.problems
    assert "its import raised ModuleNotFoundError: No module named 'nowhere_to_be_found'" in problem.message
    assert "OOD_HARNESS_BLOCK=broken-toy:toy" in problem.message
    assert "gen" in registry.names("scorer")

    for blocked in ("broken-toy:toy", "toy", "other, toy"):
        monkeypatch.setenv("OOD_HARNESS_BLOCK", blocked)
        assert not Registry.load().problems


def test_two_plugins_that_offer_one_name_are_an_error_that_names_both(install: Install) -> None:
    install("mine-toy", "1", {"gen": "mine_toy"}, mine_toy=SCORER.format(name="gen"))
    registry = Registry.load()

    with pytest.raises(
        PluginError, match=r"'gen' is offered by mine-toy:gen and ood-harness:gen\. Block one"
    ):
        registry.get("scorer", "gen")
    assert registry.get("scorer", "msp").plugin == "ood-harness:logits"
    assert len(registry.problems) == 1
    assert Registry.load(blocked=["mine-toy:gen"]).get("scorer", "gen").plugin == "ood-harness:gen"


def test_a_misspelt_hook_is_reported_with_the_right_one(install: Install) -> None:
    install(
        "typo-toy",
        "1",
        {"toy": "typo_toy"},
        typo_toy=SCORER.format(name="x").replace("harness_scorers", "harness_scorer"),
    )
    (problem,) = Registry.load().problems
    assert "no hook named 'harness_scorer'. Did you mean 'harness_scorers'?" in problem.message


def test_a_hook_that_gives_no_spec_is_reported(install: Install) -> None:
    source = "import harness\n@harness.hookimpl\ndef harness_scorers():\n    return ['gen']\n"
    install("wrong-toy", "1", {"toy": "wrong_toy"}, wrong_toy=source)
    (problem,) = Registry.load().problems
    assert "harness_scorers returned 'gen' instead of ScorerSpec" in problem.message


def test_a_file_is_a_plugin(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(SCORER.format(name="mine"))
    assert Registry.load([file]).get("scorer", "mine").plugin == "file:mine.py"


def test_a_plugin_file_that_is_missing_or_raises_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"absent\.py' does not exist"):
        Registry.load([tmp_path / "absent.py"])
    (tmp_path / "bad.py").write_text("1 / 0")
    with pytest.raises(PluginError, match=r"bad\.py' raised ZeroDivisionError: division by zero"):
        Registry.load([tmp_path / "bad.py"])


def test_those_who_follow_a_run_are_told_and_cannot_stop_it(install: Install) -> None:
    source = """
    import harness
    seen = []
    @harness.hookimpl
    def harness_record(record):
        seen.append(record["cell_id"])
    """
    install("follow-toy", "1", {"toy": "follow_toy"}, follow_toy=source)
    install(
        "grumpy-toy", "1", {"toy": "grumpy_toy"}, grumpy_toy=source.replace("seen.append(", "raise OSError(")
    )
    registry = Registry.load()
    registry.notify("harness_record", record={"cell_id": "c"})

    import follow_toy  # type: ignore[import-not-found]

    assert follow_toy.seen == ["c"]
    assert "harness_record raised OSError: c" in registry.problems[0].message


def test_an_unknown_name_suggests_the_nearest_and_lists_what_is_installed() -> None:
    with pytest.raises(
        UnknownNameError, match=r"no scorer named 'enrgy'\. Did you mean 'energy'\? Installed: .*gen"
    ):
        Registry.load().get("scorer", "enrgy")


def test_a_name_with_an_argument_finds_its_family_and_no_other() -> None:
    registry = Registry.load()
    assert registry.get("dataset", "hf:anything").spec.name == "hf"
    for kind, name in (
        ("dataset", "digits:x"),
        ("scorer", "gen:x"),
        ("suite", "digits:x"),
        ("probe", "er:x"),
    ):
        with pytest.raises(UnknownNameError):
            registry.get(kind, name)


def test_harness_scorer_builds_by_name_and_refuses_an_unknown_parameter() -> None:
    assert harness.scorer("gen", gamma=0.5).gamma == 0.5
    with pytest.raises(
        UnknownNameError, match=r"no parameter of scorer gen named 'gama'\. Did you mean 'gamma'\?"
    ):
        harness.scorer("gen", gama=0.5)


def test_the_same_file_twice_is_one_plugin_and_two_files_of_one_name_are_two(tmp_path: Path) -> None:
    for folder, name in (("a", "one"), ("b", "two")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "mine.py").write_text(SCORER.format(name=name))
    first, second = tmp_path / "a/mine.py", tmp_path / "b/mine.py"
    registry = Registry.load([first, second, first])
    assert registry.get("scorer", "one").plugin == "file:mine.py"
    assert registry.get("scorer", "two").plugin == f"file:{second}"
    assert not registry.problems
