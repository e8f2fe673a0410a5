"""A suite: which models and datasets are evaluated, and by what. TOML, validated before anything runs.

The core of a suite is its data and its models. The other keys, which name scorers, adapters and the like, are sections:
each belongs to one kind of evaluation.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from pydantic import BeforeValidator, ConfigDict, Field, create_model, model_validator

from harness.base.digests import digest
from harness.base.errors import InputError, unknown_name
from harness.base.memory import total_memory
from harness.base.toml import Table, parse
from harness.base.worker import Limits
from harness.contract.bases import read_based
from harness.contract.isolated import Isolation
from harness.contract.parameters import parameters_of
from harness.contract.registry import names_where
from harness.data.tables import IdEntry, Name, OodEntry, Part, Seed, ShiftEntry, Source
from harness.models.stated import StatedPreprocessing

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from harness.contract.protocols import Catalogue

MOST_SEEDS = 1000
_RESERVED_NAMES = frozenset({"", "id", "near", "far", "csid", "all"})  # ID test, and the leaderboard's groups


class ModelEntry(Table):
    """A model, and the seeds of its training."""

    name: Source
    label: Name | None = None  # its name on the leaderboard
    seeds: Annotated[list[Seed], Field(min_length=1, max_length=MOST_SEEDS)] = [0]
    class_map: str | None = None  # a file: the model's class for each class of the data
    params: dict[str, Any] = {}
    preprocessing: StatedPreprocessing | None = None  # in place of the model's own


class PluginEntry(Table):
    """An offer of a plugin by name, with hyperparameters."""

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
    """The keys of a suite that belong to one kind of evaluation, each with a default."""

    @classmethod
    def tables(cls) -> dict[str, type[Table]]:
        """Return the section's tables by key: a message on a misspelt key within one lists the valid keys."""
        annotated = {name: field.annotation for name, field in cls.model_fields.items()}
        return {name: of for name, of in annotated.items() if isinstance(of, type) and issubclass(of, Table)}

    @classmethod
    def at_most(cls, suite: Suite, limit: int) -> dict[str, object]:
        """Return the values that differ in a suite of at most `limit` samples of every dataset."""
        return {}


AnySection = TypeVar("AnySection", bound=Section)


class LimitsTable(Table):
    """Whose methods live in worker processes, and the time and memory of a worker."""

    isolate: Literal["foreign", "all", "none"] = "foreign"
    seconds: Annotated[float, Field(gt=0)] = 3600  # for one call, such as a fit or a chunk of samples
    megabytes: Annotated[float, Field(gt=0)] | None = None  # None: the memory of the machine

    @property
    def isolation(self) -> Isolation:
        """The same for the workbench."""
        return Isolation(self.isolate, Limits(self.seconds, self.megabytes or total_memory() / 1e6))


class Suite(Table):
    """The data, models and methods of a run."""

    schema_version: Literal[1] = Field(alias="schema")
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")]
    description: str = ""
    verified: bool = True
    batch_size: Annotated[int, Field(gt=0)] = 256
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    fpr: Literal["id", "ood"] = "id"
    limits: LimitsTable = LimitsTable()
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

        def shorter(entry: Any) -> Any:
            return entry.model_copy(update={"limit": min(entry.limit or limit, limit)})

        parts = {part: getattr(self.id, part) for part in _PARTS}
        shorter_parts = {part: shorter(value) for part, value in parts.items() if value is not None}
        update: dict[str, object] = {
            "id": self.id.model_copy(update=shorter_parts),
            "ood": [shorter(entry) for entry in self.ood],
            "shift": [shorter(entry) for entry in self.shift],
        }
        for base in type(self).__bases__:
            if issubclass(base, Section):
                update |= base.at_most(self, limit)
        return self.model_copy(update=update)

    @property
    def digest(self) -> str:
        """A digest of the data and how they are read, not of methods: records of one digest are comparable."""
        read = {"name", "batch_size", "dtype", "id", "ood", "shift"}
        data = self.model_dump(mode="json", include=read, exclude_defaults=True)
        return digest("suite", data)


def load_id(name_or_path: str, catalogue: Catalogue) -> IdEntry:
    """Load the [id] of a suite alone: the data that models are trained on. Raises as parse_suite does."""
    path = catalogue.path("suite", name_or_path)
    content = read_based(path, "suite", catalogue, name=name_or_path).get("id", {})
    return parse(IdEntry, content, source=f"{path.name}: [id]", parts=dict.fromkeys(_PARTS, Part.keys()))


def parse_suite(
    content: Mapping[str, Any], catalogue: Catalogue, sections: Sequence[type[Section]], *, source: str
) -> Suite:
    """Validate a suite's content. Raises InputError in one line that names the first fault, its place and the fix."""
    families = names_where(catalogue, "model", lambda spec: bool(spec.argument))
    tables = _TABLES | {key: table for section in sections for key, table in section.tables().items()}
    parts = {name: table.keys() for name, table in tables.items()}
    parts["models"] += families
    spelt = dict(content)
    if isinstance(models := spelt.get("models"), list):
        spelt["models"] = [
            _with_parameters(_without_family_key(one, families, source), catalogue, source)
            for entry in models
            for one in _each(entry, families, source)
        ]
    return parse(_with(tuple(sections)), spelt, source=source, parts=parts)


@cache
def _with(sections: tuple[type[Section], ...]) -> type[Suite]:
    """Make the class of suites with the given sections."""
    create: Any = create_model  # whose overloads know no tuple of bases
    found: type[Suite] = create("Suite", __base__=(Suite, *sections))
    return found


def _each(entry: Any, families: Sequence[str], source: str) -> list[Any]:
    """Split an entry that names several models, `timm = ["a", "b"]`, into one for each; other keys are of all."""
    lists = [
        key for key in ("name", *families) if isinstance(entry, dict) and isinstance(entry.get(key), list)
    ]
    if not lists:
        return [entry]
    key = lists[0]
    if not entry[key]:
        raise InputError(f"{source}: at models: {key} = [] names no model. Name one or more")
    if len(entry[key]) > 1 and "label" in entry:
        raise InputError(
            f"{source}: at models: the label {entry['label']!r} is for {len(entry[key])} models. Leave it out, or give "
            "each model an entry of its own"
        )
    return [{**entry, key: name} for name in entry[key]]


def _without_family_key(entry: Any, families: Sequence[str], source: str) -> Any:
    """Write an entry's name in full: a family of models may be a key, `family = "x"` for `name = "family:x"`."""
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


def _with_parameters(entry: Any, catalogue: Catalogue, source: str) -> Any:
    """Move a model's own parameters among its params: `head = "fc"` for `params = { head = "fc" }`."""
    if not isinstance(entry, dict) or not isinstance(entry.get("params", {}), dict):
        return entry
    unknown = entry.keys() - ModelEntry.keys()
    taken = unknown and parameters_of(catalogue, "model", str(entry.get("name")))
    own = {key: entry[key] for key in entry if key in unknown and key in taken}
    rest = {key: item for key, item in entry.items() if key not in own}
    if taken and (wrong := sorted(unknown - own.keys())):
        raise InputError(
            f"{source}: at models: {unknown_name('key', wrong[0], [*ModelEntry.keys(), *taken], valid_label='Valid')}"
        )
    return rest | {"params": own | entry.get("params", {})} if own else entry


_PARTS = ("train", "validation", "test")
_TABLES: dict[str, type[Table]] = {
    "id": IdEntry,
    "limits": LimitsTable,
    "models": ModelEntry,
    "preprocessing": StatedPreprocessing,
    "ood": OodEntry,
    "shift": ShiftEntry,
    **dict.fromkeys(_PARTS, Part),
}
