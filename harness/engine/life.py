"""The life of one kind's cells of one model, from the plan to the record. It names no kind."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.base.errors import describe
from harness.engine.guard import Failure, attempt

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from harness.engine.evaluation import C, Evaluation, Job, Measured, Sitting
    from harness.engine.plan import Plan, PlannedModel
    from harness.engine.recorder import Recorder


def evaluate(
    kind: Evaluation[C], plan: Plan, model: PlannedModel, job: Job | Failure, recorder: Recorder
) -> None:
    """Measure and record the cells of one kind and model that the run's folder lacks."""
    cells = list(kind.cells(plan, model))
    if isinstance(job, Failure):
        if kind.is_counted:
            for cell in cells:
                recorder.write(cell, "", Failure(f"model: {job.message}"))
        return
    sitting = kind.sitting(job)
    applicable, todo, keys = [], [], {}
    for cell in cells:
        if (missing := sitting.missing(cell)) is not None:
            recorder.skip(cell, missing)
            continue
        applicable.append(cell)
        key = attempt(sitting.key, cell)
        keys[cell.cell_id] = "" if isinstance(key, Failure) else key  # measuring the cell reports the failure
        if not job.folder.is_done(cell.cell_id, keys[cell.cell_id]):
            todo.append(cell)
    recorder.count(len(applicable) - len(todo), is_counted=kind.is_counted)
    for cell, found in _answered(sitting, todo):
        if kind.is_counted or not isinstance(found, Failure):
            recorder.write(cell, keys[cell.cell_id], found, is_counted=kind.is_counted)
    sitting.finish(applicable)


def _answered(sitting: Sitting[C], cells: Sequence[C]) -> Iterator[tuple[C, Measured | Failure]]:
    """Yield a result for every cell: a failure for those that the sitting left out."""
    waiting = {cell.cell_id: cell for cell in cells}
    message = "it was not measured"
    try:
        for cell, found in sitting.measure(cells):
            if waiting.pop(cell.cell_id, None) is not None:
                yield cell, found
    except Exception as error:  # a stranger's plugin may raise anything
        message = describe(error)
    for cell in waiting.values():
        yield cell, Failure(message)
