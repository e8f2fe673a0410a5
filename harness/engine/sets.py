"""A suite's sets, opened once for all models."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from harness.data.opening import open_id, open_set
from harness.data.streams import Stream
from harness.engine.guard import Failure, describe, raised
from harness.reports.record import ID

if TYPE_CHECKING:
    from harness.contract.selection import Selection
    from harness.data.opening import IdData
    from harness.engine.plan import Plan

logger = logging.getLogger("ood_harness")


@dataclass(frozen=True, eq=False)
class OpenSets:
    """The ID parts and the test sets of a plan, opened when they are first asked for."""

    plan: Plan

    @cached_property
    def id_data(self) -> IdData:
        """The ID parts. Raises DatasetError if they cannot be opened: then nothing can be measured."""
        return open_id(self.plan.suite.id, self.plan.registry)

    @cached_property
    def streams(self) -> dict[str, Stream | Failure]:
        """ID test and every set by name. If a set cannot be opened, its cells fail and the others go on."""
        batch_size = self.plan.suite.batch_size
        streams: dict[str, Stream | Failure] = {ID: Stream.of(self.id_data.test, batch_size=batch_size)}
        for entry in self.plan.sets:
            try:
                opened = open_set(entry, self.id_data, self.plan.registry)
                streams[entry.name] = Stream.of(opened, batch_size=batch_size)
            except Exception as error:  # a stranger's dataset may raise anything
                logger.warning("set %s: %s", entry.name, describe(error))
                streams[entry.name] = Failure(describe(error))
        return streams

    def stream(self, name: str) -> Stream:
        """Return one set. Raises HarnessError if it could not be opened."""
        found = self.streams[name]
        if isinstance(found, Failure):
            raise raised(found)
        return found

    def selection(self, name: str) -> Selection:
        """Return the samples of one set. Raises HarnessError if it could not be opened."""
        return self.stream(name).parts[0]

    def digest(self, name: str) -> str | None:
        """Digest the content of one set; None if it could not be opened."""
        found = self.streams[name]
        return found.parts[0].digest if isinstance(found, Stream) else None

    def digests(self) -> dict[str, str]:
        """Digest every part and set that could be opened, by name, for run.json."""
        parts = {"id.train": self.id_data.train, "id.validation": self.id_data.validation}
        found = {name: part.digest for name, part in parts.items() if part is not None}
        return found | {name: s.parts[0].digest for name, s in self.streams.items() if isinstance(s, Stream)}
