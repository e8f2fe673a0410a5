"""Runs a suite: every kind of evaluation of every model into records, and from these the reports.

One model at a time. Its streams are extracted once, for all kinds; what fails becomes a record with its error while the
rest goes on. Cells that the folder holds already are not measured again.
"""

from __future__ import annotations

import datetime
import logging
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.base.cache import Cache, default_root
from harness.engine import manifest
from harness.engine.clock import Clock
from harness.engine.evaluation import Job
from harness.engine.guard import Failure, describe
from harness.engine.life import evaluate
from harness.engine.loading import load_model
from harness.engine.recorder import Recorder
from harness.engine.sets import OpenSets
from harness.engine.workbench import Workbench
from harness.models.extract import Counts
from harness.models.loaded import LoadedModel, resolve_device
from harness.reports.records import RunFolder

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.engine.evaluation import Evaluation
    from harness.engine.plan import Plan, PlannedModel

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


class Run:
    """One run of a plan by the given kinds of evaluation, in their order."""

    def __init__(self, plan: Plan, options: RunOptions, kinds: Sequence[Evaluation[Any]]) -> None:
        self.plan, self.registry, self.options, self.kinds = plan, plan.registry, options, kinds
        self.folder = RunFolder(options.out or Path("results") / plan.folder_name)
        self.folder.require_suite(plan.suite.name, plan.suite.digest)
        self.cache = Cache(options.cache or default_root())
        self.device = resolve_device(options.device)
        self.counts = Counts()
        self.sets = OpenSets(plan)
        self.recorder = Recorder(
            plan,
            self.sets,
            self.folder,
            lambda record: self.registry.notify("harness_record", record=record.content()),
        )
        self.models: dict[str, object] = {}

    def execute(self) -> RunResult:
        """Evaluate model after model, then sort the journal and write the manifest."""
        overlaps = self.sets.id_data.check_disjoint()
        head = {
            **manifest.describe_run(self.plan.suite, self.device, self.registry),
            "sets": self._names_of_sets(),
            "started": _now(),
        }
        self.folder.write_manifest(head)  # a crash leaves a folder that can be read
        self.registry.notify("harness_run_start", manifest=head)
        self.folder.write_paired([])
        for model in self.plan.models:
            self._evaluate(model)
        self.folder.finish()
        tail = {
            "ended": _now(),
            "cells": self.recorder.cells,
            "failed": self.recorder.failed,
            "images": asdict(self.counts),
            "overlaps": overlaps,
            "models": self.models,
            "data": self.sets.digests(),
            "not_applicable": self.recorder.not_applicable,
            "problems": [str(problem) for problem in self.registry.problems],
        }
        self.folder.write_manifest({**head, **tail})
        return self.result()

    def result(self) -> RunResult:
        """Sum up what the run left behind."""
        done, problems = self.recorder, [str(problem) for problem in self.registry.problems]
        return RunResult(self.folder.path, done.cells, done.measured, done.failed, problems, self.counts)

    def job(self, model: PlannedModel) -> Job | Failure:
        """Open one model, with everything that its evaluations work with."""
        bench = self._bench(model)
        if isinstance(bench, Failure):
            return bench
        peers: dict[int, Workbench | None] = {}

        def peer() -> Workbench | None:
            """Load the next training of the same model, the first after the last; None if there is only one."""
            trainings = [other for other in self.plan.models if other.label == model.label]
            other = trainings[(trainings.index(model) + 1) % len(trainings)]
            if other is model:
                return None
            if other.seed not in peers:
                opened = self._bench(other)
                peers[other.seed] = None if isinstance(opened, Failure) else opened
            return peers[other.seed]

        return Job(self.plan, model, bench, self.sets, self.folder, peer)

    def _names_of_sets(self) -> list[str]:
        names = [entry.name for entry in self.plan.sets]
        return list(
            dict.fromkeys(names + [name for kind in self.kinds for name in kind.names_of_sets(self.plan)])
        )

    def _evaluate(self, model: PlannedModel) -> None:
        job = self.job(model)
        for kind in self.kinds:
            evaluate(kind, self.plan, model, job, self.recorder)
        if isinstance(job, Job):
            self.folder.append_timings(job.bench.clock.lines(model=model.label, seed=model.seed))

    def _bench(self, model: PlannedModel) -> Workbench | Failure:
        try:
            loaded = self._load(model)
        except Exception as error:  # a stranger's model may raise anything
            logger.warning("model %s: %s", model.label, describe(error))
            return Failure(describe(error))
        data = self.sets.id_data
        parts = {"train": data.train, "validation": data.validation}
        return Workbench(
            model.label,
            loaded,
            {name: part for name, part in parts.items() if part is not None},
            self.plan.suite.batch_size,
            self.cache,
            self.counts,
            Clock(self.device),
            extracts_layers=self._reads_layers(loaded.offers | data.offers),
            progress=self.options.progress,
        )

    def _load(self, model: PlannedModel) -> LoadedModel:
        loaded = load_model(
            model,
            self.sets.id_data,
            self.registry,
            device=self.device,
            dtype=self.plan.suite.dtype,
            store=self.cache.models,
            progress=self.options.progress,
        )
        self.models[f"{model.label} (seed {model.seed})"] = {
            "digest": loaded.digest,
            "preprocessing": asdict(loaded.model.preprocessing),
            "offers": sorted(loaded.offers),
            **loaded.model.facts,
        }
        return loaded

    def _reads_layers(self, offers: frozenset[str]) -> bool:
        """Return whether anything that applies reads layers: then one pass extracts them for all."""
        return any(
            "layers" in worker.needs and worker.needs <= offers
            for of_key in self.plan.workers.values()
            for worker in of_key
        )


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
