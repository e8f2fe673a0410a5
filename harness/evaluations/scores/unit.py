"""One model of a run: its cells share features, fits and ID scores."""

from __future__ import annotations

import logging
from functools import cached_property
from typing import TYPE_CHECKING, Any

from harness.base import digests
from harness.base.errors import HarnessError
from harness.contract.specs import STREAM
from harness.data.opening import CSID
from harness.data.streams import Stream
from harness.engine.recorder import ID
from harness.engine.scoring import Failure, checked_scores, describe, score_features
from harness.evaluations import measures as evaluation
from harness.evaluations.probes.measure import Probing
from harness.models.loaded import libraries
from harness.reports.records import SEPARATE, SOURCE, read_paired
from harness.reports.runs import place_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from harness.contract.protocols import AnyScorer
    from harness.data.opening import SetEntry
    from harness.engine.fits import Fits
    from harness.engine.plan import Cell, PlannedModel, PlannedScorer
    from harness.models.extract import Extraction

    Outcomes = dict[str, Tensor | Failure]  # by scorer

logger = logging.getLogger("ood_harness")


class Unit:
    """Runs the cells of one model under one adapter and protocol, those that the folder does not hold yet."""

    def __init__(self, model: PlannedModel, fits: Fits) -> None:
        self.model, self.fits, self.loaded, self.means = model, fits, fits.loaded, fits.means
        means = self.means
        self._recorder = means.recorder
        self._plan, self._id_data = means.recorder.plan, means.recorder.id_data
        self._folder, self._streams = means.recorder.folder, means.recorder.streams
        self._id_scores: Outcomes = {}
        self._scores: dict[str, Outcomes] = {entry.name: {} for entry in self._plan.sets}
        self.probing = Probing(model, self.loaded, means.recorder, means.clock, fits.train)

    @cached_property
    def scorers(self) -> dict[str, PlannedScorer]:
        """The applicable scorers by label."""
        return {s.label: s for s in self._plan.scorers if STREAM not in s.needs and not self._missing(s)}

    @cached_property
    def cells(self) -> dict[tuple[str, str], Cell]:
        """The applicable cells by set and scorer."""
        cells = self._plan.cells(self.model)
        return {(c.entry.name, c.scorer.label): c for c in cells if c.scorer.label in self.scorers}

    def not_applicable(self) -> list[dict[str, object]]:
        """List the scorers and probes whose needs exceed what the model and the data offer, with what is missing."""
        return self.probing.not_applicable() + [
            {
                "model": self.model.label,
                "seed": self.model.seed,
                "adapter": SOURCE,
                "protocol": SEPARATE,
                "scorer": s.label,
                "missing": self._missing(s),
            }
            for s in self._plan.scorers
            if self._missing(s)
        ]

    def run(self) -> list[dict[str, Any]]:
        """Measure what is missing, journal it, and return the model's blocks for paired.json."""
        pending = {
            key for key, cell in self.cells.items() if not self._is_done(cell.cell_id, self._code_ids[key])
        }
        undescribed = {name for name in self._labelled_sets() if not self._is_described(name)}
        kept = [block for block in read_paired(self._folder.path) if block["cells"] == self._code_digest]
        unprobed = {name for name in self._streams if self.probing.pending(name)}
        if not pending and not undescribed and not unprobed and (kept or not self.cells):
            return kept
        work = self._work(pending)
        labels = sorted({label for labels in work.values() for label in labels})
        fitted = {label: self.fits.scorer(self.scorers[label]) for label in labels}
        self._id_scores |= self._visit(
            ID, work[ID], fitted, describe_model=ID in undescribed, probe=ID in unprobed
        )
        for entry in self._plan.sets:
            name = entry.name
            self._scores[name] |= self._visit(
                name, work[name], fitted, describe_model=name in undescribed, probe=name in unprobed
            )
            for label in sorted(label for of_set, label in pending if of_set == name):
                self._record(entry, label)
        return self._paired_blocks()

    # What there is to do ----------------------------------------------------------------------------------------

    def _missing(self, scorer: PlannedScorer) -> list[str]:
        return self.fits.missing(scorer.needs)

    def _is_done(self, cell_id: str, code_id: str) -> bool:
        return self._folder.is_done(cell_id, code_id)

    def _is_described(self, name: str) -> bool:
        return self._is_done(self._plan.cell_id(self.model, "", name), self._features_key(name, layers=False))

    def _labelled_sets(self) -> list[str]:
        """List the sets on which the model's accuracy is known: ID test and shifted ID, none of an encoder."""
        if "logits" not in self.loaded.offers:
            return []
        shifted = [entry.name for entry in self._plan.sets if entry.group == CSID]
        return [name for name in (ID, *shifted) if isinstance(self._streams[name], Stream)]

    def _work(self, pending: set[tuple[str, str]]) -> dict[str, list[str]]:
        """List the scorers to run on each set: those of pending cells, and those whose kept scores are gone."""
        work: dict[str, list[str]] = {entry.name: [] for entry in self._plan.sets}
        for (name, label), cell in self.cells.items():
            kept = None if (name, label) in pending else self._folder.records[cell.cell_id]["scores"]
            if kept is not None and label not in self._id_scores:
                self._restore(self._id_scores, label, kept["id"])
            if kept is None or not self._restore(self._scores[name], label, kept["ood"]):
                work[name].append(label)
        return {ID: [label for label in self.scorers if label not in self._id_scores], **work}

    def _restore(self, scores: Outcomes, label: str, name: str) -> bool:
        import torch

        array = self._folder.load_scores(name)
        if array is not None:
            scores[label] = torch.from_numpy(array).to(self.loaded.device)
        return array is not None

    # Scoring ----------------------------------------------------------------------------------------------------

    def _visit(
        self,
        name: str,
        labels: list[str],
        fitted: Mapping[str, AnyScorer | Failure],
        *,
        describe_model: bool,
        probe: bool,
    ) -> Outcomes:
        """Extract one set, where anything is to be done on it; score it with the given scorers, and probe it."""
        stream = self._streams[name]
        if not labels and not describe_model and not probe:
            return {}
        if isinstance(stream, Failure):
            self.probing.run(name, stream)
            return dict.fromkeys(labels, stream)
        outcomes: Outcomes = {label: f for label in labels if isinstance(f := fitted[label], Failure)}
        ready = {label: scorer for label in labels if not isinstance(scorer := fitted[label], Failure)}
        readers: dict[str, Any] = {label: s for label, s in ready.items() if hasattr(s, "score_images")}
        try:
            extraction = self.fits.extract(name, stream, readers)
        except Exception as error:  # a stranger's dataset or model may raise anything
            logger.warning("%s, set %s: %s", self.model.label, name, describe(error))
            self.probing.run(name, Failure(describe(error)))
            return dict.fromkeys(labels, Failure(describe(error)))
        if describe_model:
            metrics = evaluation.model_metrics(extraction.features)
            self._recorder.model(self.model, name, self._features_key(name, layers=False), metrics)
        self.probing.run(name, extraction.features)
        scored = {label: self._image_scores(extraction, name, label) for label in readers}
        others: dict[str, Any] = {
            label: (self.scorers[label], s) for label, s in ready.items() if label not in readers
        }
        scored |= score_features(others, extraction.features, self.means.clock, on=name)
        for label, outcome in scored.items():
            if isinstance(outcome, Failure):
                logger.warning("%s, scorer %s on %s: %s", self.model.label, label, name, outcome.message)
        return outcomes | scored

    def _image_scores(self, extraction: Extraction, name: str, label: str) -> Tensor | Failure:
        import torch

        result = extraction.image_scores[label]
        self.means.clock.count(label, on=name, forwards=result.forwards, backwards=result.backwards)
        if result.scores is None:
            return Failure(result.error or "gave no scores")
        return checked_scores(torch.from_numpy(result.scores).to(self.loaded.device))

    # Records ----------------------------------------------------------------------------------------------------

    def _record(self, entry: SetEntry, label: str) -> None:
        cell, code_id = self.cells[entry.name, label], self._code_ids[entry.name, label]
        measured = self._measured(entry.name, label)
        if isinstance(measured, Failure):
            self._recorder.cell(cell, code_id, error=measured.message)
        else:
            self._recorder.cell(cell, code_id, outliers=self.loaded.model.outliers, **measured)

    def _measured(self, name: str, label: str) -> dict[str, object] | Failure:
        id_scores, ood_scores = self._id_scores[label], self._scores[name][label]
        if isinstance(id_scores, Failure):
            return id_scores
        if isinstance(ood_scores, Failure):
            return ood_scores
        try:
            with self.means.clock.measure("metrics", scorer=label, on=name):
                metrics = evaluation.cell_metrics(id_scores, ood_scores)
        except HarnessError as error:  # too few samples for an interval
            return Failure(str(error))
        return {"metrics": metrics, "scores": {"id": self._save(id_scores), "ood": self._save(ood_scores)}}

    def _save(self, scores: Tensor) -> str:
        return self._folder.save_scores(scores.cpu().numpy())

    def _paired_blocks(self) -> list[dict[str, Any]]:
        self._join_earlier_scorers()
        with self.means.clock.measure("ranks"):
            blocks = evaluation.paired_blocks(
                _numbers(self._id_scores), self._numbers_by_set(), self._plan.sets
            )
        place = {"model": self.model.label, "seed": self.model.seed, "adapter": SOURCE, "protocol": SEPARATE}
        return [{**place, "cells": self._code_digest, **block} for block in blocks]

    def _join_earlier_scorers(self) -> None:
        """Restore what scorers of earlier runs into this folder gave, so that all are ranked together."""
        for record in list(self._folder.records.values()):
            same = (record["kind"], place_of(record), record["seeds"]["model"]) == (
                "score",
                (self.model.label, SOURCE, SEPARATE),
                self.model.seed,
            )
            label, name = record["scorer"], record["ood"]
            if same and label not in self.scorers and record["scores"] and name in self._scores:
                if label not in self._id_scores:
                    self._restore(self._id_scores, label, record["scores"]["id"])
                self._restore(self._scores[name], label, record["scores"]["ood"])

    def _numbers_by_set(self) -> dict[str, dict[str, Tensor]]:
        return {name: _numbers(outcomes) for name, outcomes in self._scores.items()}

    # What the numbers depend on ---------------------------------------------------------------------------------

    @cached_property
    def _code_ids(self) -> dict[tuple[str, str], str]:
        """Digest all that each cell's numbers depend on; "" where its set cannot be opened."""
        return {key: self._code_id(cell) for key, cell in self.cells.items()}

    def _code_id(self, cell: Cell) -> str:
        needs, data, offered = cell.scorer.needs, self._id_data, cell.scorer.offered
        ood_features = self._features_key(cell.entry.name, layers="layers" in needs)
        if not ood_features:
            return ""
        return digests.code_id(
            id_features=self._features_key(ID, layers="layers" in needs),
            ood_features=ood_features,
            fit=data.digests_of(needs),
            scorer=offered.spec.name,
            params=cell.scorer.params,
            source=offered.source,
            version=offered.version,
            libraries=libraries(),
        )

    def _features_key(self, name: str, *, layers: bool) -> str:
        stream = self._streams[name]
        return "" if isinstance(stream, Failure) else self.loaded.features_key(stream, layers=layers)

    @cached_property
    def _code_digest(self) -> str:
        return digests.digest(self.model.label, self.model.seed, sorted(self._code_ids.values()))


def _numbers(outcomes: Outcomes) -> dict[str, Tensor]:
    return {label: outcome for label, outcome in outcomes.items() if not isinstance(outcome, Failure)}
