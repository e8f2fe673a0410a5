"""Scores of every sample of a set, one set at a time: model × scorer × set."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

from harness.base import digests
from harness.base.errors import HarnessError
from harness.contract.protocols import ImageScorer
from harness.contract.specs import STREAM
from harness.engine.evaluation import Cell, Evaluation, Measured, Sitting
from harness.engine.guard import Failure, attempt
from harness.evaluations import measures
from harness.evaluations.scores import section
from harness.evaluations.scores.features import checked_scores, score_features
from harness.evaluations.scores.report import Boards
from harness.evaluations.scores.samples import write_rows
from harness.evaluations.scores.section import ScoreSection, planned_scorers
from harness.reports.record import ID, SCORE, SEPARATE, SOURCE, TRAINED_ON
from harness.reports.records import read_paired, read_scores

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from torch import Tensor

    from harness.contract.protocols import AnyScorer, Scorer
    from harness.contract.registry import Registry
    from harness.data.sets import SetEntry
    from harness.engine.evaluation import Job
    from harness.engine.plan import Plan, Planned, PlannedModel
    from harness.engine.suite import Suite
    from harness.models.extract import Extraction

    Outcomes = dict[str, Tensor | Failure]  # by scorer


logger = logging.getLogger("ood_harness")


@dataclass(frozen=True, eq=False)
class ScoreCell(Cell):
    """A model, a scorer and a set."""

    worker: Planned
    entry: SetEntry = field(kw_only=True)


def score_cells(
    plan: Plan,
    model: PlannedModel,
    is_mine: Callable[[Planned, SetEntry], bool],
    *,
    seeds: list[int] | None = None,
    **more: object,
) -> Iterator[ScoreCell]:
    """Yield the cells of a kind's scorers and sets. `seeds` are of their streams, `more` further keys of records."""
    for entry in plan.sets:
        for scorer in plan.named("scorers"):
            if is_mine(scorer, entry):
                cell_id = plan.cell_id(model, what=scorer.label, on=entry.name)
                place = {"adapter": SOURCE, "protocol": SEPARATE, "scorer": scorer.label}
                head = {"kind": SCORE, "group": entry.group, **more}
                needs = scorer.needs
                yield ScoreCell(model, scorer, entry.name, cell_id, place, head, needs, seeds, entry=entry)


class Scoring(Sitting[ScoreCell]):
    """The scorers of one model. They share features, fits and ID scores."""

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self.bench = job.bench
        self._id_scores: Outcomes = {}
        self._scores: dict[str, Outcomes] = {entry.name: {} for entry in job.plan.sets}
        self._has_visited = False
        planned = [s for s in job.plan.named("scorers") if STREAM not in s.needs and not job.missing(s.needs)]
        self.scorers = {scorer.label: scorer for scorer in planned}  # those that apply
        cells = score_cells(job.plan, job.model, lambda scorer, _: scorer.label in self.scorers)
        self.cells = {(cell.on, cell.worker.label): cell for cell in cells}

    def key(self, cell: ScoreCell) -> str:
        """Digest everything that the cell's numbers depend on."""
        layers, loaded = "layers" in cell.worker.needs, self.bench.loaded
        streams = [self.job.sets.stream(name) for name in (ID, cell.on)]
        features = [loaded.features_key(stream, layers=layers) for stream in streams]
        return self.job.key(cell.worker, features, measures.METRICS)

    def measure(self, cells: Sequence[ScoreCell]) -> Iterator[tuple[ScoreCell, Measured | Failure]]:
        """Score ID test and then set by set; each is extracted once for all scorers."""
        if cells:
            yield from self._visit_all({(cell.on, cell.worker.label) for cell in cells})

    def finish(self, cells: Sequence[ScoreCell]) -> None:
        """Write the covariances between scorers, from which ranks are computed, and the scores of every image."""
        self._write_covariances(cells)
        write_rows(self.job)

    def _write_covariances(self, cells: Sequence[ScoreCell]) -> None:
        blocks = read_paired(self.job.folder.path)
        kept = {block["group"] for block in blocks if block["cells"] == self._cells_digest}
        is_whole = kept >= measures.group_weights(self.job.plan.sets).keys()
        if not self._has_visited and (is_whole or not cells):
            return
        if not self._has_visited:
            for _ in self._visit_all(set()):
                pass
            self._warn_of_missing_ranks()
        self.job.folder.write_paired(self._paired_blocks())

    # Scoring ----------------------------------------------------------------------------------------------------

    def _visit_all(self, pending: set[tuple[str, str]]) -> Iterator[tuple[ScoreCell, Measured | Failure]]:
        self._has_visited = True
        work = self._work(pending)
        self._id_scores |= self._visit(ID, work[ID])
        sets = self.job.plan.sets
        with self.job.progress("score", len(sets), "set") as bar:
            for number, entry in enumerate(sets, start=1):
                bar.set_description(f"set {number} of {len(sets)}, {entry.name}", refresh=False)
                self._scores[entry.name] |= self._visit(entry.name, work[entry.name])
                for label in sorted(label for of_set, label in pending if of_set == entry.name):
                    yield self.cells[entry.name, label], self._measured(entry, label)
                bar.update()

    def _work(self, pending: set[tuple[str, str]]) -> dict[str, list[str]]:
        """List the scorers to run on each set: those of pending cells, and those whose kept scores are gone."""
        work: dict[str, list[str]] = {entry.name: [] for entry in self.job.plan.sets}
        for (name, label), cell in self.cells.items():
            kept = None if (name, label) in pending else self.job.folder.records[cell.cell_id].scores
            if kept is not None and label not in self._id_scores:
                self._restore(self._id_scores, label, kept["id"])
            if kept is None or not self._restore(self._scores[name], label, kept["ood"]):
                work[name].append(label)
        return {ID: [label for label in self.scorers if label not in self._id_scores], **work}

    def _restore(self, scores: Outcomes, label: str, name: str) -> bool:
        import torch

        array = read_scores(self.job.folder.path, name)
        if array is not None:
            scores[label] = torch.from_numpy(array).to(self.bench.loaded.device)
        return array is not None

    def _visit(self, name: str, labels: list[str]) -> Outcomes:
        """Extract one set and score it with the given scorers; image scorers run in the same pass."""
        if not labels:
            return {}
        stream = self.job.sets.stream(name)
        fitted: dict[str, AnyScorer | Failure] = {s: self.bench.fitted(self.scorers[s]) for s in labels}
        outcomes: Outcomes = {label: f for label, f in fitted.items() if isinstance(f, Failure)}
        ready = {label: scorer for label, scorer in fitted.items() if not isinstance(scorer, Failure)}
        readers = {label: s for label, s in ready.items() if isinstance(s, ImageScorer)}
        extraction = attempt(self.bench.extract, name, stream, readers)
        if isinstance(extraction, Failure):
            return dict.fromkeys(labels, extraction)
        scored = {label: self._image_scores(extraction, name, label) for label in readers}
        others = {
            label: (self.scorers[label], cast("Scorer", s))
            for label, s in ready.items()
            if label not in readers
        }
        return outcomes | scored | score_features(others, extraction.features, self.bench.clock, on=name)

    def _image_scores(self, extraction: Extraction, name: str, label: str) -> Tensor | Failure:
        import torch

        result = extraction.image_scores[label]
        self.bench.clock.count(label, on=name, forwards=result.forwards, backwards=result.backwards)
        if result.scores is None:
            return Failure(result.error or "gave no scores")
        return checked_scores(torch.from_numpy(result.scores).to(self.bench.loaded.device))

    # Records ----------------------------------------------------------------------------------------------------

    def _measured(self, entry: SetEntry, label: str) -> Measured | Failure:
        id_scores, ood_scores = self._id_scores[label], self._scores[entry.name][label]
        if isinstance(id_scores, Failure):
            return id_scores
        if isinstance(ood_scores, Failure):
            return ood_scores
        try:
            with self.bench.clock.measure("metrics", scorer=label, on=entry.name):
                metrics = measures.cell_metrics(id_scores, ood_scores)
        except HarnessError as error:  # too few samples for an interval
            return Failure(str(error))
        is_known = entry.dataset in self.bench.loaded.model.outliers
        return Measured(
            {
                "metrics": metrics,
                "scores": {"id": self._save(id_scores), "ood": self._save(ood_scores)},
                "flags": measures.flags(metrics) + ([TRAINED_ON] if is_known else []),
            }
        )

    def _save(self, scores: Tensor) -> str:
        return self.job.folder.save_scores(scores.cpu().numpy())

    def _paired_blocks(self) -> list[dict[str, Any]]:
        self._join_earlier_scorers()
        with self.bench.clock.measure("ranks"):
            blocks = measures.paired_blocks(
                _numbers(self._id_scores),
                {name: _numbers(outcomes) for name, outcomes in self._scores.items()},
                self.job.plan.sets,
            )
        model = self.job.model
        place = {"model": model.label, "seed": model.seed, "adapter": SOURCE, "protocol": SEPARATE}
        return [{**place, "cells": self._cells_digest, **block} for block in blocks]

    def _warn_of_missing_ranks(self) -> None:
        """Log the scorers whose kept scores are gone and could not be made again: they get no ranks."""
        for name, outcomes in ((ID, self._id_scores), *self._scores.items()):
            for label, outcome in outcomes.items():
                if isinstance(outcome, Failure):
                    place = self.job.model.title, label, name, outcome.message
                    logger.warning("%s, %s on %s: no ranks, since its scores are gone: %s", *place)

    def _join_earlier_scorers(self) -> None:
        """Restore the scores of scorers that ran into this folder before, so that all are ranked together."""
        mine = SCORE, (self.job.model.label, SOURCE, SEPARATE), self.job.model.seed
        gone: set[str] = set()
        for record in list(self.job.folder.records.values()):
            label, name = str(record.scorer), record.on
            is_mine = (record.kind, record.place, record.seed) == mine and not record.by_stream
            if is_mine and label not in self.scorers and record.scores and name in self._scores:
                has_id = label in self._id_scores or self._restore(
                    self._id_scores, label, record.scores["id"]
                )
                if not has_id or not self._restore(self._scores[name], label, record.scores["ood"]):
                    gone.add(label)
        if gone:
            logger.warning(
                "%s: the scores of %s are gone, so the others are ranked without them. Run the whole suite again",
                self.job.model.title,
                ", ".join(sorted(gone)),
            )

    @cached_property
    def _cells_digest(self) -> str:
        keys = [attempt(self.key, cell) for cell in self.cells.values()]
        ready = sorted("" if isinstance(key, Failure) else key for key in keys)
        return digests.digest(self.job.model.label, self.job.model.seed, ready)


def _numbers(outcomes: Mapping[str, Tensor | Failure]) -> dict[str, Tensor]:
    return {label: outcome for label, outcome in outcomes.items() if not isinstance(outcome, Failure)}


class Scores(Evaluation[ScoreCell]):
    """Scorers that look at one sample at a time."""

    name = SCORE
    cost_is_declared = True
    sitting = Scoring
    section = ScoreSection
    report = Boards()

    def workers(self, suite: Suite, registry: Registry) -> dict[str, Iterable[Planned]]:
        """Resolve the scorers."""
        return {"scorers": planned_scorers(suite, registry)}

    def check(self, plan: Plan) -> None:
        """Raise InputError for a suite that measures nothing."""
        section.check(plan)

    def cells(self, plan: Plan, model: PlannedModel) -> Iterable[ScoreCell]:
        """Yield every scorer on every set."""
        return score_cells(plan, model, lambda scorer, _: STREAM not in scorer.needs)
