"""The house keeps its shape: imports run downward, the core knows no method, and the documents show real code."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from harness.contract.registry import Registry

ROOT = Path(__file__).parents[1]
LEVELS = [
    {"deferred", "errors", "formats", "memory", "preprocessing", "progress", "protocols", "seeding", "selection",
     "signatures", "specs", "tables", "types", "wording"},
    {"cache", "digests", "hookspecs", "intervals", "metrics", "ranking", "records", "runs", "statistics"},
    {"data", "extract", "image_scoring", "loaded", "mixing", "plan", "registry", "streams", "suite"},
    {"decoded", "evaluation", "fits", "manifest", "recorder", "scoring", "training", "unlabelled"},
    {"adaptation", "contrast", "contrast_text", "estimation", "leaderboard", "probes", "render", "transduction",
     "unit"},
    {"runner", "trainer"},
    {"plots"},
    {"__init__", "api", "cli"},
]  # fmt: skip
PACKAGES = (
    "adaptation",
    "estimation",
    "plots",
    "probes",
    "training",
)  # a level holds them as wholes; inside, no circles


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
    """List the core's modules and packages that a file imports."""
    names = {name.split(".")[1] for name in imports_of(path) if name.startswith("harness.")}
    return names & set(UNITS)


def unit_of(path: Path) -> str:
    """Name the module or package of the core that a file belongs to."""
    return path.relative_to(ROOT / "harness").parts[0].removesuffix(".py")


def free_of_circles(needs: dict[str, set[str]]) -> bool:
    """Take away what needs nothing that is left, until nothing goes."""
    while free := {name for name, of_name in needs.items() if not of_name & (needs.keys() - {name})}:
        needs = {name: of_name for name, of_name in needs.items() if name not in free}
    return not needs


CORE = sorted((ROOT / "harness").rglob("*.py"))
PLUGINS = sorted((ROOT / "plugins/harness_plugins").rglob("*.py"))
UNITS = sorted({unit_of(path) for path in CORE})
NAMES = [str(path.relative_to(ROOT / "harness")) for path in CORE]


def test_every_module_of_the_core_has_a_level() -> None:
    assert set(UNITS) == set().union(*LEVELS)


def test_no_module_imports_one_of_a_higher_level() -> None:
    level = {name: number for number, names in enumerate(LEVELS) for name in names}
    inner = [path for path in CORE if unit_of(path) != "__init__"]
    upward = [
        (str(path), name)
        for path in inner
        for name in core_imports(path)
        if level[name] > level[unit_of(path)]
    ]
    assert upward == []


def test_no_modules_of_the_core_import_each_other_in_a_circle() -> None:
    units = {unit: set().union(*(core_imports(p) for p in CORE if unit_of(p) == unit)) for unit in UNITS}
    assert free_of_circles({unit: needs for unit, needs in units.items() if unit != "__init__"})
    for package in PACKAGES:
        files = {p.stem: imports_of(p) for p in CORE if unit_of(p) == package}
        needs = {
            stem: {other for other in files if f"harness.{package}.{other}" in imported}
            for stem, imported in files.items()
        }
        assert free_of_circles(needs), package


def test_a_circle_would_be_found() -> None:
    assert free_of_circles({"a": {"b"}, "b": set(), "c": {"a", "b"}})
    assert not free_of_circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": set()})


@pytest.mark.parametrize("path", CORE, ids=NAMES)
def test_the_core_imports_no_plugin(path: Path) -> None:
    assert not [name for name in imports_of(path) if name.startswith("harness_plugins")]


@pytest.mark.parametrize("path", PLUGINS, ids=lambda path: str(path.relative_to(ROOT / "plugins")))
def test_plugins_use_the_public_api_only(path: Path) -> None:
    modules = {f"harness.{unit}" for unit in UNITS}
    assert not imports_of(path) & modules - {"harness.statistics.metrics", "harness.statistics.inference"}


@pytest.mark.parametrize("path", CORE, ids=NAMES)
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
