"""A suite: which models, scorers and datasets are paired. TOML, validated before anything runs."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, model_validator

from harness.base.digests import digest
from harness.base.errors import InputError
from harness.base.toml import Table, parse, read_toml
from harness.data.tables import IdEntry, OodEntry, Part, ShiftEntry

if TYPE_CHECKING:
    from harness.contract.registry import Registry

ALL_SCORERS = "*"
Group = Literal["near", "far", "csid"]
_MODEL_FAMILIES = ("recipe", "timm", "checkpoint")  # `timm = "x"` is short for `name = "timm:x"`
_RESERVED_NAMES = frozenset({"", "id", "near", "far", "csid", "all"})  # ID test, and the leaderboard's groups


def _without_family_key(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    given = [key for key in ("name", *_MODEL_FAMILIES) if key in value]
    if len(given) > 1:
        raise ValueError(f"{' and '.join(given)} name two models. Give each an entry of its own")
    if not given or given == ["name"]:
        return value
    rest = {key: item for key, item in value.items() if key != given[0]}
    return {"name": f"{given[0]}:{value[given[0]]}", **rest}


class ModelEntry(Table):
    """A model, and the seeds of its training."""

    name: str
    label: str | None = None  # its name on the leaderboard
    seeds: Annotated[list[int], Field(min_length=1)] = [0]
    params: dict[str, Any] = {}


class PluginEntry(Table):
    """A scorer or probe with hyperparameters."""

    model_config = ConfigDict(extra="allow", frozen=True)
    name: str

    @property
    def params(self) -> dict[str, Any]:
        """The hyperparameters that differ from the defaults."""
        return dict(self.model_extra or {})


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Protocol = Literal["episodic", "continual", "mixed", "correlated", "separate"]
FEWEST_STREAMS = 5  # that an interval is taken over, where a suite does not say
MIXTURES = ("mixed", "separate")  # the protocols under which adapters meet OOD, in a suite that has some
Protocols = Annotated[list[Protocol], BeforeValidator(_listed), Field(min_length=1)]


class AdapterEntry(PluginEntry):
    """A test-time adapter with hyperparameters, and the protocols that it runs under."""

    protocol: Protocols = ["episodic"]


def _whole(shares: tuple[float, float, float]) -> tuple[float, float, float]:
    if min(shares) < 0 or not math.isclose(sum(shares), 1) or not 0 < shares[2] < 1:
        raise ValueError(
            f"shares {list(shares)} are no mixture. Give those of ID, shifted ID and OOD, which add up to 1, with "
            "some OOD and not only that"
        )
    return shares


Shares = Annotated[tuple[float, float, float], AfterValidator(_whole)]


class AdaptationTable(Table):
    """How adapters meet the shifted sets, and mixtures of ID and OOD: the same for all of them."""

    seeds: Annotated[list[int], Field(min_length=1)] | None = None  # of the streams' order
    batch_size: Annotated[int, Field(gt=0)] | None = None  # None: the suite's
    concentration: Annotated[float, Field(gt=0)] = 0.1  # of the Dirichlet that correlates labels in time
    after: bool = True  # forward each batch once more after its update, for the error after adaptation
    shares: Annotated[list[Shares], Field(min_length=1)] | None = (
        None  # of ID, shifted ID and OOD in a stream
    )
    shifts: list[str] | None = None  # the shifts that streams with OOD come under; None: all that corrupt
    size: Annotated[int, Field(gt=1)] = 2000  # images in a stream with OOD, at most
    refit: Annotated[int, Field(ge=0)] = 0  # training images that scorers are fitted on again, after adapting

    @property
    def closed_seeds(self) -> list[int]:
        """The seeds of streams of shifted ID alone."""
        return [0] if self.seeds is None else self.seeds

    @property
    def open_seeds(self) -> list[int]:
        """The seeds of streams with OOD, over which intervals are taken."""
        return list(range(FEWEST_STREAMS)) if self.seeds is None else self.seeds


class EstimationTable(Table):
    """On which shifted ID validation data the curves of estimators are fitted, and how many images one looks at."""

    corrupt: list[str] | None = None  # None: those that the plugin sets aside for calibration
    severity: list[int] = [1, 2, 3, 4, 5]
    size: Annotated[int, Field(gt=1)] | None = None  # images of a set, at most; None: all
    seed: int = 0  # of what estimators draw


def _named(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


class Suite(Table):
    """All that decides what a run measures."""

    schema_version: Literal[1] = Field(alias="schema")
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")]
    description: str = ""
    verified: bool = True
    batch_size: Annotated[int, Field(gt=0)] = 256
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    fpr: Literal["id", "ood"] = "id"
    scorers: list[Annotated[PluginEntry, BeforeValidator(_named)]] = [PluginEntry(name=ALL_SCORERS)]
    probes: list[Annotated[PluginEntry, BeforeValidator(_named)]] = []
    id: IdEntry
    models: Annotated[list[Annotated[ModelEntry, BeforeValidator(_without_family_key)]], Field(min_length=1)]
    ood: list[OodEntry] = []
    shift: list[ShiftEntry] = []
    adapters: list[Annotated[AdapterEntry, BeforeValidator(_named)]] = []
    adaptation: AdaptationTable = AdaptationTable()
    estimators: list[Annotated[PluginEntry, BeforeValidator(_named)]] = []
    estimation: EstimationTable = EstimationTable()

    @model_validator(mode="after")
    def _something_is_measured(self) -> Suite:
        for name in ("scorers", "ood"):
            if not getattr(self, name) and not self.probes and not self.adapters and not self.estimators:
                raise ValueError(
                    f"there are no {name}, and no probes, adapters or estimators either. Name some"
                )
        return self

    @model_validator(mode="after")
    def _adapters_meet_something(self) -> Suite:
        asked = {protocol for entry in self.adapters for protocol in entry.protocol}
        if "separate" in asked and not self.detects_adapted:
            raise ValueError(
                "an adapter under 'separate' meets OOD. Name scorers and [[ood]], or another protocol"
            )
        if asked - set(self.open_protocols) and not self.shift:
            raise ValueError("adapters adapt to shifted ID, and there is no [[shift]]. Name some")
        corrupting = any(entry.corrupts_id for entry in self.shift)
        if set(self.open_protocols) & asked and any(csid for _, csid, _ in self.mixtures) and not corrupting:
            raise ValueError(
                "adaptation.shares want shifted ID, and there is no [[shift]] that corrupts ID test, as OOD beside it "
                "must carry the same shift. Name one, or give shares without"
            )
        return self

    @property
    def detects_adapted(self) -> bool:
        """Whether scorers are to tell ID from OOD while a model adapts to both."""
        return bool(self.scorers and any(entry.role == "test" for entry in self.ood))

    @property
    def open_protocols(self) -> tuple[str, ...]:
        """The protocols under which an adapter's stream holds OOD."""
        return MIXTURES if self.detects_adapted else ()

    @property
    def mixtures(self) -> list[tuple[float, float, float]]:
        """The shares of ID, shifted ID and OOD; if none are given, half OOD, and ID shifted where there are shifts."""
        corrupting = any(entry.corrupts_id for entry in self.shift)
        return self.adaptation.shares or [(0.0, 0.5, 0.5) if corrupting else (0.5, 0.0, 0.5)]

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
        adaptation = {"size": min(self.adaptation.size, max(limit, 2))}
        return self.model_copy(
            update={
                "adaptation": self.adaptation.model_copy(update=adaptation),
                "id": self.id.model_copy(update=id_limits),
                "ood": [e.model_copy(update={"limit": _least(e.limit, limit)}) for e in self.ood],
                "shift": [e.model_copy(update={"limit": _least(e.limit, limit)}) for e in self.shift],
            }
        )

    @property
    def digest(self) -> str:
        """What decides whether two records may be ranked together: the data and how it is read, not who competes."""
        data = self.model_dump(mode="json", include={"name", "batch_size", "dtype", "id", "ood", "shift"})
        return digest("suite", data)


def load_suite(name_or_path: str, registry: Registry) -> Suite:
    """Load a suite by the name that a plugin gave it, or from a TOML file.

    Raises:
        HarnessError: no such suite, a file that is no TOML, or an unknown or wrong key, each in one line.

    """
    path = registry.path("suite", name_or_path)
    return parse_suite(read_toml(path, "suite"), source=path.name)


def parse_suite(content: dict[str, Any], *, source: str) -> Suite:
    """Validate a suite's content; the first fault becomes one line that names the place and the fix."""
    parts = {name: table.keys() for name, table in _TABLES.items()}
    return parse(
        Suite, content, source=source, parts={**parts, "models": [*parts["models"], *_MODEL_FAMILIES]}
    )


_TABLES: dict[str, type[Table]] = {
    "id": IdEntry,
    "models": ModelEntry,
    "ood": OodEntry,
    "shift": ShiftEntry,
    "adaptation": AdaptationTable,
    "estimation": EstimationTable,
    "train": Part,
    "validation": Part,
    "test": Part,
}


def _least(current: int | None, limit: int) -> int:
    return limit if current is None else min(current, limit)
