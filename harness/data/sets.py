"""Lists the sets of a suite: OOD, shifted ID, and the shifted validation data that curves are fitted on."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from harness.base.errors import InputError
from harness.contract.registry import names_where

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from harness.contract.protocols import Catalogue
    from harness.data.tables import OodEntry, ShiftEntry

CSID = "csid"
CALIBRATION = "calibration"  # the group of shifted ID validation
CLEAN = "clean"  # the kind of a set that is not shifted


@dataclass(frozen=True)
class SetEntry:
    """One set of samples to score against ID test, as the suite names it."""

    name: str
    group: str  # near, far, csid or calibration
    dataset: str
    split: str | None
    classes: tuple[int | str, ...] | None
    limit: int | None
    revision: str | None
    params: Mapping[str, object]
    shifts_id: bool = False  # made by shifting ID samples
    severity: int | None = None  # of a corruption
    unreadable: str = "error"  # or "skip": images that cannot be read are left out
    restrict: bool = False  # accuracy is over the classes that occur

    @property
    def kind(self) -> str:
        """The kind of its shift, without the severity."""
        return self.name if self.severity is None else self.name.removesuffix(f"-{self.severity}")


def shift_family(catalogue: Catalogue) -> str:
    """Return the installed family of datasets that shift other images. Raises InputError if there is none."""
    families = names_where(catalogue, "dataset", lambda spec: spec.shifts)
    if families:
        return families[0]
    raise InputError(
        "the suite corrupts images, but no installed plugin shifts images. Install one, or name a dataset"
    )


def set_entries(ood: Sequence[OodEntry], shift: Sequence[ShiftEntry], catalogue: Catalogue) -> list[SetEntry]:
    """List a suite's test sets: OOD first, in its order, then shifted ID, one set per corruption and severity."""
    entries = [
        SetEntry(
            name=e.name,
            group=e.group,
            dataset=e.dataset,
            split=e.split,
            classes=tuple(e.classes) if e.classes is not None else None,
            limit=e.limit,
            revision=e.revision,
            params=e.params,
            unreadable=e.unreadable,
        )
        for e in ood
        if e.role == "test"
    ]
    for e in shift:
        entries += _corrupted(e, catalogue)
        if e.name and e.dataset:
            entries.append(_shifted(e, e.name, e.params))
    names = [entry.name for entry in entries]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"two sets are named {name!r}. Give each its own name or severity")
    return entries


def _corrupted(e: ShiftEntry, catalogue: Catalogue) -> Iterator[SetEntry]:
    """Yield a shift's corruptions, one per kind and severity: of ID test, or from the dataset that it names."""
    severities: list[int | None] = [*e.severity] or [None]
    for kind, severity in itertools.product(e.corrupt, severities):
        name = kind if severity is None else f"{kind}-{severity}"
        graded = {} if severity is None else {"severity": severity}
        if e.dataset:
            entry = _shifted(e, name, {**e.params, "corruption": kind, **graded})
        else:
            params = {**e.params, **graded}
            entry = SetEntry(
                name, CSID, f"{shift_family(catalogue)}:{kind}", None, None, e.limit, None, params
            )
        yield replace(entry, shifts_id=e.corrupts_id, severity=severity)


def _shifted(e: ShiftEntry, name: str, params: Mapping[str, object]) -> SetEntry:
    """Return a set of shifted ID that is a dataset of its own."""
    return SetEntry(
        name=name,
        group=CSID,
        dataset=e.dataset or "",
        split=e.split,
        classes=tuple(e.classes) if e.classes is not None else None,
        limit=e.limit,
        revision=e.revision,
        params=params,
        unreadable=e.unreadable,
        restrict=e.restrict,
    )


def calibration_entries(
    kinds: Sequence[str] | None, severities: Sequence[int], catalogue: Catalogue
) -> list[SetEntry]:
    """List the shifts of validation data that curves are fitted on, one per kind and severity.

    Default kinds: those that the family of shifts reserves for calibration.
    """
    family = shift_family(catalogue)
    if kinds is None:
        kinds = catalogue.get("dataset", family).spec.calibration
    return [
        SetEntry(
            name=f"{kind}-{severity}",
            group=CALIBRATION,
            dataset=f"{family}:{kind}",
            split=None,
            classes=None,
            limit=None,
            revision=None,
            params={"severity": severity},
            shifts_id=True,
            severity=severity,
        )
        for kind, severity in itertools.product(kinds, severities)
    ]
