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
from trials import Trials

from harness.base.errors import DatasetError

pytestmark = pytest.mark.trials("plugins")

ACTS = list(zoo.TO_THE_PROCESS)
WHEN = (
    "on_streams",
    "in_prepare",
    "when_opened",
    "when_decoded",
    "when_compared",
    "when_loaded",
    "when_forwarded",
)
TO_ITSELF = ("changes_the_device", "widens")  # what these do makes their own work fail
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
        "a dataset when it is compared": {"ood": [in_a_group(f"{act}_when_compared")]},
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

# Whoever cannot be opened or compared is refused before anything runs: see below.
MILD = [act for act in ACTS if not act.startswith(FAIL)]
CASES = [(kind, ACTS) for kind in KINDS]
CASES += [(f"a dataset when it is {when}", MILD) for when in ("opened", "compared")]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("alone")
    run_suite(one_of_each_kind(), folder / "out", cache=folder / "cache")
    return all_records(folder / "out")


@pytest.mark.parametrize(("kind", "acts"), CASES, ids=[kind for kind, _ in CASES])
def test_no_other_number_moves(
    kind: str, acts: Sequence[str], alone: dict[str, Any], trials: Trials, tmp_path: Path
) -> None:
    suite = one_of_each_kind()
    for act in acts:
        for section, added in beside(kind, act).items():
            suite[section] = [*added, *suite[section]]  # before the others, which it could harm
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
        own = {record["error"] for record in strange if is_of(act, record)}
        assert own
        if act.startswith(FAIL):
            assert None not in own, (act, own)
        elif act not in TO_ITSELF and not kind.endswith("decoded"):  # those share streams with each other
            assert own == {None}, (act, own)
        trials.add()


def is_of(act: str, record: dict[str, Any]) -> bool:
    """Whether a record is of an animal of this act, whatever its kind."""
    named = (record.get(key) for key in ("model", "scorer", "probe", "adapter", "estimator", "ood"))
    return any(name in {act, *(f"{act}_{when}" for when in WHEN)} for name in named)


@pytest.mark.parametrize("act", [act for act in ACTS if act.startswith(FAIL)])
def test_a_dataset_that_cannot_be_opened_is_named_before_anything_runs(act: str, tmp_path: Path) -> None:
    suite = one_of_each_kind()
    suite["ood"].append(in_a_group(f"{act}_when_opened"))
    with pytest.raises(DatasetError, match=rf"the dataset '{act}_when_opened' of plugin .* raised "):
        run_suite(suite, tmp_path / "out", plugins=(TOY_PLUGIN, Path(zoo.__file__)))
    assert not (tmp_path / "out").exists()
