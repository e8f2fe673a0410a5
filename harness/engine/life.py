"""The life of one kind's cells of one model, from the plan to the record. It names no kind."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.base.errors import describe
from harness.base.strangers import RAISED
from harness.engine.guard import Failure, attempt
from harness.reports.record import NOT_LOADED

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from harness.engine.evaluation import C, Evaluation, Job, Measured, Sitting
    from harness.engine.plan import PlannedModel
    from harness.engine.progress import RunProgress
    from harness.engine.recorder import Recorder


def evaluate(
    kind: Evaluation[C],
    model: PlannedModel,
    job: Job | Failure,
    recorder: Recorder,
    progress: RunProgress,
    *,
    fresh: bool = False,
) -> None:
    """Measure and record the cells of one kind and model that the run's folder lacks, or all of them."""
    cells = list(kind.cells(recorder.plan, model))
    if isinstance(job, Failure):
        progress.leave_out(cells)
        for cell in cells if kind.is_counted else ():
            recorder.write(cell, "", Failure(f"{NOT_LOADED}{job.message}"))
        return
    sitting = kind.sitting(job)
    applicable: list[C] = []
    todo: dict[str, tuple[C, str | Failure]] = {}  # by id: the cells to measure, with their keys
    for cell in cells:
        if (missing := sitting.missing(cell)) is not None:
            recorder.skip(cell, missing)
            continue
        applicable.append(cell)
        key = attempt(sitting.key, cell)
        if fresh or isinstance(key, Failure) or not key or not job.folder.is_done(cell.cell_id, key):
            todo[cell.cell_id] = cell, key
    recorder.count(len(applicable) - len(todo), is_counted=kind.is_counted)
    progress.leave_out(cell for cell in cells if cell.cell_id not in todo)
    for cell, found in _answered(sitting, [cell for cell, _ in todo.values()]):
        _, key = todo[cell.cell_id]
        _record(kind, cell, key, found, recorder)
        progress.step()
    sitting.finish(applicable)


def _record(
    kind: Evaluation[C], cell: C, key: str | Failure, found: Measured | Failure, recorder: Recorder
) -> None:
    result = found
    if isinstance(key, Failure) and not isinstance(found, Failure):
        result = Failure(f"its key: {key.message}")  # a number without a key would be kept whatever changes
    if isinstance(result, Failure):
        recorder.warn(cell, result)
    if kind.is_counted or not isinstance(result, Failure):
        known = "" if isinstance(key, Failure) else key
        recorder.write(cell, known, result, is_counted=kind.is_counted)


def _answered(sitting: Sitting[C], cells: Sequence[C]) -> Iterator[tuple[C, Measured | Failure]]:
    """Yield a result for every cell: a failure for those that the sitting left out."""
    waiting = {cell.cell_id: cell for cell in cells}
    message = "it was not measured"
    try:
        for cell, found in sitting.measure(cells):
            if waiting.pop(cell.cell_id, None) is not None:
                yield cell, found
    except RAISED as error:
        message = describe(error)
    for cell in waiting.values():
        yield cell, Failure(message)
