"""Writes the results of a run as records: each names what was paired, on which data, by which code."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from harness.base.errors import describe
from harness.data.sets import CALIBRATION
from harness.engine.guard import Failure
from harness.reports.record import ID, SEEN, SOURCE, UNSTABLE, Record

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from harness.engine.evaluation import Cell, Measured, NotApplicable
    from harness.engine.plan import Plan
    from harness.engine.sets import OpenSets
    from harness.reports.run_folder import RunFolder

logger = logging.getLogger("ood_harness")


@dataclass
class Recorder:
    """Appends records to a run's folder, passes them on to plugins that follow the run, and counts."""

    plan: Plan
    sets: OpenSets
    folder: RunFolder
    notify: Callable[[Record], None]
    cells: int = 0
    measured: int = 0
    failed: int = 0
    not_applicable: list[Mapping[str, object]] = field(default_factory=list)
    seen: set[str] = field(default_factory=set)  # titles of models that were trained on the validation part
    _warned: set[tuple[str, str]] = field(default_factory=set)

    def count(self, done: int, *, is_counted: bool) -> None:
        """Count cells that the folder holds already."""
        self.cells += done if is_counted else 0

    def skip(self, cell: Cell, why: NotApplicable) -> None:
        """List a cell as not applicable, and forget the error of an earlier run in which its model did not load."""
        entry = {
            "model": cell.model.label,
            "seed": cell.model.seed,
            **why.place,
            "missing": list(why.missing),
        }
        if why.place and entry not in self.not_applicable:
            self.not_applicable.append(entry)
        self.folder.forget_error(cell.cell_id)

    def write(self, cell: Cell, key: str, found: Measured | Failure, *, is_counted: bool = True) -> None:
        """Record the result of a cell.

        A failure without a key (its model or set could not be opened) does not replace a number that the folder holds
        already: it is only counted.
        """
        record = self._record(cell, key, found)
        is_failure = record.error is not None
        if is_counted:
            self.cells, self.measured = self.cells + 1, self.measured + 1
            self.failed += is_failure
        known = self.folder.records.get(cell.cell_id)
        if is_failure and not key and known is not None and known.error is None:
            return
        self.folder.append(record)
        self.notify(record)

    def _record(self, cell: Cell, key: str, found: Measured | Failure) -> Record:
        """Make the record of a result. A result that no record can hold becomes a failure."""
        error = found.message if isinstance(found, Failure) else None
        content = {**self._common(cell, key), **cell.place, **cell.head, **found.content, "error": error}
        if flags := self._flags(cell):
            content["flags"] = [*content.get("flags", ()), *flags]
        try:
            record = Record.of(content)
            record.line()
        except (KeyError, TypeError, ValueError, RecursionError) as fault:
            if isinstance(found, Failure):
                raise
            failure = Failure(f"no record can hold its result: {describe(fault)}")
            self.warn(cell, failure)
            return self._record(cell, key, failure)
        return record

    def warn(self, cell: Cell, failure: Failure) -> None:
        """Log a failure, once for all sets on which a model and method fail for the same reason."""
        names = [cell.model.title, *([cell.worker.title] if cell.worker else [])]
        if (adapter := cell.place.get("adapter", SOURCE)) != SOURCE and cell.place.get("scorer"):
            names.append(f"adapter {adapter}")
        place = ", ".join(names)
        if (place, failure.message) not in self._warned:
            self._warned.add((place, failure.message))
            logger.warning("%s on %s: %s", place, cell.head.get("ood") or cell.on, failure.message)

    def _flags(self, cell: Cell) -> list[str]:
        """Return what a reader must know of the cell before it is measured."""
        is_unstable = cell.worker is not None and getattr(cell.worker.offered.spec, "unstable", False)
        return [SEEN] * self._is_calibrated_on_seen(cell) + [UNSTABLE] * is_unstable

    def _is_calibrated_on_seen(self, cell: Cell) -> bool:
        """Return whether the cell's numbers rest on validation images that the model was trained on."""
        rests = "validation" in cell.needs or cell.head.get("group") == CALIBRATION
        return rests and cell.model.title in self.seen

    def _common(self, cell: Cell, key: str) -> dict[str, Any]:
        """Return the keys that every record has."""
        suite, name, planned = self.plan.suite, cell.on, cell.worker or cell.model
        part = None if name == ID else self.sets.selection(name)
        return {
            "suite": suite.name,
            "suite_digest": suite.digest,
            "model": cell.model.label,
            "params": dict(planned.params),
            "id": suite.id.dataset,
            "ood": None if name == ID else name,
            "seeds": {
                "model": cell.model.seed,
                "split": suite.id.validation.seed if suite.id.validation else None,
                "fit": None,
                "stream": cell.stream_seed,
                "bootstrap": None,
            },
            "data": {"id": self.sets.id_data.test.digest, "ood": part.digest if part else None},
            "n_id": len(self.sets.id_data.test),
            "n_ood": len(part) if part else None,
            "cell_id": cell.cell_id,
            "code_id": key,
            "plugin": planned.offered.plugin,
            "plugin_version": planned.offered.version,
        }
