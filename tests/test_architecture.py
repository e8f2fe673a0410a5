"""The house keeps its shape: imports run downward, the core knows no method, and the documents show real code."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from harness.contract.registry import KINDS, Registry

ROOT = Path(__file__).parents[1]
LEVELS = [
    {"base"},
    {"contract", "statistics"},
    {"data"},
    {"models", "reports"},
    {"engine"},
    {"evaluations"},
    {"cli"},
]  # the rooms, from the ground up; `harness/__init__.py` is the face of the house and stands on all of them
MOST_NAMES, MOST_LEVELS = 10, 7


def imports_of(path: Path) -> set[str]:
    """List the modules that a file imports, wherever in it, and the names in them."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            found.add(module)
            found |= {f"{module}.{alias.name}" for alias in node.names}
    return found


def modules_of(path: Path) -> set[str]:
    """List the modules of the core that a file imports, for type checking too; never the face of the house."""
    return {name for name in imports_of(path) if name in MODULES and name != "harness"}


def name_of(path: Path) -> str:
    """Name the module of a file: "harness.base.errors"; a package by its folder."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room_of(module: str) -> str:
    """Name the room of a module of the core."""
    return module.split(".")[1] if "." in module else "__init__"


def free_of_circles(needs: dict[str, set[str]]) -> bool:
    """Take away what needs nothing that is left, until nothing goes."""
    while free := {name for name, of_name in needs.items() if not of_name & (needs.keys() - {name})}:
        needs = {name: of_name for name, of_name in needs.items() if name not in free}
    return not needs


CORE = sorted((ROOT / "harness").rglob("*.py"))
PLUGINS = sorted((ROOT / "plugins/harness_plugins").rglob("*.py"))
MODULES = {name_of(path): path for path in CORE}
ROOMS = {room_of(module) for module in MODULES} - {"__init__"}
NAMES = [str(path.relative_to(ROOT / "harness")) for path in CORE]


def test_the_house_has_ten_names_at_most_and_seven_levels_at_most() -> None:
    names = {p.name for p in (ROOT / "harness").iterdir()} - {
        "__pycache__",
        "py.typed",
    }  # the mark of typed code
    assert names == ROOMS | {"__init__.py"}
    assert len(names) <= MOST_NAMES
    assert len(LEVELS) <= MOST_LEVELS


def test_every_room_has_a_level() -> None:
    assert set().union(*LEVELS) == ROOMS


def test_no_room_imports_one_of_its_own_level_or_a_higher_one() -> None:
    level = {name: number for number, names in enumerate(LEVELS) for name in names}
    upward = [
        (module, other)
        for module, path in MODULES.items()
        if module != "harness"
        for other in modules_of(path)
        if room_of(other) != room_of(module) and level[room_of(other)] >= level[room_of(module)]
    ]
    assert upward == []


def test_no_modules_of_the_core_import_each_other_in_a_circle() -> None:
    needs = {
        module: {other for other in modules_of(path) if MODULES[other].name != "__init__.py"}
        for module, path in MODULES.items()
        if path.name != "__init__.py"
    }
    assert free_of_circles(needs)


def test_a_circle_would_be_found() -> None:
    assert free_of_circles({"a": {"b"}, "b": set(), "c": {"a", "b"}})
    assert not free_of_circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": set()})


@pytest.mark.parametrize("path", CORE, ids=NAMES)
def test_the_core_imports_no_plugin(path: Path) -> None:
    assert not [name for name in imports_of(path) if name.startswith("harness_plugins")]


@pytest.mark.parametrize("path", PLUGINS, ids=lambda path: str(path.relative_to(ROOT / "plugins")))
def test_plugins_use_the_public_api_only(path: Path) -> None:
    assert not [name for name in modules_of(path) if name != "harness.statistics"]


# Words of the core that are an installed plugin's name as well: a kind of spec, a library, a column of a table, the
# adapter "source", by which records name the unadapted model, who states a preprocessing, and a key of feature_info.
WORDS = {
    "recipe": {
        "cli/dry_run.py",
        "cli/offers.py",
        "contract/registry.py",
        "contract/specs.py",
        "evaluations/estimation/session.py",
    },
    "timm": {"engine/manifest.py", "models/loaded.py", "models/training/training.py"},
    "class_entropy": {f"evaluations/adaptation/{name}.py" for name in ("table", "tally", "text")},
    "source": {
        "contract/preprocessing.py",
        "evaluations/mixtures/measure.py",
        "models/loaded.py",
        "reports/record.py",
    },
    "module": {"models/classes.py", "models/loaded.py"},
}
KINDS_WITHOUT_NAMES = {"suite", "recipe"}  # files, which only users name


@pytest.mark.parametrize("path", CORE, ids=NAMES)
def test_the_core_names_nothing_that_is_installed(path: Path) -> None:
    """No string in the core, docstrings aside, is the name of an installed plugin's offer."""
    registry = Registry.load()
    installed = {name for kind in KINDS if kind not in KINDS_WITHOUT_NAMES for name in registry.names(kind)}
    assert {"corrupt", "timm", "checkpoint", "recipe", "tent", "gen", "flips", "dse"} <= installed
    place = str(path.relative_to(ROOT / "harness"))
    allowed = {word for word, places in WORDS.items() if place in places}
    if place.startswith("models/training/"):
        allowed.add("recipe")
    texts = {
        node.value
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    assert (texts - allowed) & installed == set()


def test_the_documents_show_the_gen_plugin_as_it_is() -> None:
    page = (ROOT / "docs/plugins.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    assert (ROOT / "plugins/harness_plugins/scorers/gen.py").read_text() in blocks


def test_the_commands_that_the_readme_names_are_what_ci_runs() -> None:
    readme, ci = (ROOT / "README.md").read_text(), (ROOT / ".ci/run").read_text()
    for command in ("make leaderboard", "make test"):
        assert command in readme
    assert "make leaderboard" in ci
    assert "make check" in ci
    assert re.search(
        r"^check:.*\n(?:\t.*\n)*\t\$\(MAKE\) test", (ROOT / "Makefile").read_text(), flags=re.MULTILINE
    )


def test_modules_stay_short() -> None:
    lengths = {path.name: len(path.read_text().splitlines()) for path in [*CORE, *PLUGINS]}
    assert {name: length for name, length in lengths.items() if length > 350} == {}
