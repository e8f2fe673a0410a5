"""What `run --dry-run` prints: the planned work, and what it costs: passes, memory of features, and time.

Every set is opened, and checkpoints are loaded. Nothing is trained and no weights are fetched: a network that would be
is built with random weights, which cost the same time.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from harness.base.cache import Cache, default_root
from harness.base.sizes import size_text
from harness.contract.specs import STREAM, ModelRequest
from harness.data.mixtures import Mixer, Mixture
from harness.data.sets import CSID
from harness.data.streams import Stream
from harness.engine.beforehand import ready
from harness.engine.loading import Loader
from harness.engine.sets import OpenSets
from harness.evaluations.adaptation.section import settings
from harness.evaluations.run import kinds_of
from harness.evaluations.scores.streams import HALVES
from harness.models.extract import extract
from harness.models.loaded import LoadedModel, resolve_device
from harness.models.training.checkpoint import opened
from harness.models.training.store import untrained_model
from harness.reports.record import ID
from harness.reports.run_folder import require_place
from harness.reports.wording import duration

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.contract.features import Features
    from harness.engine.plan import Plan, Planned, PlannedModel
    from harness.engine.runner import RunOptions

SECONDS = 2.0  # of the measurement, about
_FIRST = 8  # images of ID test, from whose time the number of measured images follows
_BYTES = 4  # of a number in the cache of features
_FORWARD_AND_BACKWARD = 3  # a pass with gradients takes about so many times as long


@dataclass(frozen=True)
class Probe:
    """What a model gives and takes per image."""

    columns: int  # of all features
    seconds: float
    offers: frozenset[str]


def described(plan: Plan, options: RunOptions) -> Iterator[str]:
    """Yield the lines. Raises HarnessError for whatever a run would refuse before it starts."""
    device = resolve_device(options.device)
    require_place(options.out or Path("results") / plan.folder_name, plan.suite.name, plan.suite.digest)
    sets = OpenSets(plan)
    loader = Loader(plan.registry, Cache(options.cache or default_root()), device)
    ready(sets, loader, kinds_of(plan.registry))
    sizes = {name: len(sets.selection(name)) for name in (ID, *(entry.name for entry in plan.sets))}
    counts = " + ".join(f"{len(workers)} {key}" for key, workers in plan.workers.items() if workers)
    yield f"suite {plan.suite.name}: {len(plan.models)} models × {counts} × {len(plan.sets)} sets"
    yield "models: " + ", ".join(f"{m.label} (seed {m.seed}, {m.offered.plugin})" for m in plan.models)
    for key, workers in plan.workers.items():
        if workers:
            yield f"{key}: {', '.join(worker.title for worker in workers)}"
    parts = ", ".join(f"{name} {len(part):,}" for name, part in sets.id_data.parts.items())
    yield f"ID images: test {sizes[ID]:,}{', ' + parts if parts else ''}"
    yield "sets: " + ", ".join(f"{e.name} ({e.group}, {sizes[e.name]:,} images)" for e in plan.sets)
    probes: dict[str, Probe | None] = {}
    for model in plan.models:
        if model.label not in probes:
            probes[model.label] = probed(plan, model, sets, device)
        yield from Cost(plan, model, probes[model.label], sets, sizes).lines(device)
    yield from (str(problem) for problem in plan.registry.problems)


@dataclass(frozen=True, eq=False)
class Cost:
    """The cost of one model of a plan."""

    plan: Plan
    model: PlannedModel
    probe: Probe | None  # None: not measured
    sets: OpenSets
    sizes: dict[str, int]  # images by set, ID test included

    def applies(self, worker: Planned) -> bool:
        """Return whether model and data offer what a method needs, as far as it is known."""
        return self.probe is None or worker.needs <= self.probe.offers | self.sets.id_data.offers

    @cached_property
    def rows(self) -> int:
        """The images of the shared pass: ID test, all sets, and the parts of ID on which a method is fitted."""
        workers = [worker for of_key in self.plan.workers.values() for worker in of_key]
        read = {need for worker in workers if self.applies(worker) for need in worker.needs}
        fitted = [len(part) for name, part in self.sets.id_data.parts.items() if name in read]
        return sum(self.sizes.values()) + sum(fitted)

    @cached_property
    def streamed(self) -> int:
        """The images of all streams of one scorer that adapts."""
        table = settings(self.plan.suite)
        mixer = Mixer(self.sets.id_data.test, self.plan.registry, self.plan.suite.batch_size, table.size)
        sets = [entry for entry in self.plan.sets if entry.group != CSID]
        of_one = [sum(mixer.counts(Mixture(HALVES, entry, None), self.sizes[entry.name])) for entry in sets]
        return len(table.open_seeds) * sum(of_one)

    def lines(self, device: str) -> Iterator[str]:
        """Yield the model's lines."""
        probe = self.probe
        passes, images = ["1 pass over all images"], float(self.rows)
        for scorer in self.plan.named("scorers"):
            spec = scorer.offered.spec
            if spec.cost == "pass" or not self.applies(scorer):
                continue
            own = spec.passes * (self.streamed if STREAM in scorer.needs else sum(self.sizes.values()))
            images += own * (_FORWARD_AND_BACKWARD if spec.cost == "gradients" else 1)
            passes.append(f"{scorer.label} ({spec.cost}) forwards {own:,} more")
        yield f"{self.model.title}: {self.rows:,} images, {'; '.join(passes)}"
        if probe is None:
            yield "  features and time: not measured, since the model may be trained when it is built"
            return
        size = size_text(self.rows * probe.columns * _BYTES)
        yield f"  features: {self.rows:,} rows × {probe.columns:,} columns × {_BYTES} bytes = {size}"
        yield (
            f"  time: about {duration(images * probe.seconds)} on {device}, from "
            f"{1000 * probe.seconds:.2g} ms per image; {self._excluded()}"
        )

    def _excluded(self) -> str:
        others = {
            kind.name: sum(1 for _ in kind.cells(self.plan, self.model))
            for kind in kinds_of(self.plan.registry)
            if kind.is_counted and not kind.cost_is_declared
        }
        rest = [f"{count} cells of kind {name}" for name, count in others.items() if count]
        training = ["training"] if self.model.offered.spec.takes == "recipe" else []
        return f"without {', '.join([*training, 'scoring', *rest])}, and less if features are in the cache"


def probed(plan: Plan, model: PlannedModel, sets: OpenSets, device: str) -> Probe | None:
    """Measure a model on a few images of ID test; None if it cannot be built without training it."""
    workers = [worker for of_key in plan.workers.values() for worker in of_key]
    test, layers = sets.id_data.test, any("layers" in worker.needs for worker in workers)
    with tempfile.TemporaryDirectory() as folder:
        loaded = _untrained(plan, model, sets, Loader(plan.registry, Cache(Path(folder)), device))
        if loaded is None:
            return None

        def timed(count: int, name: str) -> tuple[float, Features]:
            few = Stream.of(test.take(np.arange(count)), batch_size=plan.suite.batch_size)
            start = time.perf_counter()
            features = extract(loaded, few, Cache(Path(folder, name)), layers=layers).features
            return time.perf_counter() - start, features.take(np.arange(1))

        first = min(_FIRST, len(test))
        timed(first, "warm")
        short, row = timed(first, "short")
        count = min(len(test), int(first * SECONDS / short))
        if count <= first:
            return Probe(_columns(row), short / first, loaded.offers)
        long, row = timed(count, "long")
        # The difference is without what a pass costs whatever the number of images; noise may swallow it.
        seconds = (long - short) / (count - first) if long > short else long / count
        return Probe(_columns(row), seconds, loaded.offers)


def _columns(row: Features) -> int:
    """Count the numbers that are kept of one image."""
    vectors = [getattr(row, name) for name in ("logits", "penultimate") if name in row.fields]
    return sum(
        len(vector[0]) for vector in (*vectors, *(row.layers.values() if "layers" in row.fields else ()))
    )


def _untrained(plan: Plan, model: PlannedModel, sets: OpenSets, loader: Loader) -> LoadedModel | None:
    """Load a checkpoint; build another network without its weights, or None if it is not known how."""
    spec = model.offered.spec
    if spec.takes == "folder":
        return loader.load(model, sets.id_data, dtype=plan.suite.dtype)
    request = ModelRequest(
        name=model.name,
        argument=model.name.partition(":")[2],
        seed=model.seed,
        data=sets.id_data.training,
        catalogue=plan.registry,
        pretrained=False,
    )
    if spec.takes == "recipe":
        built = untrained_model(request.argument, request, **model.params)
    elif spec.architecture:
        built = spec.build(request, **model.params)
    else:
        return None
    classifier = opened(built.classifier, loader.device, name=model.name)
    return LoadedModel(replace(built, classifier=classifier), loader.device, plan.suite.dtype)
