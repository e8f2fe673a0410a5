"""What no scorer may do, no plugin of any other kind does either: the other numbers stay the same bytes beside it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import zoo
from every_kind import one_of_each_kind
from journals import all_records, read_journal
from surroundings_noted import state_of_the_process
from toys import TOY_PLUGIN, run_suite
from trials import Trials, groups

from harness.base.errors import DatasetError

pytestmark = pytest.mark.trials("plugins")

ACTS = list(zoo.TO_THE_PROCESS)
FAIL = ("exits", "raises", "recurses")


def beside(kind: str, act: str) -> dict[str, Any]:
    """Return the section of the suite to which an animal is added, and the animal."""
    return {
        "a stream scorer": {"scorers": [f"{act}_on_streams"]},
        "a probe": {"probes": [act]},
        "an adapter": {"adapters": [{"name": act, "protocol": ["mixed", "episodic"]}]},
        "an adapter's prepare": {"adapters": [{"name": f"{act}_in_prepare", "protocol": "episodic"}]},
        "an estimator": {"estimators": [act]},
        "a dataset when it is opened": {"ood": [in_a_group(f"{act}_when_opened")]},
        "a dataset when it is decoded": {"ood": [in_a_group(f"{act}_when_decoded")]},
        "a model when it is loaded": {"models": [{"name": f"{act}_when_loaded"}]},
        "a model when it is forwarded": {"models": [{"name": f"{act}_when_forwarded"}]},
    }[kind]


def in_a_group(dataset: str) -> dict[str, Any]:
    return {"name": dataset, "dataset": dataset, "group": "far"}


KINDS = [
    "a stream scorer",
    "a probe",
    "an adapter",
    "an adapter's prepare",
    "an estimator",
    "a dataset when it is decoded",
    "a model when it is loaded",
    "a model when it is forwarded",
]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("alone")
    run_suite(one_of_each_kind(), folder / "out", cache=folder / "cache")
    return all_records(folder / "out")


@pytest.mark.parametrize("acts", groups(ACTS))
@pytest.mark.parametrize("kind", [*KINDS, "a dataset when it is opened"])
def test_no_other_number_moves(
    kind: str, acts: Sequence[str], alone: dict[str, Any], trials: Trials, tmp_path: Path
) -> None:
    if kind == "a dataset when it is opened":  # the others end the run: see below
        acts = [act for act in acts if not act.startswith(FAIL)] or ["reseeds"]
    suite = one_of_each_kind()
    for act in acts:
        for section, added in beside(kind, act).items():
            suite[section] = [*suite[section], *added]
    before = state_of_the_process()
    try:
        run_suite(suite, tmp_path / "out", plugins=(TOY_PLUGIN, Path(zoo.__file__)))
        assert state_of_the_process() == before
    finally:
        os.chdir(tmp_path)
    found = all_records(tmp_path / "out")
    assert {cell: found[cell] for cell in alone} == alone
    strange = [record for record in read_journal(tmp_path / "out") if record["cell_id"] not in alone]
    for act in acts:
        own = {record["error"] for record in strange if act in str(record)}
        assert own
        assert not act.startswith(FAIL) or None not in own, (act, own)
        trials.add()


@pytest.mark.parametrize("act", [act for act in ACTS if act.startswith(FAIL)])
def test_a_dataset_that_cannot_be_opened_is_named_before_anything_runs(act: str, tmp_path: Path) -> None:
    suite = one_of_each_kind()
    suite["ood"].append(in_a_group(f"{act}_when_opened"))
    with pytest.raises(DatasetError, match=rf"the dataset '{act}_when_opened' of plugin .* raised "):
        run_suite(suite, tmp_path / "out", plugins=(TOY_PLUGIN, Path(zoo.__file__)))
    assert not (tmp_path / "out").exists()
