"""The life of one kind's cells of one model, from the plan to the record. It names no kind."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from harness.engine.guard import Failure, describe

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from harness.engine.evaluation import C, Evaluation, Job, Measured, Sitting
    from harness.engine.plan import Plan, PlannedModel
    from harness.engine.recorder import Recorder

logger = logging.getLogger("ood_harness")


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
    sitting = kind.begin(job)
    applicable, todo, keys = [], [], {}
    for cell in cells:
        why = sitting.missing(cell)
        if why is not None:
            recorder.skip(cell, why)
            continue
        applicable.append(cell)
        keys[cell.cell_id] = _key(sitting, cell)
        if not job.folder.is_done(cell.cell_id, keys[cell.cell_id]):
            todo.append(cell)
    recorder.count(len(applicable) - len(todo), is_counted=kind.is_counted)
    for cell, found in _answered(sitting, todo):
        if kind.is_counted or not isinstance(found, Failure):
            recorder.write(cell, keys[cell.cell_id], found, is_counted=kind.is_counted)
    sitting.finish(applicable)


def _key(sitting: Sitting[C], cell: C) -> str:
    try:
        return sitting.key(cell)
    except Exception:  # a stranger's dataset may raise anything; measuring the cell reports it
        return ""


def _answered(sitting: Sitting[C], cells: Sequence[C]) -> Iterator[tuple[C, Measured | Failure]]:
    """Yield what was found for every cell: a failure for those that were not answered."""
    waiting = {cell.cell_id: cell for cell in cells}
    message = "it was not measured"
    try:
        for cell, found in sitting.measure(cells):
            if waiting.pop(cell.cell_id, None) is not None:
                yield cell, found
    except Exception as error:  # a stranger's plugin may raise anything
        message = describe(error)
    for cell in waiting.values():
        logger.warning("%s on %s: %s", cell.model.label, cell.on, message)
        yield cell, Failure(message)
