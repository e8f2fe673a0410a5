"""Runs a suite, one model after the other: every kind of evaluation writes its records.

A model's streams are extracted once, for all kinds. A cell that fails becomes a record with its error, and the others
go on. Cells that the folder holds already are not measured again.
"""

from __future__ import annotations

import datetime
import logging
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.base.cache import Cache, default_root
from harness.base.errors import HarnessError, InputError, Terminated
from harness.base.strangers import undisturbed
from harness.engine import manifest
from harness.engine.beforehand import ready
from harness.engine.evaluation import Job
from harness.engine.guard import Failure, attempt
from harness.engine.life import evaluate
from harness.engine.loading import Loader
from harness.engine.progress import RunProgress
from harness.engine.recorder import Recorder
from harness.engine.sets import OpenSets
from harness.models.extract import Counts
from harness.models.loaded import resolve_device
from harness.reports.run_folder import RunFolder, require_place

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from harness.engine.evaluation import Evaluation
    from harness.engine.plan import Plan, PlannedModel
    from harness.engine.workbench import Workbench
    from harness.reports.record import Record


logger = logging.getLogger("ood_harness")


@dataclass(frozen=True)
class RunOptions:
    """How a suite is run. No option changes a number."""

    out: Path | None = None
    cache: Path | None = None
    device: str = "auto"
    progress: bool = False
    fresh: bool = (
        False  # measure again what the folder holds; features and trained models still come from the cache
    )


@dataclass
class RunResult:
    """A finished run: its folder and its counts."""

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
        """Open every set and check every model, and then the folder: nothing is written before.

        Raises HarnessError for a device or folder that cannot be used, for a set that cannot be opened, and for a model
        that cannot be built.
        """
        self.plan, self.registry, self.kinds = plan, plan.registry, kinds
        device, cache = resolve_device(options.device), Cache(options.cache or default_root())
        self.loader = Loader(self.registry, cache, device, options.progress)
        place, suite = options.out or Path("results") / plan.folder_name, plan.suite
        require_place(place, suite.name, suite.digest)
        with undisturbed(device):  # by what a stranger's data do when they are asked for labels or identities
            self.sets = OpenSets(plan)
            self.overlaps = ready(self.sets, self.loader, kinds)
        self.folder = RunFolder(place)
        try:
            self.folder.require_suite(suite.name, suite.digest)
        except HarnessError:
            self.folder.close()
            raise
        self.recorder = Recorder(plan, self.sets, self.folder, self._notify)
        self.models: dict[str, object] = {}
        self._fresh = options.fresh
        self._known = manifest.known(plan, place)
        self._seeds: dict[tuple[str, str], int] = {}  # by model label and digest: the first seed

    def execute(self) -> RunResult:
        """Evaluate model after model, then sort the journal and write the manifest."""
        named = [name for kind in self.kinds for name in kind.names_of_sets(self.plan)]
        head = {
            **manifest.describe_run(self.plan.suite, self.loader.device, self.registry),
            **({"part": self.plan.part, **self._known} if self.plan.part else {}),
            "sets": list(dict.fromkeys([*(entry.name for entry in self.plan.sets), *named])),
            "started": _now(),
        }
        self.folder.write_manifest(head)  # a crash leaves a folder that can be read
        self.registry.notify("harness_run_start", manifest=head)
        self.folder.write_paired([])
        with (
            self.loader.cache.in_use(),
            RunProgress(self.plan, self.kinds, enabled=self.loader.progress) as progress,
            self._interruptible(),
        ):
            for model in self.plan.models:
                # What a stranger's images or model do to the process ends with the model.
                with undisturbed(self.loader.device):
                    self._evaluate(model, progress)
        self.folder.finish()
        tail = {
            "ended": _now(),
            "cells": self.recorder.cells,
            "failed": self.recorder.failed,
            "images": asdict(self.loader.counts),
            "overlaps": self.overlaps,
            "overlaps_unchecked": self.sets.uncompared(),
            "models": {**self._known["models"], **self.models},
            "data": self.sets.digests(),
            "data_facts": self.sets.facts(),
            "protocol": self.sets.protocol(),
            "not_applicable": [
                *manifest.left_out(self.plan, self._known["not_applicable"]),
                *self.recorder.not_applicable,
            ],
            "problems": [str(problem) for problem in self.registry.problems],
        }
        self.folder.write_manifest({**head, **tail})
        return self.result()

    def result(self) -> RunResult:
        """Sum up the run."""
        done, problems = self.recorder, [str(problem) for problem in self.registry.problems]
        counts = self.loader.counts
        return RunResult(self.folder.path, done.cells, done.measured, done.failed, problems, counts)

    def job(self, model: PlannedModel) -> Job | Failure:
        """Open one model, with everything that its evaluations work with."""
        bench = attempt(self._bench, model)
        if isinstance(bench, Failure):
            logger.warning("%s: %s", model.title, bench.message)
            return bench
        trainings = [other for other in self.plan.models if other.label == model.label]
        other = trainings[(trainings.index(model) + 1) % len(trainings)]

        @cache
        def peer() -> Workbench | None:
            """Load the next training of the same model, the first after the last; None if there is only one."""
            opened = attempt(self._bench, other) if other is not model else None
            return None if isinstance(opened, Failure) else opened

        def after(epoch: int) -> Workbench:
            """Open the model with the weights after an epoch of its training."""
            opened = self.loader.bench(self.plan, replace(model, epoch=epoch), self.sets)
            opened.decoder = bench.decoder  # it reads the same images, so it decodes none again
            return opened

        return Job(self.plan, model, bench, self.sets, self.folder, peer, after)

    @contextmanager
    def _interruptible(self) -> Iterator[None]:
        """Say where the run stands if it is stopped."""
        try:
            yield
        except (KeyboardInterrupt, Terminated):
            done, place = self.recorder.measured, str(self.folder.path)
            logger.warning(
                "stopped: %d cells were measured now and are kept in %s. The same command goes on",
                done,
                place,
            )
            raise

    def _evaluate(self, model: PlannedModel, progress: RunProgress) -> None:
        progress.enter(model)
        job = self.job(model)
        for kind in self.kinds:
            evaluate(kind, model, job, self.recorder, progress, fresh=self._fresh)
        if isinstance(job, Job):
            self.folder.append_timings(job.bench.clock.lines(model=model.label, seed=model.seed))

    def _bench(self, model: PlannedModel) -> Workbench:
        bench = self.loader.bench(self.plan, model, self.sets)
        self._require_own_weights(model, bench.loaded.digest)
        if self.sets.id_data.has_trained(bench.loaded.model.trained_on):
            self.recorder.seen.add(model.title)
        facts = {"digest": bench.loaded.digest, "preprocessing": bench.loaded.model.preprocessing.facts}
        manifest.require_same_model(self.plan, self._known["models"].get(model.title), facts)
        self.models[model.title] = {
            **facts,
            "offers": sorted(bench.loaded.offers),
            **({"classes": bench.loaded.classes} if bench.loaded.classes else {}),
            **bench.loaded.model.facts,
        }
        return bench

    def _require_own_weights(self, model: PlannedModel, digest: str) -> None:
        """Raise InputError if another seed of the model has the same weights: one network must not count twice."""
        seed = self._seeds.setdefault((model.label, digest), model.seed)
        if seed != model.seed:
            raise InputError(
                f"it has the same weights as seed {seed}, so one network would count twice. Give each seed its own"
            )

    def _notify(self, record: Record) -> None:
        self.registry.notify("harness_record", record=record.content())


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
