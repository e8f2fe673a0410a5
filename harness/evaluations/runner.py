"""Runs a suite: every model × scorer × set into records, and from these the leaderboard.

One model at a time. Its streams are extracted once; scorers are fitted once and read the same chunks; what fails
becomes a record with its error while the rest goes on. Cells that the folder holds already are not run again.
"""

from __future__ import annotations

import datetime
import itertools
import logging
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.base.cache import Cache, default_root
from harness.contract.registry import Registry
from harness.data.mixtures import Mixer
from harness.data.opening import CSID, IdData, open_id, open_set
from harness.data.streams import Stream
from harness.engine import manifest
from harness.engine.fits import Fits, Means
from harness.engine.loading import load_model
from harness.engine.plan import Plan, PlannedModel, make_plan
from harness.engine.recorder import ID, Recorder
from harness.engine.scoring import Clock, Failure, describe
from harness.engine.suite import load_suite
from harness.evaluations.adaptation.measure import Adapting
from harness.evaluations.adaptation.prepared import Prepared
from harness.evaluations.adaptation.text import write_adaptation
from harness.evaluations.estimation.measure import Estimating
from harness.evaluations.estimation.text import write_estimates
from harness.evaluations.mixtures.detection import Detecting
from harness.evaluations.probes.text import write_probes
from harness.evaluations.scores.transduction import Transducing
from harness.evaluations.scores.unit import Unit
from harness.models.decoded import Decoder
from harness.models.extract import Counts
from harness.models.loaded import LoadedModel, resolve_device
from harness.reports.board_text import write_boards
from harness.reports.records import RunFolder

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.engine.suite import Suite

logger = logging.getLogger("ood_harness")


@dataclass(frozen=True)
class RunOptions:
    """How a suite is run; none of these changes a number."""

    out: Path | None = None
    cache: Path | None = None
    device: str = "auto"
    progress: bool = False


@dataclass
class RunResult:
    """What a run left behind."""

    folder: Path
    cells: int = 0
    measured: int = 0
    failed: int = 0
    problems: list[str] = field(default_factory=list)
    counts: Counts = field(default_factory=Counts)

    @property
    def succeeded(self) -> bool:
        """Whether every cell has a number and every plugin loaded."""
        return not self.failed and not self.problems


def prepare(suite: str, *, limit: int | None = None, plugins: Sequence[Path] = ()) -> tuple[Plan, Registry]:
    """Load the plugins and a suite, and resolve all its names."""
    registry = Registry.load(plugins)
    return make_plan(load_suite(suite, registry), registry, limit=limit), registry


def run_plan(plan: Plan, registry: Registry, options: RunOptions) -> RunResult:
    """Run every cell of a plan that its folder does not hold yet, and write the leaderboard."""
    return _Run(plan, registry, options).execute()


class _Run:
    def __init__(self, plan: Plan, registry: Registry, options: RunOptions) -> None:
        self.plan, self.registry, self.options = plan, registry, options
        self.suite: Suite = plan.suite
        self.folder = RunFolder(options.out or Path("results") / plan.folder_name)
        self.folder.require_suite(self.suite.name, self.suite.digest)
        self.cache = Cache(options.cache or default_root())
        self.device = resolve_device(options.device)
        self.counts = Counts()
        self.result = RunResult(self.folder.path, counts=self.counts)
        self.not_applicable: list[dict[str, object]] = []
        self.models: dict[str, object] = {}
        self._peers: dict[int, Fits | None] = {}  # by seed, of the model at hand

    def execute(self) -> RunResult:
        """Run model after model, then sort the journal and write manifest and boards."""
        overlaps = self.id_data.check_disjoint()
        head = {
            **manifest.describe_run(self.suite, self.device, self.registry),
            "sets": [*dict.fromkeys([entry.name for entry in self.plan.sets] + self._mixtures())],
            "started": _now(),
        }
        self.folder.write_manifest(head)  # a crash leaves a folder that can be read
        self.registry.notify("harness_run_start", manifest=head)
        for model in self.plan.models:
            self.folder.write_paired(self._run_model(model))
        self.folder.finish()
        tail = {
            "ended": _now(),
            "cells": self.result.cells,
            "failed": self.recorder.failed,
            "images": asdict(self.counts),
            "overlaps": overlaps,
            "models": self.models,
            "data": self._data_digests(),
            "not_applicable": self.not_applicable,
            "problems": [str(problem) for problem in self.registry.problems],
        }
        self.folder.write_manifest({**head, **tail})
        write_boards(self.folder.path)
        write_probes(self.folder.path)
        write_adaptation(self.folder.path)
        write_estimates(self.folder.path)
        self.registry.notify("harness_run_end", folder=self.folder.path)
        return self._finished()

    def _finished(self) -> RunResult:
        self.result.measured, self.result.failed = self.recorder.measured, self.recorder.failed
        self.result.problems = [str(problem) for problem in self.registry.problems]
        return self.result

    @cached_property
    def id_data(self) -> IdData:
        return open_id(self.suite.id, self.registry)

    @cached_property
    def streams(self) -> dict[str, Stream | Failure]:
        """Every set, opened once for all models; where that fails, its cells fail and the others go on."""
        batch_size = self.suite.batch_size
        streams: dict[str, Stream | Failure] = {ID: Stream.of(self.id_data.test, batch_size=batch_size)}
        for entry in self.plan.sets:
            try:
                streams[entry.name] = Stream.of(
                    open_set(entry, self.id_data, self.registry), batch_size=batch_size
                )
            except Exception as error:  # a stranger's dataset may raise anything
                logger.warning("set %s: %s", entry.name, describe(error))
                streams[entry.name] = Failure(describe(error))
        return streams

    @cached_property
    def recorder(self) -> Recorder:
        """What writes the run's records."""
        return Recorder(
            self.plan,
            self.id_data,
            self.streams,
            self.folder,
            lambda record: self.registry.notify("harness_record", record=record),
        )

    def _mixtures(self) -> list[str]:
        plan = self.plan
        return [m.name for adapter in plan.open_adapters for m in plan.mixtures(adapter)]

    @cached_property
    def mixer(self) -> Mixer:
        """What makes the streams of ID and OOD together."""
        settings = self.suite.adaptation
        size = settings.batch_size or self.suite.batch_size
        return Mixer(self.id_data.test, self.registry, size, settings.size)

    def _run_model(self, model: PlannedModel) -> list[dict[str, Any]]:
        self._peers = {}
        loaded = self._load(model)
        if isinstance(loaded, Failure):
            cells = list(self.plan.cells(model))
            for cell in cells:
                self.recorder.cell(cell, "", error=f"model: {loaded.message}")
            self._fail_probes(model, loaded)
            self._fail_adapters(model, loaded)
            self._fail_mixtures(model, loaded)
            self._fail_estimators(model, loaded)
            self.result.cells += len(cells)
            return []
        clock = Clock(self.device)
        means = Means(self.recorder, self.cache, self.counts, clock, self.options.progress)
        fits, decoder = Fits(model.label, loaded, means), Decoder(loaded, self.counts)
        prepared = Prepared(decoder, self.recorder)
        unit, detecting = Unit(model, fits), Detecting(model, fits, prepared, self.mixer)
        transducing = Transducing(model, fits, decoder, self.mixer)
        adapting = Adapting(model, loaded, self.recorder, clock, prepared, self.options.progress)
        self.result.cells += len(unit.cells) + unit.probing.cells + adapting.cells + detecting.cells
        estimating = Estimating(model, fits, decoder, self.registry, lambda: self._peer(model, means))
        self.result.cells += transducing.cells + estimating.cells
        for part in (unit, adapting, detecting, estimating):
            self.not_applicable.extend(part.not_applicable())
        blocks = unit.run()
        transducing.run()
        adapting.run()
        detecting.run()
        estimating.run()
        self.folder.append_timings(clock.lines(model=model.label, seed=model.seed))
        return blocks

    def _peer(self, model: PlannedModel, means: Means) -> Fits | None:
        """Load the next training of the same model, the first after the last; None where there is one alone."""
        trainings = [other for other in self.plan.models if other.label == model.label]
        if len(trainings) < 2:
            return None
        peer = trainings[(trainings.index(model) + 1) % len(trainings)]
        if peer.seed not in self._peers:
            loaded = self._load(peer)
            self._peers = {
                peer.seed: None if isinstance(loaded, Failure) else Fits(peer.label, loaded, means)
            }
        return self._peers[peer.seed]

    def _fail_estimators(self, model: PlannedModel, failure: Failure) -> None:
        stream = Stream.of(self.id_data.test, batch_size=self.suite.batch_size)
        for estimator in self.plan.estimators:
            self.recorder.estimate(
                model, estimator, ID, stream, "",
                group=ID, kind_of_shift="clean", error=f"model: {failure.message}",
            )  # fmt: skip
            self.result.cells += 1

    def _fail_probes(self, model: PlannedModel, failure: Failure) -> None:
        for name in self.streams:
            for probe in self.plan.probes:
                self.recorder.probe(model, probe, name, "", error=f"model: {failure.message}")
                self.result.cells += 1

    def _fail_adapters(self, model: PlannedModel, failure: Failure) -> None:
        names = [entry.name for entry in self.plan.sets if entry.group == CSID]
        for adapter, seed, name in itertools.product(
            self.plan.closed_adapters, self.suite.adaptation.closed_seeds, names
        ):
            self.recorder.adaptation(model, adapter, seed, name, "", error=f"model: {failure.message}")
            self.result.cells += 1

    def _fail_mixtures(self, model: PlannedModel, failure: Failure) -> None:
        message = f"model: {failure.message}"
        for adapter in self.plan.open_adapters:
            for mixture in self.plan.mixtures(adapter):
                for scorer in self.plan.scorers:
                    self.recorder.on_mixture(
                        model, adapter, mixture, "", scorer=scorer, label=scorer.label, error=message
                    )
                for seed in self.suite.adaptation.open_seeds:
                    self.recorder.on_mixture(model, adapter, mixture, "", stream_seed=seed, error=message)
                self.result.cells += len(self.plan.scorers) + len(self.suite.adaptation.open_seeds)

    def _load(self, model: PlannedModel) -> LoadedModel | Failure:
        try:
            loaded = load_model(
                model,
                self.id_data,
                self.registry,
                device=self.device,
                dtype=self.suite.dtype,
                store=self.cache.models,
                progress=self.options.progress,
            )
            self.models[f"{model.label} (seed {model.seed})"] = {
                "digest": loaded.digest,
                "preprocessing": asdict(loaded.model.preprocessing),
                "offers": sorted(loaded.offers),
                **loaded.model.facts,
            }
        except Exception as error:  # a stranger's model may raise anything
            logger.warning("model %s: %s", model.label, describe(error))
            return Failure(describe(error))
        return loaded

    def _data_digests(self) -> dict[str, str]:
        parts = {"id.train": self.id_data.train, "id.validation": self.id_data.validation}
        named = {name: part.digest for name, part in parts.items() if part is not None}
        return named | {name: s.parts[0].digest for name, s in self.streams.items() if isinstance(s, Stream)}


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
