"""OOD detection while a model adapts: scorers on the adapters' outputs for streams of ID and OOD."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from harness.base import digests
from harness.base.strangers import undisturbed
from harness.data.streams import Stream
from harness.engine.evaluation import Cell, Evaluation, Measured, NotApplicable, Sitting
from harness.engine.guard import Failure, attempt
from harness.evaluations import measures
from harness.evaluations.adaptation.prepared import Prepared
from harness.evaluations.adaptation.section import (
    adapter_needs,
    adapters,
    batch_size,
    mixer,
    mixtures,
    settings,
)
from harness.evaluations.mixtures.trace import traced
from harness.evaluations.scores.features import score_features
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

# The needs of scorers that an adapter's outputs and the ID data fulfil.
_GIVEN = frozenset({"logits", "penultimate", "head", "linear", "train", "validation", "labels"})


@dataclass(frozen=True, eq=False)
class MixtureCell(Cell):
    """A model, an adapter and a mixture: the adapter's numbers on one stream, or a scorer's over all streams."""

    adapter: PlannedAdapter = field(kw_only=True)
    mixture: Mixture = field(kw_only=True)
    scorer: Planned | None = field(kw_only=True)  # None: the cell is the adapter's own
    is_refit: bool = field(default=False, kw_only=True)  # whether the scorer is fitted on adapted features
    seed: int | None = field(default=None, kw_only=True)  # of the adapter's one stream


def refits(plan: Plan, adapter: PlannedAdapter) -> bool:
    """Return whether scorers are also fitted on adapted features: not for separate streams, which adapt two models."""
    suite = plan.suite
    return bool(settings(suite).refit and suite.id.train is not None and adapter.protocol != SEPARATE)


def _stream_cell(
    plan: Plan, model: PlannedModel, adapter: PlannedAdapter, mixture: Mixture, seed: int
) -> MixtureCell:
    cell_id = plan.cell_id(model, what=f"stream {seed}", **_names(adapter, mixture))
    place = {"adapter": adapter.label, "protocol": adapter.protocol}
    head, needs = {"kind": ADAPTATION, **_head(plan, mixture)}, adapter_needs(adapter) | {"labels"}
    return MixtureCell(
        model, adapter, mixture.ood.name, cell_id, place, head, needs, seed,
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
    cell_id = plan.cell_id(model, what=label, **_names(adapter, mixture))
    names = {"adapter": adapter.label, "protocol": adapter.protocol}
    place = {**names, "mixture": {"percent": mixture.percent}, "scorer": label}
    head = {"kind": SCORE, **_head(plan, mixture)}
    needs, seeds = adapter_needs(adapter) | scorer.needs, list(settings(plan.suite).open_seeds)
    return MixtureCell(
        model, scorer, mixture.ood.name, cell_id, place, head, needs, seeds,
        adapter=adapter, mixture=mixture, scorer=scorer, is_refit=is_refit,
    )  # fmt: skip


def _names(adapter: PlannedAdapter, mixture: Mixture) -> dict[str, str]:
    protocol = f"{adapter.protocol} {mixture.percent}"
    return {"on": mixture.name, "adapter": adapter.label, "protocol": protocol}


def _head(plan: Plan, mixture: Mixture) -> dict[str, Any]:
    return {
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
    """The scorers of one model under every adapter whose streams hold OOD."""

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self.seeds = settings(job.plan.suite).open_seeds
        self._keys: dict[tuple[str, str, str, str, int], tuple[str, ...]] = {}

    def missing(self, cell: MixtureCell) -> NotApplicable | None:
        """Return the missing needs of the adapter; if it applies, those of the scorer and those beyond its outputs."""
        lacking = self.job.missing(adapter_needs(cell.adapter))
        if lacking:
            return NotApplicable({"adapter": cell.adapter.label, "protocol": cell.adapter.protocol}, lacking)
        beyond = set() if cell.scorer is None else cell.scorer.needs - _GIVEN
        lacking = sorted({*self.job.missing(cell.needs), *beyond})
        return NotApplicable({} if cell.is_refit else cell.place, lacking) if lacking else None

    def key(self, cell: MixtureCell) -> str:
        """Digest everything that the cell's numbers depend on."""
        if cell.scorer is None:
            assert cell.seed is not None
            return digests.digest(self._traces(cell, cell.seed))
        traces = [self._traces(cell, seed) for seed in self.seeds]
        return self.job.key(cell.scorer, traces, cell.is_refit, measures.METRICS)

    def measure(self, cells: Sequence[MixtureCell]) -> Iterator[tuple[MixtureCell, Measured | Failure]]:
        """Make every passage of which a number is missing, once for all scorers, and score its outputs."""
        meetings: dict[tuple[str, str, str, str], list[MixtureCell]] = {}
        for cell in cells:
            meetings.setdefault(_meeting(cell), []).append(cell)
        with self.job.progress("adapt to mixtures", len(meetings) * len(self.seeds), "stream") as bar:
            for of_meeting in meetings.values():
                scored = [cell for cell in of_meeting if cell.scorer is not None]
                streams = {cell.seed: cell for cell in of_meeting if cell.scorer is None}
                by_stream = []
                for seed in self.seeds:
                    found = attempt(self._on_stream, of_meeting[0], scored, seed)
                    if isinstance(found, Failure):
                        failure = Failure(f"stream {seed}: {found.message}")
                        found = failure, [failure] * len(scored)
                    stream_outcome, outcomes = found
                    by_stream.append(outcomes)
                    if seed in streams:
                        yield streams[seed], stream_outcome
                    bar.update()
                for number, cell in enumerate(scored):
                    yield cell, measures.of_streams([outcomes[number] for outcomes in by_stream])

    # Streams ----------------------------------------------------------------------------------------------------

    def _train_of(self, adapter: PlannedAdapter) -> Stream | None:
        """Return the training images on which scorers are fitted again after the adapter, if they are."""
        train, suite = self.job.sets.id_data.train, self.job.plan.suite
        if train is None or not refits(self.job.plan, adapter):
            return None
        return Stream.mixed([train.limited(settings(suite).refit)], batch_size=batch_size(suite), seed=0)

    def _streams(self, cell: MixtureCell, seed: int) -> list[OpenStream]:
        """Make the streams of a seed. Raises HarnessError if the OOD set could not be opened."""
        outliers = self.job.sets.selection(cell.mixture.ood.name)
        separate = cell.adapter.protocol == SEPARATE
        return mixer(self.job).streams(cell.mixture, outliers, seed=seed, separate=separate)

    def _traces(self, cell: MixtureCell, seed: int) -> tuple[str, ...]:
        """Name the traces of a seed's streams in the cache, by everything that they depend on."""
        place = (*_meeting(cell), seed)
        if place not in self._keys:
            adapter, train, loaded = cell.adapter, self._train_of(cell.adapter), self.job.bench.loaded
            after, refit = settings(self.job.plan.suite).after, train.digest if train is not None else None
            described = {"name": adapter.offered.spec.name, "code": self.job.key(adapter, after, refit)}
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
        streams, keys = self._streams(cell, seed), self._traces(cell, seed)
        with (
            undisturbed(bench.loaded.device),
            bench.clock.measure_with_memory("adapt", scorer=adapter.label, on=on),
        ):
            traces = [
                self._trace(adapter, opened.stream, key) for opened, key in zip(streams, keys, strict=True)
            ]
        is_id = ~streams[0].is_ood
        metrics = traces[0].metrics(is_id, num_outputs=bench.loaded.model.num_classes)
        counts = {"n_id": int(is_id.sum()), "n_ood": sum(int(opened.is_ood.sum()) for opened in streams)}
        return Measured({"metrics": metrics, **counts}), self._scores(scored, streams, traces)

    def _trace(self, adapter: PlannedAdapter, stream: Stream, key: str) -> Trace:
        bench, suite = self.job.bench, self.job.plan.suite
        return traced(
            lambda: bench.shared(Prepared).passage(adapter, suite),
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
            name, scorer = str(cell.place["scorer"]), self._fitted(cell, traces[0].refit)
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
    """Name the adapter and mixture of a cell: cells with the same name share their passages."""
    return cell.adapter.label, cell.adapter.protocol, cell.mixture.name, cell.mixture.percent


def _sides(parts: list[Tensor | Failure], is_ood: Tensor) -> Outcome:
    """Join the scores of a seed's streams, and split ID from OOD; or return the first failure."""
    import torch

    scores = []
    for part in parts:
        if isinstance(part, Failure):
            return part
        scores.append(part)
    joined = torch.cat(scores)
    return joined[~is_ood], joined[is_ood]


class Mixtures(Evaluation[MixtureCell]):
    """OOD detection under adaptation."""

    name = f"{SCORE} under {ADAPTATION}"
    sitting = Detecting

    def names_of_sets(self, plan: Plan) -> Iterable[str]:
        """Return the names of the mixtures."""
        return [m.name for adapter in adapters(plan, meets_ood=True) for m in mixtures(plan, adapter)]

    def cells(self, plan: Plan, model: PlannedModel) -> Iterable[MixtureCell]:
        """Yield every adapter whose streams hold OOD, on every mixture: each stream's cell, then each scorer's."""
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
