"""A suite, resolved against the installed plugins: its models, its sets, and its methods."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from harness.base import digests
from harness.base.errors import HarnessError, InputError, unknown_name
from harness.base.names import fault_of_name, made_name
from harness.base.strangers import RAISED
from harness.contract.isolated import try_to_build
from harness.contract.parameters import offer_taking
from harness.contract.specs import ModelRequest
from harness.data.classes import read_class_map
from harness.data.naming import explained, full_name
from harness.data.sets import set_entries
from harness.reports.record import SEPARATE, SOURCE, title_of_model

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from harness.contract.isolated import Isolation
    from harness.contract.registry import Offered, Registry
    from harness.data.sets import SetEntry
    from harness.engine.suite import ModelEntry, PluginEntry, Suite
    from harness.models.stated import StatedPreprocessing


SEED = "{seed}"  # in a model's name: its seed


@dataclass(frozen=True)
class Planned:
    """An offer of a plugin (a scorer, a probe, an adapter, ...) with its hyperparameters."""

    label: str
    offered: Offered
    params: Mapping[str, object]

    @property
    def needs(self) -> frozenset[str]:
        """Its needs of the model and the data."""
        return frozenset(self.offered.spec.needs)

    @property
    def title(self) -> str:
        """Its unique name among its kind: two of one title would share their rows."""
        return self.label


@dataclass(frozen=True)
class PlannedModel:
    """A model with one seed."""

    label: str
    offered: Offered
    name: str  # as the suite writes it
    seed: int
    params: Mapping[str, object]
    class_map: Mapping[str, str] | None = None  # its class for each class of the data
    preprocessing: StatedPreprocessing | None = None  # what the suite states
    folder: Path | None = None  # of the suite's file
    epoch: int | None = None  # the weights after this epoch of its training; None: those that it ends with

    @property
    def title(self) -> str:
        """Its unique name among the models."""
        return title_of_model(self.label, self.seed)


@dataclass(frozen=True)
class Plan:
    """Everything that a run will do."""

    suite: Suite
    registry: Registry
    models: tuple[PlannedModel, ...]
    sets: tuple[SetEntry, ...]
    workers: Mapping[str, tuple[Planned, ...]]  # scorers, probes, adapters, ... by their key in a suite
    limit: int | None = None
    folder: Path | None = None  # of the suite's file: relative paths start there
    part: Mapping[str, Sequence[str]] = field(
        default_factory=dict
    )  # the names that it was narrowed to, by key

    @property
    def folder_name(self) -> str:
        """The name of the run's folder in results/; a limited run has another."""
        return self.suite.name if self.limit is None else f"{self.suite.name}-limit-{self.limit}"

    def named(self, key: str) -> tuple[Planned, ...]:
        """Return the entries of the suite under a key."""
        return self.workers.get(key, ())

    def narrowed(self, **chosen: Sequence[str]) -> Plan:
        """Return the plan with some of its models or workers alone, by key: `models=["net"]`, `scorers=["gen"]`.

        A model is named by its label, and keeps all its seeds; a worker by its label, or by its plugin's name, which
        keeps it with any parameters. An empty list narrows nothing.

        Raises UnknownNameError for a name that the suite does not have.
        """
        found = self
        for key, names in ((key, names) for key, names in chosen.items() if names):
            every = self.models if key == "models" else self.workers[key]
            for name in names:
                if not any(name in _names_of(one) for one in every):
                    valid = dict.fromkeys(one.label for one in every)
                    raise unknown_name(key.removesuffix("s"), name, valid, valid_label="In this suite")
            kept: Any = tuple(one for one in every if not _names_of(one).isdisjoint(names))
            part = {**found.part, key: list(dict.fromkeys(one.label for one in kept))}
            if key == "models":
                found = replace(found, models=kept, part=part)
            else:
                found = replace(found, workers={**found.workers, key: kept}, part=part)
        return found

    def kept_epochs(self, model: PlannedModel) -> Sequence[int]:
        """Return the epochs of the model's training whose weights can be loaded, in order; none for most models.

        Raises HarnessError for a model whose training cannot be read.
        """
        epochs = model.offered.spec.epochs
        if epochs is None:
            return ()
        argument = model.name.partition(":")[2]
        request = ModelRequest(model.name, argument, model.seed, catalogue=self.registry, folder=model.folder)
        kept: Sequence[int] = epochs(request, **model.params)
        return kept

    def cell_id(
        self, model: PlannedModel, *, what: str, on: str, adapter: str = SOURCE, protocol: str = SEPARATE
    ) -> str:
        """Digest the place of a number: `what` is measured, of a model, on a set, under an adapter and protocol."""
        return digests.cell_id(
            suite=self.suite.name,
            model=model.label,
            seed=model.seed,
            adapter=adapter,
            protocol=protocol,
            scorer=what,
            id_name=self.suite.id.dataset,
            ood=on,
        )


def make_plan(
    suite: Suite,
    registry: Registry,
    workers: Mapping[str, Iterable[Planned]],
    *,
    limit: int | None = None,
    folder: Path | None = None,
) -> Plan:
    """Resolve every name and parameter of a suite before anything runs; `folder` is that of its file.

    Raises UnknownNameError for an unknown model, dataset or parameter, InputError for two entries of one name.
    """
    suite = suite.limited(limit)
    sets = set_entries(suite.ood, suite.shift, registry)
    for dataset, params in [*suite.id.datasets, *((e.dataset, e.params) for e in sets)]:
        name = full_name(dataset, registry, folder)
        try:
            offer_taking(registry, "dataset", name, params)
        except HarnessError as error:
            raise explained(error, dataset, name) from None
    models = tuple(_model(entry, seed, registry, folder) for entry in suite.models for seed in entry.seeds)
    resolved = {key: tuple(of_key) for key, of_key in workers.items()}
    _require_distinct("models", models)
    for key, of_key in resolved.items():
        _require_distinct(key, of_key)
    return Plan(suite, registry, models, tuple(sets), resolved, limit, folder)


def taken(
    kind: str, entry: PluginEntry, registry: Registry, isolation: Isolation
) -> tuple[str, Offered, Mapping[str, object]]:
    """Resolve an entry of a suite: its label, the plugin's offer, and its parameters, with which it can be built.

    Raises UnknownNameError for an unknown name or parameter, InputError for a value that the plugin refuses.
    """
    name, params = entry.name, entry.params
    offered = offer_taking(registry, kind, name, params)
    if params:
        try:
            try_to_build(offered, params, isolation)
        except RAISED as error:
            given = ", ".join(f"{key}={value!r}" for key, value in params.items())
            raise InputError(f"the {kind} {name!r} does not take {given}: {error}") from error
    return _with_params(name, params), offered, params


def _model(entry: ModelEntry, seed: int, registry: Registry, folder: Path | None) -> PlannedModel:
    """Plan a model with one seed. `{seed}` in its name stands for the seed, as in `checkpoint:net-{seed}`."""
    offered = offer_taking(registry, "model", entry.name, entry.params)
    family, _, argument = entry.name.partition(":")
    if offered.spec.takes == "folder" and len(entry.seeds) > 1 and SEED not in argument:
        raise InputError(
            f"the model {entry.name!r} is one folder for {len(entry.seeds)} seeds, so one network would count "
            f"{len(entry.seeds)} times. Write {SEED} in its path, as in {family}:net-{SEED}, or name one seed"
        )
    label = entry.label or _with_params(PurePath(argument).name or family, entry.params)
    name = entry.name.replace(SEED, str(seed))
    class_map = read_class_map(entry.class_map, folder) if entry.class_map is not None else None
    return PlannedModel(label, offered, name, seed, entry.params, class_map, entry.preprocessing, folder)


def _names_of(one: Planned | PlannedModel) -> set[str]:
    """Return the names by which a user may choose a model or a worker of a suite."""
    return {one.label} if isinstance(one, PlannedModel) else {one.label, one.offered.spec.name}


def _with_params(label: str, params: Mapping[str, object]) -> str:
    given = ", ".join(f"{key}={value}" for key, value in sorted(params.items()))
    return made_name(f"{label}({given})" if given else label)


def _require_distinct(key: str, planned: Sequence[Planned | PlannedModel]) -> None:
    for one in planned:
        if fault := fault_of_name(one.label):
            raise InputError(f"{key}: {one.label!r} is no name: {fault}. Or give it a label")
    for title, count in Counter(one.title for one in planned).items():
        if count > 1:
            raise InputError(f"two {key} are both {title!r}. Give one another label, seed or parameter")
