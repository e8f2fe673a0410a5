"""A suite: which models and datasets are evaluated, and by what. TOML, validated before anything runs.

The core of a suite is its data and its models. The other keys, which name scorers, adapters and the like, are sections
that the kinds of evaluation bring along.
"""

from __future__ import annotations

import contextlib
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from pydantic import BeforeValidator, ConfigDict, Field, create_model, model_validator

from harness.base.digests import digest
from harness.base.errors import InputError, PluginError
from harness.base.toml import Table, parse, read_toml
from harness.data.tables import IdEntry, OodEntry, Part, ShiftEntry

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from harness.contract.protocols import Catalogue

_RESERVED_NAMES = frozenset({"", "id", "near", "far", "csid", "all"})  # ID test, and the leaderboard's groups


class ModelEntry(Table):
    """A model, and the seeds of its training."""

    name: str
    label: str | None = None  # its name on the leaderboard
    seeds: Annotated[list[int], Field(min_length=1)] = [0]
    params: dict[str, Any] = {}


class PluginEntry(Table):
    """Something that a plugin offers, by name, with hyperparameters."""

    model_config = ConfigDict(extra="allow", frozen=True)
    name: str

    @property
    def params(self) -> dict[str, Any]:
        """The hyperparameters that differ from the defaults."""
        return dict(self.model_extra or {})


def _named(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


Named = BeforeValidator(_named)  # `"gen"` is short for `{ name = "gen" }`
PluginEntries = list[Annotated[PluginEntry, Named]]


class Section(Table):
    """The keys of a suite that one kind of evaluation brings along, each with a default."""

    @classmethod
    def tables(cls) -> dict[str, type[Table]]:
        """Return the section's tables by key, so that a misspelt key within one is answered with the valid ones."""
        return {}

    @classmethod
    def at_most(cls, suite: Suite, limit: int) -> dict[str, object]:
        """Return the values that differ in a suite of at most `limit` samples of every dataset."""
        return {}


AnySection = TypeVar("AnySection", bound=Section)


class Suite(Table):
    """All that decides what a run measures."""

    schema_version: Literal[1] = Field(alias="schema")
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")]
    description: str = ""
    verified: bool = True
    batch_size: Annotated[int, Field(gt=0)] = 256
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    fpr: Literal["id", "ood"] = "id"
    id: IdEntry
    models: Annotated[list[ModelEntry], Field(min_length=1)]
    ood: list[OodEntry] = []
    shift: list[ShiftEntry] = []

    def section(self, kind: type[AnySection]) -> AnySection:
        """Return the suite as one of its sections. Raises InputError if it was read without that section."""
        if not isinstance(self, kind):
            raise InputError(f"the suite {self.name!r} was read without {', '.join(kind.keys())}")
        return self

    @model_validator(mode="after")
    def _names_are_distinct(self) -> Suite:
        names = [entry.name for entry in self.ood] + [entry.name for entry in self.shift if entry.name]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"two datasets are named {name!r}. Give each its own name")
            if name in _RESERVED_NAMES:
                raise ValueError(f"{name!r} cannot name a dataset. Give it another")
        return self

    def limited(self, limit: int | None) -> Suite:
        """Return the suite with at most `limit` samples of every dataset, for a quick look."""
        if limit is None:
            return self
        if limit < 1:
            raise InputError(f"--limit {limit} leaves no samples. Give 1 or more")
        parts = {part: getattr(self.id, part) for part in ("train", "validation", "test")}
        id_limits = {
            part: value.model_copy(update={"limit": _least(value.limit, limit)})
            for part, value in parts.items()
            if value is not None
        }
        update: dict[str, object] = {
            "id": self.id.model_copy(update=id_limits),
            "ood": [e.model_copy(update={"limit": _least(e.limit, limit)}) for e in self.ood],
            "shift": [e.model_copy(update={"limit": _least(e.limit, limit)}) for e in self.shift],
        }
        for base in type(self).__bases__:
            if issubclass(base, Section):
                update |= base.at_most(self, limit)
        return self.model_copy(update=update)

    @property
    def digest(self) -> str:
        """What decides whether two records may be ranked together: the data and how it is read, not who competes."""
        data = self.model_dump(mode="json", include={"name", "batch_size", "dtype", "id", "ood", "shift"})
        return digest("suite", data)


def load_suite(name_or_path: str, catalogue: Catalogue, sections: Sequence[type[Section]]) -> Suite:
    """Load a suite by the name that a plugin gave it, or from a TOML file.

    Raises:
        HarnessError: no such suite, a file that is no TOML, or an unknown or wrong key, each in one line.

    """
    path = catalogue.path("suite", name_or_path)
    return parse_suite(read_toml(path, "suite"), catalogue, sections, source=path.name)


def load_id(name_or_path: str, catalogue: Catalogue) -> IdEntry:
    """Load the [id] of a suite alone: the data that models are trained on. Raises as load_suite does."""
    path = catalogue.path("suite", name_or_path)
    content = read_toml(path, "suite").get("id", {})
    return parse(IdEntry, content, source=f"{path.name}: [id]", parts=dict.fromkeys(_PARTS, Part.keys()))


def parse_suite(
    content: Mapping[str, Any], catalogue: Catalogue, sections: Sequence[type[Section]], *, source: str
) -> Suite:
    """Validate a suite's content; the first fault becomes one line that names the place and the fix."""
    families = _families(catalogue)
    tables = _TABLES | {key: table for section in sections for key, table in section.tables().items()}
    parts = {name: table.keys() for name, table in tables.items()}
    parts["models"] += families
    spelt = dict(content)
    if isinstance(models := spelt.get("models"), list):
        spelt["models"] = [_without_family_key(entry, families, source) for entry in models]
    return parse(_with(tuple(sections)), spelt, source=source, parts=parts)


@cache
def _with(sections: tuple[type[Section], ...]) -> type[Suite]:
    """Put the sections of a suite together."""
    create: Any = create_model  # whose overloads know no tuple of bases
    found: type[Suite] = create("Suite", __base__=(Suite, *sections))
    return found


def _families(catalogue: Catalogue) -> list[str]:
    """List the families of models, whose names may be keys: `timm = "x"` is short for `name = "timm:x"`."""
    found = []
    for name in catalogue.names("model"):
        with contextlib.suppress(PluginError):  # two plugins offer it: naming it is an error of its own
            if catalogue.get("model", name).spec.argument:
                found.append(name)
    return found


def _without_family_key(entry: Any, families: Sequence[str], source: str) -> Any:
    if not isinstance(entry, dict):
        return entry
    given = [key for key in ("name", *families) if key in entry]
    if len(given) > 1:
        names = " and ".join(given)
        raise InputError(f"{source}: at models: {names} name two models. Give each an entry of its own")
    if not given or given == ["name"]:
        return entry
    rest = {key: item for key, item in entry.items() if key != given[0]}
    return {"name": f"{given[0]}:{entry[given[0]]}", **rest}


_PARTS = ("train", "validation", "test")
_TABLES: dict[str, type[Table]] = {
    "id": IdEntry,
    "models": ModelEntry,
    "ood": OodEntry,
    "shift": ShiftEntry,
    **dict.fromkeys(_PARTS, Part),
}


def _least(current: int | None, limit: int) -> int:
    return limit if current is None else min(current, limit)
