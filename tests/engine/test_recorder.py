"""What is written of a cell, and when: without a model and without a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from journals import read_journal
from toys import TOY_PLUGIN

from harness.contract.registry import Registry
from harness.engine.evaluation import Cell, Measured, NotApplicable
from harness.engine.guard import Failure
from harness.engine.recorder import Recorder
from harness.engine.sets import OpenSets
from harness.evaluations.run import plan_suite
from harness.reports.record import Record
from harness.reports.run_folder import RunFolder


class Desk:
    """A recorder in a folder, and one cell of a toy suite."""

    def __init__(self, suite: dict[str, Any], folder: Path) -> None:
        plan = plan_suite(suite, Registry.load([TOY_PLUGIN]), source="toy.toml")
        self.heard: list[Record] = []
        self.folder = RunFolder(folder)
        self.recorder = Recorder(plan, OpenSets(plan), self.folder, self.heard.append)
        (model,), worker = plan.models, plan.named("scorers")[0]
        place, head = {"scorer": worker.label}, {"kind": "score", "group": "near"}
        self.cell = Cell(model, worker, "close", plan.cell_id(model, what="level", on="close"), place, head)

    def journal(self) -> list[dict[str, Any]]:
        self.folder.finish()
        return read_journal(self.folder.path)


@pytest.fixture
def desk(toy_suite: dict[str, Any], tmp_path: Path) -> Desk:
    return Desk(toy_suite, tmp_path / "out")


NUMBER = Measured({"metrics": {"auroc": {"value": 0.5, "lo": None, "hi": None}}})


def test_a_record_has_the_place_and_the_result_of_its_cell(desk: Desk) -> None:
    desk.recorder.write(desk.cell, "key", NUMBER)
    (record,) = desk.journal()
    assert (record["kind"], record["model"], record["scorer"], record["ood"]) == (
        "score",
        "network",
        "level",
        "close",
    )
    assert (record["n_id"], record["n_ood"], record["error"], record["code_id"]) == (40, 40, None, "key")
    assert record["metrics"] == NUMBER.content["metrics"]
    assert record["schema"] == 1
    assert [heard.cell_id for heard in desk.heard] == [desk.cell.cell_id]
    assert desk.folder.is_done(desk.cell.cell_id, "key")
    assert not desk.folder.is_done(desk.cell.cell_id, "another key")


def test_a_failure_without_a_key_does_not_replace_a_number(desk: Desk) -> None:
    desk.recorder.write(desk.cell, "key", NUMBER)
    desk.recorder.write(desk.cell, "", Failure("the disk is away"))
    assert [r["error"] for r in desk.journal()] == [None]
    assert (desk.recorder.cells, desk.recorder.measured, desk.recorder.failed) == (2, 2, 1)
    desk.recorder.write(desk.cell, "key", Failure("NaN"))
    assert [r["error"] for r in desk.journal()] == ["NaN"]


def test_a_cell_that_does_not_apply_forgets_its_error_and_never_its_number(desk: Desk) -> None:
    why = NotApplicable({"scorer": "level"}, ["linear"])
    desk.recorder.write(desk.cell, "", Failure("model: away"))
    desk.recorder.skip(desk.cell, why)
    desk.recorder.skip(desk.cell, why)
    assert desk.journal() == []
    assert desk.recorder.not_applicable == [
        {"model": "network", "seed": 0, "scorer": "level", "missing": ["linear"]}
    ]
    desk.recorder.write(desk.cell, "key", NUMBER)
    desk.recorder.skip(desk.cell, why)
    assert len(desk.journal()) == 1


def test_cells_that_describe_the_model_are_not_counted(desk: Desk) -> None:
    desk.recorder.write(desk.cell, "key", NUMBER, is_counted=False)
    desk.recorder.count(3, is_counted=False)
    assert (desk.recorder.cells, desk.recorder.measured) == (0, 0)
    desk.recorder.count(3, is_counted=True)
    assert desk.recorder.cells == 3
