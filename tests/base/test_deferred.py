from __future__ import annotations

import inspect
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import harness
from harness.base.code import source_digest
from harness.base.errors import UnknownNameError
from harness.contract.parameters import offer_taking
from harness.contract.registry import Registry


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package whose `one` and `two` are built from its module `offers`."""
    folder = tmp_path / "deferred_package"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "one.py").write_text("def build(size, *, width=3):\n    return size * width\n")
    (folder / "two.py").write_text("def build():\n    return 2\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield folder
    for name in [name for name in sys.modules if name.startswith("deferred_package")]:
        del sys.modules[name]


@pytest.mark.usefixtures("package")
def test_it_is_its_target_once_it_is_called() -> None:
    build = harness.Deferred("deferred_package.one:build")
    assert "deferred_package.one" not in sys.modules
    assert list(inspect.signature(build).parameters) == ["size", "width"]
    assert build(4, width=2) == 8


def test_its_parameters_are_its_targets(package: Path) -> None:
    offers = package / "offers.py"
    offers.write_text(
        "import harness\n@harness.hookimpl\ndef harness_datasets():\n"
        "    yield harness.DatasetSpec('it', harness.Deferred('deferred_package.one:build'))\n"
    )
    registry = Registry.load([offers])
    assert offer_taking(registry, "dataset", "it", {"width": 5}).spec.name == "it"
    with pytest.raises(
        UnknownNameError, match="no parameter of dataset it named 'widht'. Did you mean 'width'?"
    ):
        offer_taking(registry, "dataset", "it", {"widht": 5})


def test_its_code_is_its_targets_module_and_no_neighbours(package: Path) -> None:
    one, two = (harness.Deferred(f"deferred_package.{name}:build") for name in ("one", "two"))
    before = source_digest(one), source_digest(two)
    (package / "two.py").write_text("def build():\n    return 3\n")
    assert source_digest(one) == before[0]
    assert source_digest(two) != before[1]


def test_offering_imports_nothing() -> None:
    code = "import sys, harness; harness.Deferred('antigravity:x'); sys.exit('antigravity' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
