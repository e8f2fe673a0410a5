"""A suite's sets, opened once for all models."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from harness.base.errors import DatasetError, HarnessError, one_line, unknown_name
from harness.contract.protocols import Described
from harness.contract.scores import as_facts
from harness.data.opening import open_id, open_set
from harness.data.quotable import quotable_protocol
from harness.data.streams import Stream
from harness.reports.record import ID

if TYPE_CHECKING:
    from collections.abc import Mapping

    from harness.contract.selection import Selection
    from harness.data.id_data import IdData
    from harness.engine.plan import Plan


@dataclass(frozen=True, eq=False)
class OpenSets:
    """The ID parts and the test sets of a plan, each opened at its first use."""

    plan: Plan
    _found: dict[str, Stream] = field(default_factory=dict)

    @cached_property
    def id_data(self) -> IdData:
        """The ID parts. Raises DatasetError if they cannot be opened."""
        return open_id(self.plan.suite.id, self.plan.registry, folder=self.plan.folder)

    def stream(self, name: str) -> Stream:
        """Return ID test or a set by name. Raises HarnessError if it cannot be opened."""
        if name not in self._found:
            self._found[name] = Stream.of(self._open(name), batch_size=self.plan.suite.batch_size)
        return self._found[name]

    def selection(self, name: str) -> Selection:
        """Return the samples of one set. Raises HarnessError if it cannot be opened."""
        return self.stream(name).parts[0]

    def all(self) -> dict[str, Selection]:
        """Open every part and set, by name: id.train, id.validation, id and the sets. Raises as `selection` does."""
        parts = {f"id.{name}": part for name, part in self.id_data.parts.items()}
        return parts | {
            name: self.selection(name) for name in (ID, *(entry.name for entry in self.plan.sets))
        }

    def digests(self) -> dict[str, str]:
        """Digest every part and set, by name, for run.json."""
        return {name: selection.digest for name, selection in self.all().items()}

    def facts(self) -> dict[str, Mapping[str, Any]]:
        """Gather what datasets tell about themselves and which images were left out, by part or set, for run.json."""
        return {
            name: facts for name, selection in self.all().items() if (facts := _facts_of(name, selection))
        }

    def protocol(self) -> str | None:
        """Name the published protocol that a reader may quote, for run.json; None if the data state none."""
        places = {ID: "id.test"} | {entry.name: entry.group for entry in self.plan.sets}
        found = self.all()
        return quotable_protocol(found, {name: places.get(name, name) for name in found})

    def overlaps(self) -> dict[str, int]:
        """Count the images that two parts of ID share, and those that a set shares with ID, by content.

        Sets that are made from ID test are left out. Raises DatasetError if two ID parts share too many.
        """
        found = self.id_data.check_disjoint()
        for name, selection in self._own_sets().items():
            if self.id_data.is_comparable(selection):
                found |= self.id_data.shared_with(name, selection)
        return found

    def uncompared(self) -> list[str]:
        """Name the sets whose images are too many to compare with those of ID."""
        return [name for name, of in self._own_sets().items() if not self.id_data.is_comparable(of)]

    def _own_sets(self) -> dict[str, Selection]:
        """Return the sets that are not made from ID test, by name."""
        return {e.name: self.selection(e.name) for e in self.plan.sets if not e.shifts_id}

    def _open(self, name: str) -> Selection:
        if name == ID:
            return self.id_data.test
        entries = {entry.name: entry for entry in self.plan.sets}
        if name not in entries:
            raise unknown_name("set", name, entries, valid_label="In the suite")
        try:
            return open_set(entries[name], self.id_data, self.plan.registry, folder=self.plan.folder)
        except HarnessError as error:
            raise type(error)(f"set {name}: {error}") from error


def _facts_of(name: str, selection: Selection) -> dict[str, Any]:
    dataset = selection.dataset
    try:
        facts = as_facts(dataset.facts) if isinstance(dataset, Described) else {}
    except ValueError as error:
        raise DatasetError(f"{name}: its facts cannot be written as JSON: {one_line(error)}") from None
    return facts | ({"unreadable": list(selection.skipped)} if selection.skipped else {})
