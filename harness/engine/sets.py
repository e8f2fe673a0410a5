"""A suite's sets, opened once for all models."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from harness.base.errors import unknown_name
from harness.data.opening import open_id, open_set
from harness.data.streams import Stream
from harness.engine.guard import Failure, attempt
from harness.reports.record import ID

if TYPE_CHECKING:
    from harness.contract.selection import Selection
    from harness.data.opening import IdData
    from harness.engine.plan import Plan


logger = logging.getLogger("ood_harness")


@dataclass(frozen=True, eq=False)
class OpenSets:
    """The ID parts and the test sets of a plan, each opened at its first use."""

    plan: Plan
    _found: dict[str, Stream | Failure] = field(default_factory=dict)

    @cached_property
    def id_data(self) -> IdData:
        """The ID parts. Raises DatasetError if they cannot be opened: then nothing can be measured."""
        return open_id(self.plan.suite.id, self.plan.registry)

    def found(self, name: str) -> Stream | Failure:
        """Return ID test or a set by name. If a set cannot be opened, its cells fail and the others go on."""
        if name not in self._found:
            self._found[name] = found = attempt(self._open, name)
            if isinstance(found, Failure):
                logger.warning("set %s: %s", name, found.message)
        return self._found[name]

    def failure(self, name: str) -> Failure | None:
        """Return the reason why a set could not be opened, if that was tried."""
        found = self._found.get(name)
        return found if isinstance(found, Failure) else None

    def stream(self, name: str) -> Stream:
        """Return one set. Raises HarnessError if it could not be opened."""
        found = self.found(name)
        if isinstance(found, Failure):
            raise found.error()
        return found

    def selection(self, name: str) -> Selection:
        """Return the samples of one set. Raises HarnessError if it could not be opened."""
        return self.stream(name).parts[0]

    def digests(self) -> dict[str, str]:
        """Digest every part and set that could be opened, by name, for run.json."""
        found = {f"id.{name}": part.digest for name, part in self.id_data.parts.items()}
        streams = {name: self.found(name) for name in (ID, *(entry.name for entry in self.plan.sets))}
        return found | {name: s.parts[0].digest for name, s in streams.items() if isinstance(s, Stream)}

    def _open(self, name: str) -> Stream:
        selection = self.id_data.test
        if name != ID:
            entries = {entry.name: entry for entry in self.plan.sets}
            if name not in entries:
                raise unknown_name("set", name, entries, valid_label="In the suite")
            selection = open_set(entries[name], self.id_data, self.plan.registry)
        return Stream.of(selection, batch_size=self.plan.suite.batch_size)
