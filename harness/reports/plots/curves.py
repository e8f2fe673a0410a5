"""The data of pictures of a run's scores: the chosen records, and the arrays to draw, from the folder alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from harness.base.errors import RecordsError, unknown_name
from harness.data.sets import CSID
from harness.reports.leaderboard import leaderboard
from harness.reports.plots import drawing
from harness.reports.record import SCORE, SEPARATE, SOURCE, TRANSDUCTIVE, Record, place_of
from harness.reports.records import SCORES, read_manifest, read_records, read_scores

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

BINS = 40
_NARROWEST = 1e-280  # a range whose bins still have a density that float64 can hold


@dataclass(frozen=True)
class Choice:
    """The chosen part of a run; None and () are the picture's defaults."""

    model: str | None = None
    seed: int | None = None
    scorers: Sequence[str] = ()
    sets: Sequence[str] = ()


@dataclass(frozen=True)
class Scored:
    """The score records of one model and seed."""

    folder: Path
    suite: str
    model: str
    seed: int
    groups: Mapping[str, str]  # by set, in the suite's order
    scorers: Sequence[str]  # the best on the board first
    cells: Mapping[tuple[str, str], Record]  # by scorer and set

    @property
    def title(self) -> str:
        """The suite, the model and the seed."""
        return f"{self.suite}: {self.model} (seed {self.seed})"

    @property
    def id_name(self) -> str:
        """The ID dataset, without its folder."""
        return PurePath(next(iter(self.cells.values())).id).name

    def has(self, scorer: str, name: str) -> bool:
        """Return whether there are per-sample scores of the scorer on the set."""
        record = self.cells.get((scorer, name))
        return record is not None and bool(record.scores) and TRANSDUCTIVE not in record.flags

    def record(self, scorer: str, name: str) -> Record:
        """Return a measured cell's record. Raises RecordsError if it failed or was not run."""
        record = self.cells.get((scorer, name))
        if record is None or not record.scores:
            reason = record.error if record else "it was not run"
            raise RecordsError(f"the scorer {scorer!r} has no scores on {name!r} with {self.model}: {reason}")
        if TRANSDUCTIVE in record.flags:
            raise RecordsError(
                f"the scorer {scorer!r} scores whole streams, and no scores of single samples are kept. Name another"
            )
        return record

    def scores(self, scorer: str, name: str) -> tuple[Array, Array]:
        """Read a measured cell's per-sample scores: (ID, OOD)."""
        kept = self.record(scorer, name).scores or {}
        return self._read(kept["id"]), self._read(kept["ood"])

    def _read(self, name: str) -> Array:
        scores = read_scores(self.folder, name)
        if scores is None:
            path = self.folder / SCORES / f"{name}.npy"
            state = "are damaged" if path.exists() else "are gone; committed boards have none"
            raise RecordsError(
                f"the scores {str(path)!r} {state}. Run the suite into a new folder and plot that: "
                f"ood-harness run {self.suite} --out NEW"
            )
        return scores


def read_scored(folder: Path, choice: Choice) -> Scored:
    """Read the records of the chosen model and seed.

    Raises RecordsError for a folder without score records, UnknownNameError for an unknown model, seed, scorer or set.
    """
    records = [r for r in read_records(folder) if r.kind == SCORE and r.place[1:] == (SOURCE, SEPARATE)]
    if not records:
        raise RecordsError(f"{str(folder)!r} has records of adapted models only, which are not drawn")
    board = leaderboard([folder], protocol=SEPARATE)
    models = _in_order({r.model for r in records}, read_manifest(folder))
    model = one_of("model", choice.model, models)
    seed = one_of("seed", choice.seed, sorted({r.seed for r in records if r.model == model}))
    cells = {(str(r.scorer), r.on): r for r in records if (r.model, r.seed) == (model, seed)}
    ranked = [row["scorer"] for row in board.rows if place_of(row) == (model, SOURCE, SEPARATE)]
    scorers = [scorer for scorer in ranked if any(scorer == of_cell for of_cell, _ in cells)]
    for kind, names, valid in (("scorer", choice.scorers, scorers), ("set", choice.sets, board.sets)):
        for name in names:
            one_of(kind, name, list(valid))
    return Scored(folder, board.suite, model, seed, board.sets, scorers, cells)


def histograms(folder: Path, choice: Choice, *, log: bool = False) -> drawing.Histograms:
    """Compute the densities of ID's and each set's scores, one panel per scorer.

    By default the best scorer on the board, on every near and far set on which it was measured.
    """
    scored = read_scored(folder, choice)
    sets = chosen_sets(choice, scored.groups)
    leading = [s for s in scored.scorers if any(scored.has(s, name) for name in sets)]
    scorers = distinct(choice.scorers) or leading[:1] or scored.scorers[:1]
    panels = []
    for scorer in scorers:
        measured = [name for name in sets if scored.has(scorer, name)]
        panels.append(_histogram(scored, scorer, sets if choice.sets else measured or sets))
    title = f"{scored.title}, {scorers[0]}" if len(scorers) == 1 else scored.title
    names = scorers if len(scorers) > 1 else [""]
    return drawing.Histograms(
        title, scored.id_name, scored.groups, dict(zip(names, panels, strict=True)), log=log
    )


def _histogram(scored: Scored, scorer: str, sets: Sequence[str]) -> drawing.Histogram:
    pairs = {name: scored.scores(scorer, name) for name in sets}
    id_scores, _ = pairs[sets[0]]
    edges = shared_edges([id_scores, *(ood_scores for _, ood_scores in pairs.values())])
    return drawing.Histogram(
        edges, density(id_scores, edges), {name: density(ood, edges) for name, (_, ood) in pairs.items()}
    )


def shared_edges(samples: Sequence[Array], bins: int = BINS) -> Array:
    """Cut the range of all finite scores into bins of one width, (B + 1,)."""
    import numpy as np

    scores = np.concatenate(samples)
    finite = scores[np.isfinite(scores)]
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 0.0)
    scale = max(abs(low), abs(high))
    if high - low <= max(1e-9 * scale, _NARROWEST):  # one value: put it in the middle
        low, high = low - max(0.5, 1e-6 * scale), high + max(0.5, 1e-6 * scale)
    edges: Array = np.linspace(low, high, bins + 1)
    return edges


def density(scores: Array, edges: Array) -> Array:
    """Return the share of scores in each bin over its width, (B,); infinite scores count in the outermost bins."""
    import numpy as np

    counts, _ = np.histogram(np.clip(scores, edges[0], edges[-1]), edges)
    shares: Array = counts / (len(scores) * np.diff(edges))
    return shares


def rocs(folder: Path, choice: Choice, *, log: bool = False) -> drawing.RocPanels:
    """Compute ROC curves, one panel per set and one curve per scorer; scorers with equal scores share a curve.

    By default every scorer that was measured, on the suite's first set.
    """
    scored = read_scored(folder, choice)
    sets = distinct(choice.sets) or list(scored.groups)[:1]
    panels = {}
    for name in sets:
        measured = [scorer for scorer in scored.scorers if scored.has(scorer, name)]
        scorers = distinct(choice.scorers) or measured or scored.scorers[:1]
        panels[f"{name} ({scored.groups[name]})"] = _curves(scored, scorers, name)
    return drawing.RocPanels(scored.title, panels, log=log)


def _curves(scored: Scored, scorers: Sequence[str], name: str) -> list[drawing.Curve]:
    """Compute one curve for each distinct pair of scores, the largest AUROC first."""
    alike: dict[tuple[str, str], list[str]] = {}
    for scorer in scorers:
        kept = scored.record(scorer, name).scores or {}
        alike.setdefault((kept["id"], kept["ood"]), []).append(scorer)
    curves = []
    for labels in alike.values():
        auroc = float(scored.record(labels[0], name).value("auroc") or 0.0)
        points = roc_points(*scored.scores(labels[0], name))
        curves.append(drawing.Curve(" = ".join(sorted(labels)), auroc, *points))
    return sorted(curves, key=lambda curve: -curve.auroc)


def roc_points(id_scores: Array, ood_scores: Array) -> tuple[Array, Array]:
    """Return the shares of ID and of OOD at or above every threshold, (P,) each: OOD is the positive class.

    One point per distinct score, from the largest down, after the origin. So ties make a slope, and the area below is
    the AUROC.
    """
    import numpy as np

    thresholds = np.unique(np.concatenate([id_scores, ood_scores]))[::-1]

    def flagged(scores: Array) -> Array:
        below = np.searchsorted(np.sort(scores), thresholds, side="left")
        shares: Array = np.concatenate([[0], len(scores) - below]) / len(scores)
        return shares

    return flagged(id_scores), flagged(ood_scores)


# What is chosen -----------------------------------------------------------------------------------------------------


def one_of(kind: str, given: str | int | None, valid: Sequence[Any]) -> Any:
    """Return the given name if it is valid; without one, the first valid name."""
    if given is None:
        return valid[0]
    if given not in valid:
        raise unknown_name(kind, str(given), map(str, valid), valid_label="In this run")
    return given


def distinct(names: Iterable[str]) -> list[str]:
    """Drop repeated names."""
    return list(dict.fromkeys(names))


def chosen_sets(choice: Choice, groups: Mapping[str, str]) -> list[str]:
    """Return the named sets; without any, the OOD sets, or all sets if there is shifted ID only."""
    ood = [name for name, group in groups.items() if group != CSID]
    return distinct(choice.sets) or ood or list(groups)


def _in_order(models: set[str], manifest: Mapping[str, Any]) -> list[str]:
    """Sort models in the suite's order; models that are not in the last run come after."""
    known = [entry.rpartition(" (seed ")[0] for entry in manifest.get("models", {})]
    return distinct([*(model for model in known if model in models), *sorted(models)])
