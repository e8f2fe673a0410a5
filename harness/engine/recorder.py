"""Writes what a run finds as records: every one says what was paired, on which data, by which code."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from harness.data.streams import Stream
from harness.engine.guard import Failure
from harness.reports.record import ID, SEPARATE, SOURCE, Record

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from harness.engine.evaluation import Cell, Measured, NotApplicable
    from harness.engine.plan import Plan
    from harness.engine.sets import OpenSets
    from harness.reports.records import RunFolder


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

    def count(self, done: int, *, is_counted: bool) -> None:
        """Count cells that the folder holds already."""
        self.cells += done if is_counted else 0

    def skip(self, cell: Cell, why: NotApplicable) -> None:
        """List a cell as not applicable, and forget an error that was recorded when nobody could know that."""
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
        """Record what was found for a cell.

        A failure without a key (its model or set could not be opened) does not replace a number that the folder holds
        already: it is only counted.
        """
        is_failure = isinstance(found, Failure)
        if is_counted:
            self.cells, self.measured = self.cells + 1, self.measured + 1
            self.failed += is_failure
        known = self.folder.records.get(cell.cell_id)
        if is_failure and not key and known is not None and known.error is None:
            return
        says = {**found.says, "error": found.message} if isinstance(found, Failure) else found.says
        record = Record.of({**self._common(cell, key), **cell.head, **says})
        self.folder.append(record)
        self.notify(record)

    def _common(self, cell: Cell, key: str) -> dict[str, Any]:
        """Return what every record says."""
        suite, name, offered = self.plan.suite, cell.on, (cell.worker or cell.model).offered
        stream = self.sets.streams.get(name)
        part = stream.parts[0] if isinstance(stream, Stream) and name != ID else None
        return {
            "suite": suite.name,
            "suite_digest": suite.digest,
            "model": cell.model.label,
            "adapter": SOURCE,
            "protocol": SEPARATE,
            "scorer": None,
            "params": dict((cell.worker or cell.model).params),
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
            "metrics": {},
            "scores": None,
            "flags": [],
            "error": None,
            "cell_id": cell.cell_id,
            "code_id": key,
            "plugin": offered.plugin,
            "plugin_version": offered.version,
        }
