"""OOD detection while a model adapts: scorers on what adapters make of streams that hold ID and OOD."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from harness.base import digests
from harness.base.progress import progress_bar
from harness.data.streams import Stream
from harness.engine.evaluation import Cell, Evaluation, Measured, NotApplicable, Sitting
from harness.engine.guard import Failure, describe
from harness.evaluations import measures
from harness.evaluations.adaptation.measure import not_applicable
from harness.evaluations.adaptation.prepared import Prepared, fit_digests
from harness.evaluations.adaptation.section import adapters, batch_size, mixtures, settings
from harness.evaluations.mixing import mixer
from harness.evaluations.mixtures.trace import traced
from harness.evaluations.scores.features import score_features
from harness.evaluations.scores.scoring import code_id
from harness.reports.record import ADAPTATION, SCORE, SEPARATE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from torch import Tensor

    from harness.contract.features import FeatureSet
    from harness.contract.protocols import Scorer
    from harness.data.mixtures import Mixture, OpenStream
    from harness.engine.evaluation import Job
    from harness.engine.plan import Plan, Planned, PlannedModel
    from harness.evaluations.adaptation.section import PlannedAdapter
    from harness.evaluations.measures import Outcome
    from harness.evaluations.mixtures.trace import Trace

logger = logging.getLogger("ood_harness")

# What an adapter's outputs, and the ID data, give to scorers.
_GIVEN = frozenset({"logits", "penultimate", "head", "linear", "train", "validation", "labels"})


@dataclass(frozen=True, eq=False)
class MixtureCell(Cell):
    """A model under an adapter on a mixture: the adapter's numbers on one stream, or a scorer's over all streams."""

    adapter: PlannedAdapter = field(kw_only=True)
    mixture: Mixture = field(kw_only=True)
    scorer: Planned | None = field(kw_only=True)  # None: the cell is the adapter's own
    is_refit: bool = field(default=False, kw_only=True)  # whether the scorer is fitted on adapted features
    seed: int | None = field(
        default=None, kw_only=True
    )  # of the one stream that the adapter's numbers are of


class Mixtures(Evaluation[MixtureCell]):
    """OOD detection under adaptation."""

    name = f"{SCORE} under {ADAPTATION}"

    def names_of_sets(self, plan: Plan) -> Iterable[str]:
        """Return the names of the mixtures."""
        return [m.name for adapter in adapters(plan, meets_ood=True) for m in mixtures(plan, adapter)]

    def cells(self, plan: Plan, model: PlannedModel) -> Iterable[MixtureCell]:
        """Yield every adapter that meets OOD, on every mixture: each stream's cell, then each scorer's."""
        for adapter in adapters(plan, meets_ood=True):
            for mixture in mixtures(plan, adapter):
                for seed in settings(plan.suite).open_seeds:
                    yield _stream_cell(plan, model, adapter, mixture, seed)
                for scorer in plan.named("scorers"):
                    yield _score_cell(plan, model, adapter, mixture, scorer)
                if refits(plan, adapter):
                    for scorer in plan.named("scorers"):
                        if "train" in scorer.needs and "validation" not in scorer.needs:
                            yield _score_cell(plan, model, adapter, mixture, scorer, is_refit=True)

    def begin(self, job: Job) -> Detecting:
        """Begin with one model."""
        return Detecting(job)


def refits(plan: Plan, adapter: PlannedAdapter) -> bool:
    """Return whether scorers are fitted on adapted features too: of two models, one per side, neither is the one."""
    suite = plan.suite
    return bool(settings(suite).refit and suite.id.train is not None and adapter.protocol != SEPARATE)


def _stream_cell(
    plan: Plan, model: PlannedModel, adapter: PlannedAdapter, mixture: Mixture, seed: int
) -> MixtureCell:
    cell_id = plan.cell_id(model, what=f"stream {seed}", **_place(adapter, mixture))
    head = {"kind": ADAPTATION, **_head(plan, adapter, mixture)}
    return MixtureCell(
        model, adapter, mixture.ood.name, cell_id, head, seed,
        adapter=adapter, mixture=mixture, scorer=None, seed=seed,
    )  # fmt: skip


def _score_cell(
    plan: Plan,
    model: PlannedModel,
    adapter: PlannedAdapter,
    mixture: Mixture,
    scorer: Planned,
    *,
    is_refit: bool = False,
) -> MixtureCell:
    label = f"{scorer.label} (refit)" if is_refit else scorer.label
    cell_id = plan.cell_id(model, what=label, **_place(adapter, mixture))
    head = {"kind": SCORE, "scorer": label, **_head(plan, adapter, mixture)}
    return MixtureCell(
        model, scorer, mixture.ood.name, cell_id, head, list(settings(plan.suite).open_seeds),
        adapter=adapter, mixture=mixture, scorer=scorer, is_refit=is_refit,
    )  # fmt: skip


def _place(adapter: PlannedAdapter, mixture: Mixture) -> dict[str, str]:
    protocol = f"{adapter.protocol} {mixture.percent}"
    return {"on": mixture.name, "adapter": adapter.label, "protocol": protocol}


def _head(plan: Plan, adapter: PlannedAdapter, mixture: Mixture) -> dict[str, Any]:
    return {
        "adapter": adapter.label,
        "protocol": adapter.protocol,
        "group": mixture.ood.group,
        "ood": mixture.name,
        "mixture": {
            "percent": mixture.percent,
            "shift": mixture.shift.name if mixture.shift else None,
            "size": settings(plan.suite).size,
            "batch_size": batch_size(plan.suite),
        },
    }


class Detecting(Sitting[MixtureCell]):
    """The scorers of one model under every adapter that meets OOD."""

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self._keys: dict[tuple[str, str, str, str, int], tuple[str, ...]] = {}

    def missing(self, cell: MixtureCell) -> NotApplicable | None:
        """Return what the model lacks for the adapter, or what the scorer reads beyond an adapter's outputs."""
        lacking = not_applicable(self._prepared, cell.adapter)
        if lacking is not None or cell.scorer is None:
            return lacking
        needs = cell.scorer.needs
        missing = sorted({*self.job.bench.missing(needs), *(needs - _GIVEN)})
        if not missing:
            return None
        place: dict[str, object] = {
            "adapter": cell.adapter.label,
            "protocol": cell.adapter.protocol,
            "mixture": {"percent": cell.mixture.percent},
            "scorer": cell.scorer.label,
        }
        return NotApplicable({} if cell.is_refit else place, missing)

    def key(self, cell: MixtureCell) -> str:
        """Digest all that the cell's numbers depend on."""
        if cell.scorer is None:
            assert cell.seed is not None
            return digests.digest(self._traces(cell, cell.seed))
        features = digests.digest([self._traces(cell, seed) for seed in self._seeds])
        return code_id(self.job, cell.scorer, features, features, refit=str(cell.is_refit))

    def measure(self, cells: Sequence[MixtureCell]) -> Iterator[tuple[MixtureCell, Measured | Failure]]:
        """Make every passage of which a number is missing, once for all scorers, and score what it leaves."""
        meetings: dict[tuple[str, str, str, str], list[MixtureCell]] = {}
        for cell in cells:
            meetings.setdefault(_meeting(cell), []).append(cell)
        model, bench = self.job.model, self.job.bench
        with progress_bar(
            total=len(meetings) * len(self._seeds),
            description=f"adapt {model.label} (seed {model.seed}) to mixtures",
            unit="stream",
            enabled=bench.progress and bool(meetings),
        ) as bar:
            for of_meeting in meetings.values():
                scored = [cell for cell in of_meeting if cell.scorer is not None]
                streams = {cell.seed: cell for cell in of_meeting if cell.scorer is None}
                by_stream = []
                for seed in self._seeds:
                    stream_outcome, outcomes = self._on_stream(of_meeting[0], scored, seed)
                    by_stream.append(outcomes)
                    if seed in streams:
                        yield streams[seed], stream_outcome
                    bar.update()
                for number, cell in enumerate(scored):
                    yield cell, measures.of_streams([outcomes[number] for outcomes in by_stream])

    # Streams ----------------------------------------------------------------------------------------------------

    @property
    def _prepared(self) -> Prepared:
        return self.job.bench.shared(Prepared)

    @property
    def _seeds(self) -> list[int]:
        return settings(self.job.plan.suite).open_seeds

    @cached_property
    def _train(self) -> Stream | None:
        train, size = self.job.sets.id_data.train, settings(self.job.plan.suite).refit
        if train is None or not size:
            return None
        return Stream.mixed([train.limited(size)], batch_size=batch_size(self.job.plan.suite), seed=0)

    def _train_of(self, adapter: PlannedAdapter) -> Stream | None:
        return self._train if refits(self.job.plan, adapter) else None

    def _streams(self, cell: MixtureCell, seed: int) -> list[OpenStream]:
        """Make the streams of a seed. Raises HarnessError if the OOD set could not be opened."""
        outliers = self.job.sets.selection(cell.mixture.ood.name)
        separate = cell.adapter.protocol == SEPARATE
        return mixer(self.job).streams(cell.mixture, outliers, seed=seed, separate=separate)

    def _traces(self, cell: MixtureCell, seed: int) -> tuple[str, ...]:
        """Name the traces of a seed's streams in the cache, by all that they depend on."""
        place = (*_meeting(cell), seed)
        if place not in self._keys:
            adapter, train = cell.adapter, self._train_of(cell.adapter)
            described = {
                "name": adapter.offered.spec.name,
                "params": adapter.params,
                "source": adapter.offered.source,
                "version": adapter.offered.version,
                "fit": fit_digests(self.job, adapter),
                "after": settings(self.job.plan.suite).after,
                "refit": train.digest if train is not None else None,
            }
            loaded = self.job.bench.loaded
            self._keys[place] = tuple(
                loaded.features_key(opened.stream, layers=False, adapter=described)
                for opened in self._streams(cell, seed)
            )
        return self._keys[place]

    def _on_stream(
        self, cell: MixtureCell, scored: Sequence[MixtureCell], seed: int
    ) -> tuple[Measured | Failure, list[Outcome]]:
        """Adapt to the streams of one seed: the adapter's numbers, and an outcome per scorer."""
        adapter, bench, on = cell.adapter, self.job.bench, cell.mixture.name
        try:
            streams = self._streams(cell, seed)
            with bench.clock.measure_with_memory("adapt", scorer=adapter.label, on=on):
                traces = [
                    self._trace(adapter, opened.stream, key)
                    for opened, key in zip(streams, self._traces(cell, seed), strict=True)
                ]
        except Exception as error:  # a stranger's adapter or dataset may raise anything
            failure = Failure(f"stream {seed}: {describe(error)}")
            place = self.job.model.label, adapter.label, on
            logger.warning("%s, adapter %s on %s: %s", *place, failure.message)
            return failure, [failure] * len(scored)
        is_id = ~streams[0].is_ood
        metrics = traces[0].metrics(is_id, num_outputs=bench.loaded.model.num_classes)
        counts = {"n_id": int(is_id.sum()), "n_ood": sum(int(opened.is_ood.sum()) for opened in streams)}
        return Measured({"metrics": metrics, **counts}), self._scores(scored, streams, traces)

    def _trace(self, adapter: PlannedAdapter, stream: Stream, key: str) -> Trace:
        bench, suite = self.job.bench, self.job.plan.suite
        return traced(
            lambda: self._prepared.passage(adapter, suite),
            stream,
            bench.cache,
            key,
            device=bench.loaded.device,
            train=self._train_of(adapter),
        )

    # Scores -----------------------------------------------------------------------------------------------------

    def _scores(
        self, cells: Sequence[MixtureCell], streams: list[OpenStream], traces: list[Trace]
    ) -> list[Outcome]:
        import torch

        bench = self.job.bench
        fitted: dict[str, Scorer | Failure] = {}
        ready: dict[str, tuple[Planned, Scorer]] = {}
        for cell in cells:
            name, scorer = str(cell.head["scorer"]), self._fitted(cell, traces[0].refit)
            fitted[name] = scorer
            if not isinstance(scorer, Failure) and cell.scorer is not None:
                ready[name] = cell.scorer, scorer
        on = cells[0].mixture.name if cells else ""
        parts = [score_features(ready, trace.features, bench.clock, on=on) for trace in traces]
        is_ood = torch.cat([torch.from_numpy(s.is_ood) for s in streams]).to(bench.loaded.device)
        return [
            scorer if isinstance(scorer, Failure) else _sides([part[name] for part in parts], is_ood)
            for name, scorer in fitted.items()
        ]

    def _fitted(self, cell: MixtureCell, refit: FeatureSet | None) -> Scorer | Failure:
        assert cell.scorer is not None
        bench = self.job.bench
        found: Scorer | Failure = (
            bench.fit(cell.scorer, {"train": refit}) if cell.is_refit else bench.fitted(cell.scorer)
        )
        return found


def _meeting(cell: MixtureCell) -> tuple[str, str, str, str]:
    """Name the adapter and mixture of a cell: cells of the same share their passages."""
    return cell.adapter.label, cell.adapter.protocol, cell.mixture.name, cell.mixture.percent


def _sides(parts: list[Tensor | Failure], is_ood: Tensor) -> Outcome:
    """Join the scores of a seed's streams, and split ID from OOD; the first failure, if there is one."""
    import torch

    scores = []
    for part in parts:
        if isinstance(part, Failure):
            return part
        scores.append(part)
    joined = torch.cat(scores)
    return joined[~is_ood], joined[is_ood]
