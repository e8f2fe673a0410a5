"""The rows of scores.parquet: for each image the prediction of a model, and the scores of all scorers."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.base.digests import digest
from harness.base.errors import HarnessError, RecordsError, one_line
from harness.contract.protocols import LocatedImages
from harness.engine.guard import Failure, attempt
from harness.evaluations import measures
from harness.reports.record import ID, SCORE, SEPARATE, SOURCE
from harness.reports.records import read_scores
from harness.reports.samples import CHUNK, SAMPLES, PartPlace, column

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    from harness.contract.features import Features
    from harness.contract.selection import Selection
    from harness.data.streams import Stream
    from harness.engine.evaluation import Job

    Kept = Mapping[str, Mapping[str, str]]  # digests of scores, by set and scorer

logger = logging.getLogger("ood_harness")

_VERSION = 1  # raise it if the rows of equal scores change


def write_rows(job: Job) -> None:
    """Write the rows of a job's model, unless the folder holds them. Sets without a score have none.

    If a set or a scorer cannot be read now, the model has no rows, and a warning says so: rows are whole or absent.
    """
    kept = _kept_scores(job)
    streams = {name: job.sets.stream(name) for name in (ID, *(entry.name for entry in job.plan.sets))}
    opened = {name: stream for name, stream in streams.items() if kept.get(name)}
    data = {name: stream.parts[0].digest for name, stream in opened.items()}
    model = job.model
    key = digest(_VERSION, model.label, model.seed, job.bench.loaded.digest, data, kept)
    place = PartPlace(job.folder.path, model.label, model.seed, key)
    scorers = sorted({scorer for of_set in kept.values() for scorer in of_set})
    if not opened:
        place.path.unlink(missing_ok=True)  # of scores that are gone
        return
    if place.is_written():
        return
    try:
        place.write([column(scorer) for scorer in scorers], _rows(job, opened, kept))
    except HarnessError as error:
        place.path.unlink(missing_ok=True)  # the rows of an earlier run are of other scores
        message = "%s, seed %d, has no rows in %s: %s. The same command adds them"
        logger.warning(message, model.label, model.seed, SAMPLES, one_line(error))


def _kept_scores(job: Job) -> dict[str, dict[str, str]]:
    """Find the scores of single images that the folder holds of the model, by set and scorer."""
    mine = SCORE, (job.model.label, SOURCE, SEPARATE), job.model.seed
    found: dict[str, dict[str, str]] = {}
    for record in job.folder.records.values():
        if (record.kind, record.place, record.seed) != mine or not record.scores or record.by_stream:
            continue  # a scorer of whole streams has no score per image
        for name, side in ((ID, "id"), (record.on, "ood")):
            found.setdefault(name, {})[str(record.scorer)] = record.scores[side]
    return {name: dict(sorted(of_set.items())) for name, of_set in sorted(found.items())}


def _rows(job: Job, streams: Mapping[str, Stream], kept: Kept) -> Iterator[dict[str, Any]]:
    for name, stream in streams.items():
        features = attempt(job.bench.features, name, stream)
        if isinstance(features, Failure):
            raise features.error()
        arrays = {column(scorer): _read(job, kept_as) for scorer, kept_as in kept[name].items()}
        start = 0
        for chunk in features.only(frozenset({"logits", "ids"})).chunks(CHUNK):
            positions = np.arange(start, start + len(chunk))
            start += len(chunk)
            labels = stream.labels[positions]
            yield {
                "set": [name] * len(positions),
                "path": _paths(stream.parts[0], positions),
                "position": positions,
                "label": np.ma.masked_less(labels, 0),
                **_said(chunk, stream.parts[0].competing),
                **{scorer: array[positions] for scorer, array in arrays.items()},
            }


def _read(job: Job, name: str) -> NDArray[np.float64]:
    scores = read_scores(job.folder.path, name)
    if scores is None:
        raise RecordsError(f"the kept scores {name} cannot be read")
    return scores


def _said(chunk: Features, among: NDArray[np.int64] | None) -> dict[str, NDArray[Any]]:
    """Return the predictions and confidences of a classifier, among the classes that compete; {} for an encoder."""
    if "logits" not in chunk.fields:
        return {}
    confidence, predicted = measures.likeliest(chunk.logits, among)
    return {"prediction": predicted.cpu().numpy(), "confidence": confidence.cpu().numpy()}


def _paths(selection: Selection, positions: NDArray[np.int64]) -> list[str | None]:
    dataset = selection.dataset
    if not isinstance(dataset, LocatedImages):
        return [None] * len(positions)
    return [dataset.path(int(index)) for index in selection.indices[positions]]
