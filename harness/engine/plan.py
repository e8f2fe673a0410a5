"""What a suite asks for, resolved against what is installed: models, scorers, sets, and the cells they make."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING

from harness.base import digests
from harness.base.errors import InputError, PluginError, unknown_name
from harness.base.signatures import checked_parameters
from harness.data.mixtures import Mixture
from harness.data.opening import CORRUPT, CSID, SetEntry, calibration_entries, set_entries
from harness.engine.suite import ALL_SCORERS
from harness.reports.records import SEPARATE, SOURCE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from harness.contract.registry import Offered, Registry
    from harness.engine.suite import ModelEntry, PluginEntry, Suite


@dataclass(frozen=True)
class Planned:
    """What a plugin offers, with its hyperparameters."""

    label: str
    offered: Offered
    params: Mapping[str, object]

    @property
    def needs(self) -> frozenset[str]:
        """What it needs of a model and of data."""
        return frozenset(self.offered.spec.needs)


@dataclass(frozen=True)
class PlannedAdapter(Planned):
    """An adapter with its hyperparameters, under one protocol."""

    protocol: str


@dataclass(frozen=True)
class PlannedModel:
    """A model with one seed."""

    label: str
    offered: Offered
    name: str  # as the suite writes it
    seed: int
    params: Mapping[str, object]


@dataclass(frozen=True)
class Plan:
    """Everything that a run will try."""

    suite: Suite
    models: tuple[PlannedModel, ...]
    scorers: tuple[Planned, ...]
    sets: tuple[SetEntry, ...]
    limit: int | None = None
    probes: tuple[Planned, ...] = ()
    adapters: tuple[PlannedAdapter, ...] = ()
    estimators: tuple[Planned, ...] = ()
    calibration: tuple[SetEntry, ...] = ()  # shifts of ID validation, for the estimators' curves

    @property
    def folder_name(self) -> str:
        """The run's folder below results/; a limited run has one of its own."""
        return self.suite.name if self.limit is None else f"{self.suite.name}-limit-{self.limit}"

    @property
    def workers(self) -> tuple[Planned, ...]:
        """Everything that plugins offer and this plan runs."""
        return (*self.scorers, *self.probes, *self.adapters, *self.estimators)

    @property
    def names_of_sets(self) -> list[str]:
        """The sets by name, and the mixtures of them that adapters meet."""
        mixtures = [mixture.name for adapter in self.open_adapters for mixture in self.mixtures(adapter)]
        return list(dict.fromkeys([entry.name for entry in self.sets] + mixtures))

    @property
    def open_adapters(self) -> tuple[PlannedAdapter, ...]:
        """The adapters that meet OOD among ID."""
        return tuple(a for a in self.adapters if a.protocol in self.suite.open_protocols)

    @property
    def closed_adapters(self) -> tuple[PlannedAdapter, ...]:
        """The adapters that meet shifted ID alone."""
        return tuple(a for a in self.adapters if a.protocol not in self.suite.open_protocols)

    def mixtures(self, adapter: PlannedAdapter) -> Iterator[Mixture]:
        """Yield what an adapter meets that meets OOD: each OOD set in all shares under each shift.

        Separate streams are made in the first shares alone.
        """
        named = self.suite.adaptation.shifts
        shifts = [e for e in self.sets if e.shifts_id and (named is None or e.name in named)]
        shares = self.suite.mixtures if adapter.protocol != SEPARATE else self.suite.mixtures[:1]
        for of_parts in shares:
            for ood in (entry for entry in self.sets if entry.group != CSID):
                for shift in shifts if of_parts[1] else [None]:
                    yield Mixture(of_parts, ood, shift)

    def cell_id(
        self, model: PlannedModel, *, what: str, on: str, adapter: str = SOURCE, protocol: str = SEPARATE
    ) -> str:
        """Name the place of a number: `what` is measured of a model, on a set, under an adapter and protocol."""
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


def make_plan(suite: Suite, registry: Registry, *, limit: int | None = None) -> Plan:
    """Resolve every name and parameter of a suite before anything runs.

    Raises:
        UnknownNameError: a model, scorer, dataset or parameter that is not there.
        InputError: two models or scorers that would share a row.

    """
    suite = suite.limited(limit)
    sets = set_entries(suite.ood, suite.shift)
    for dataset, params in [(suite.id.dataset, suite.id.params), *((e.dataset, e.params) for e in sets)]:
        offered = registry.get("dataset", dataset)
        checked_parameters(offered.spec.build, params, owner=f"dataset {dataset}", given=1)
    models = [_model(entry, seed, registry) for entry in suite.models for seed in entry.seeds]
    scorers = [scorer for entry in suite.scorers for scorer in _scorers(entry, registry)]
    probes = [Planned(*_taken("probe", entry, registry)) for entry in suite.probes]
    adapters = [
        PlannedAdapter(*_taken("adapter", entry, registry), protocol)
        for entry in suite.adapters
        for protocol in entry.protocol
    ]
    estimators = [Planned(*_taken("estimator", entry, registry)) for entry in suite.estimators]
    _require_shifts(suite, sets)
    for kind, labels in {
        "adapters": [f"{adapter.label} ({adapter.protocol})" for adapter in adapters],
        "models": [f"{model.label} (seed {model.seed})" for model in models],
        "scorers": [scorer.label for scorer in scorers],
        "probes": [probe.label for probe in probes],
        "estimators": [estimator.label for estimator in estimators],
    }.items():
        _require_distinct(kind, labels)
    return Plan(
        suite,
        tuple(models),
        tuple(scorers),
        tuple(sets),
        limit,
        tuple(probes),
        tuple(adapters),
        tuple(estimators),
        tuple(_calibration(suite, registry)) if estimators else (),
    )


def _require_shifts(suite: Suite, sets: Sequence[SetEntry]) -> None:
    """Refuse to mix under shifts that the suite does not make from ID test."""
    shifts = [entry.name for entry in sets if entry.shifts_id]
    for name in suite.adaptation.shifts or ():
        if name not in shifts:
            raise unknown_name("shift that corrupts", name, shifts, valid_label="In the suite")


def _calibration(suite: Suite, registry: Registry) -> list[SetEntry]:
    """List the shifts of validation data: the suite's, or those that the plugin sets aside."""
    offered = registry.get("dataset", CORRUPT)
    settings = suite.estimation
    entries = calibration_entries(
        offered.spec.calibration if settings.corrupt is None else settings.corrupt, settings.severity
    )
    for entry in entries:
        checked_parameters(offered.spec.build, entry.params, owner=f"dataset {entry.dataset}", given=1)
    return entries


def _model(entry: ModelEntry, seed: int, registry: Registry) -> PlannedModel:
    offered = registry.get("model", entry.name)
    checked_parameters(offered.spec.build, entry.params, owner=f"model {entry.name}", given=1)
    family, _, argument = entry.name.partition(":")
    label = entry.label or PurePath(argument).name or family
    return PlannedModel(_with_params(label, entry.params), offered, entry.name, seed, entry.params)


def _scorers(entry: PluginEntry, registry: Registry) -> Iterator[Planned]:
    if entry.name == ALL_SCORERS:
        for installed in registry.names("scorer"):
            try:
                yield Planned(installed, registry.get("scorer", installed), {})
            except PluginError:
                continue  # two plugins offer it: the registry has reported it among its problems
        return
    yield Planned(*_taken("scorer", entry, registry))


def _taken(kind: str, entry: PluginEntry, registry: Registry) -> tuple[str, Offered, Mapping[str, object]]:
    """Give what an entry is called, the offer that takes its parameters, and these."""
    offered = _taking(kind, entry.name, entry.params, registry)
    return _with_params(entry.name, entry.params), offered, entry.params


def _taking(kind: str, name: str, params: Mapping[str, object], registry: Registry) -> Offered:
    """Find a plugin's offer that takes the parameters."""
    offered = registry.get(kind, name)
    keywords = checked_parameters(offered.spec.build, params, owner=f"{kind} {name}")
    if params:
        try:
            offered.spec.build(**keywords)
        except Exception as error:  # a stranger's builder may raise anything
            given = ", ".join(f"{key}={value!r}" for key, value in params.items())
            raise InputError(f"the {kind} {name!r} does not take {given}: {error}") from error
    return offered


def _with_params(label: str, params: Mapping[str, object]) -> str:
    given = ", ".join(f"{key}={value}" for key, value in sorted(params.items()))
    return f"{label}({given})" if given else label


def _require_distinct(kind: str, labels: list[str]) -> None:
    for label in labels:
        if labels.count(label) > 1:
            raise InputError(f"two {kind} are both {label!r}. Give one another label, seed or parameter")
