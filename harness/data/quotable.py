"""Whether a run's numbers may be quoted as those of a published protocol, from what its datasets state."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.base.errors import shortened
from harness.contract.protocols import Described

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from harness.contract.selection import Selection


def quotable_protocol(selections: Mapping[str, Selection], places: Mapping[str, str]) -> str | None:
    """Name the protocol of ID test, with "original lists", or say what is different; None if ID test states none.

    A run may leave out a group of sets, ID train or ID validation. Each set that it has must be an original one, read
    whole and in its own group, and each of its groups must be complete.

    Args:
        selections: the parts of ID and the sets, by name.
        places: the place of each, by name: "id.train", "id.validation", "id.test", or a group.

    """
    stated = {name: _stated(selection) for name, selection in selections.items()}
    protocol = next((stated[name] for name, place in places.items() if place == "id.test"), {})
    if not protocol:
        return None
    name = protocol["name"]
    own = [
        f"{title}{fault}"
        for title, selection in selections.items()
        if (fault := _fault(selection, stated[title], name, places[title]))
    ]
    used = Counter(found["part"] for found in stated.values() if found)
    twice = [f"{part} is read twice" for part, times in used.items() if times > 1]
    missing = list(_missing(protocol["parts"], used))
    differences = [*own, *twice, *([f"without {shortened(missing)}"] if missing else [])]
    if not differences:
        return f"{name}, original lists"
    return f"own data in the form of {name}: {shortened(differences)}"


def _stated(selection: Selection) -> Mapping[str, Any]:
    facts = selection.dataset.facts if isinstance(selection.dataset, Described) else {}
    stated = facts.get("protocol")
    return stated if isinstance(stated, dict) else {}


def _fault(selection: Selection, stated: Mapping[str, Any], protocol: str, place: str) -> str:
    """Say what keeps one set from being the protocol's; "" if nothing does."""
    if stated.get("name") != protocol or stated["part"].partition("/")[0] != place:
        return f" is not one of its sets for {place}"
    if not stated["original"]:
        return " is not the original list"
    is_whole = np.array_equal(selection.indices, np.arange(len(selection.dataset)))
    if not is_whole or not np.array_equal(selection.labels, selection.dataset.labels):
        return " is read in part"
    return ""


def _missing(parts: Iterable[str], used: Collection[str]) -> Iterator[str]:
    """Yield the parts of the groups that a run has in part."""
    groups = {part.partition("/")[0] for part in used if "/" in part}
    return (part for part in parts if part.partition("/")[0] in groups and part not in used)
