"""The house keeps its shape: imports run downward, the core knows no method, and the documents show real code."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from harness.registry import Registry

ROOT = Path(__file__).parents[1]
LEVELS = [
    {"errors", "types", "protocols", "specs", "preprocessing", "progress", "signatures", "selection"},
    {"hookspecs", "digests", "cache", "records", "ranking", "intervals", "metrics", "statistics"},
    {"registry", "suite", "data", "plan", "streams", "loaded", "image_scoring", "extract"},
    {"scoring", "evaluation", "recorder", "manifest"},
    {"unit", "leaderboard", "render"},
    {"runner"},
    {"api", "cli", "__init__"},
]


def imports_of(path: Path) -> set[str]:
    """List the modules that a file imports, wherever in it, from the core and from the plugins."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            found.add(module)
            found |= {f"{module}.{alias.name}" for alias in node.names}
    return found


def core_imports(path: Path) -> set[str]:
    modules = {file.stem for file in (ROOT / "harness").glob("*.py")}
    parts = {
        name.split(".")[1]
        for name in imports_of(path)
        if name.startswith("harness.") and name.count(".") >= 1
    }
    return parts & modules


CORE = sorted((ROOT / "harness").glob("*.py"))
PLUGINS = sorted((ROOT / "plugins/harness_plugins").rglob("*.py"))


def test_every_module_of_the_core_has_a_level() -> None:
    assert {path.stem for path in CORE} == set().union(*LEVELS)


def test_no_module_imports_one_of_a_higher_level() -> None:
    level = {name: number for number, names in enumerate(LEVELS) for name in names}
    upward = [
        (path.stem, name) for path in CORE if path.stem != "__init__" for name in core_imports(path)
        if level[name] > level[path.stem]
    ]  # fmt: skip
    assert upward == []


def test_no_modules_of_the_core_import_each_other_in_a_circle() -> None:
    waiting = {path.stem: core_imports(path) for path in CORE if path.stem != "__init__"}
    while free := {name for name, needs in waiting.items() if not needs & set(waiting)}:
        waiting = {name: needs for name, needs in waiting.items() if name not in free}
    assert waiting == {}


@pytest.mark.parametrize("path", CORE, ids=lambda path: path.stem)
def test_the_core_imports_no_plugin(path: Path) -> None:
    assert not [name for name in imports_of(path) if name.startswith("harness_plugins")]


@pytest.mark.parametrize("path", PLUGINS, ids=lambda path: str(path.relative_to(ROOT / "plugins")))
def test_plugins_use_the_public_api_only(path: Path) -> None:
    modules = {f"harness.{file.stem}" for file in CORE}
    assert not imports_of(path) & modules - {"harness.metrics", "harness.statistics"}


@pytest.mark.parametrize("path", CORE, ids=lambda path: path.stem)
def test_the_core_names_no_scorer(path: Path) -> None:
    """No string in the core, docstrings aside, is the name of an installed scorer."""
    tree = ast.parse(path.read_text())
    texts = {
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    assert not texts & set(Registry.load().names("scorer"))


def test_the_readme_shows_the_gen_plugin_as_it_is() -> None:
    readme = (ROOT / "README.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", readme, flags=re.DOTALL)
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
