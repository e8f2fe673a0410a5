"""What no record can hold fails its own cell by name; the run goes on, and the others keep their numbers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import odd_results
import pytest
from every_kind import one_of_each_kind
from journals import all_records, read_journal
from toys import TOY_PLUGIN, run_suite
from trials import Trials

from harness.base.errors import DatasetError
from harness.contract.registry import Registry

pytestmark = pytest.mark.trials("plugins")

FINE = tuple(odd_results.FINE)


def offered(kind: str) -> list[str]:
    """List the odd plugins of one kind."""
    found = Registry.load([Path(odd_results.__file__)], blocked=()).offers(kind)
    return [one.spec.name for one in found if one.plugin.endswith("odd_results.py")]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("alone")
    run_suite(one_of_each_kind(), folder / "out", cache=folder / "cache")
    return all_records(folder / "out")


def sections(kind: str, names: Sequence[str]) -> dict[str, list[Any]]:
    """Return what a suite has more, to run the plugins of one kind."""
    if kind == "adapter":
        return {"adapters": [{"name": name, "protocol": ["mixed", "episodic"]} for name in names]}
    return {f"{kind}s": list(names)} if kind != "model" else {"models": [{"name": name} for name in names]}


@pytest.mark.parametrize("isolate", ["none", "foreign"])
@pytest.mark.parametrize("kind", ["scorer", "estimator", "probe", "adapter", "model"])
def test_an_odd_result_fails_its_own_cells(
    kind: str, isolate: str, alone: dict[str, Any], trials: Trials, tmp_path: Path
) -> None:
    suite, names = one_of_each_kind() | {"limits": {"isolate": isolate}}, offered(kind)
    for section, added in sections(kind, names).items():
        suite[section] = [*suite[section], *added]
    run_suite(suite, tmp_path / "out", plugins=(TOY_PLUGIN, Path(odd_results.__file__)))
    found = all_records(tmp_path / "out")
    assert {cell: found[cell] for cell in alone} == alone
    for name in names:
        own = [r for r in read_journal(tmp_path / "out") if r.get(kind) == name and r["cell_id"] not in alone]
        assert own, name
        errors = {record["error"] for record in own}
        if name.endswith(odd_results.JSON if kind == "model" else FINE):
            assert errors == {None}, name
        else:
            assert None not in errors, name
            assert not any("\n" in error or "Traceback" in error for error in errors)
        trials.add()


@pytest.mark.parametrize("name", odd_results.FACTS)
def test_a_dataset_whose_facts_cannot_be_written_is_named_before_anything_runs(
    name: str, tmp_path: Path
) -> None:
    suite = one_of_each_kind()
    suite["ood"].append({"name": "odd", "dataset": name, "group": "far"})
    plugins = (TOY_PLUGIN, Path(odd_results.__file__))
    if name in odd_results.JSON:
        run_suite(suite, tmp_path / "out", plugins=plugins)
        assert any(record["ood"] == "odd" for record in read_journal(tmp_path / "out"))
    else:
        with pytest.raises(DatasetError, match="odd: its facts cannot be written as JSON"):
            run_suite(suite, tmp_path / "out", plugins=plugins)
