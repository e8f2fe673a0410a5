"""From records to the leaderboard: one row per model, adapter, protocol and scorer, best first."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.base.errors import unknown_name
from harness.reports.cautions import cautions
from harness.reports.record import (
    SOURCE,
    Place,
    place_of,
    title_of_model,
)
from harness.reports.records import gathered, read_manifest, read_paired
from harness.reports.remarks import Remark, remarks_of
from harness.reports.runs import GROUPS, Row, Runs, mean_of_group, mean_over_sets, protocols_of, read_runs
from harness.reports.wording import preprocessing_text, rows_of
from harness.statistics import inference, intervals
from harness.statistics.metrics import METRICS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    import pandas as pd

_ROUNDING = 1e-9  # between a mean in paired.json and that of the records
RANKED = ("near", "far", "all")

Triple = tuple[float, float, float]  # value, lower, upper; NaN: missing
_NONE: Triple = (math.nan, math.nan, math.nan)


@dataclass(frozen=True)
class Board:
    """A leaderboard, and the facts for reading it."""

    frame: pd.DataFrame
    suite: str
    protocol: str  # with the per cent of ID, shifted ID and OOD in a stream, if it mixes them
    metric: str  # the metric of the main columns, and of the order
    group: str  # of the order: near, far, csid, or all, the mean of near and far
    fpr: str  # "fpr95_id" or "fpr95_ood"
    sets: dict[str, str]  # set: group, in the suite's order
    remarks: list[Remark]
    preprocessing: dict[str, str]  # by model, if run.json states it
    not_applicable: list[tuple[str, str, str]]  # the rows without cells: model, adapter and scorer

    @property
    def notes(self) -> list[str]:
        """The remarks, each with its subject."""
        return [str(remark) for remark in self.remarks]

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The frame's rows, by column."""
        return rows_of(self.frame)


def leaderboards(
    folders: Sequence[Path], *, metric: str = "auroc", group: str = "all", protocol: str | None = None
) -> list[Board]:
    """Build the leaderboards of one or several runs of a suite, one per protocol, or that of the given one alone.

    Raises as `leaderboard` does.
    """
    protocols: list[str | None] = [*protocols_of(folders)] if protocol is None else [protocol]
    return [leaderboard(folders, metric=metric, group=group, protocol=of) for of in protocols or [protocol]]


def leaderboard(
    folders: Sequence[Path], *, metric: str = "auroc", group: str = "all", protocol: str | None = None
) -> Board:
    """Build the leaderboard of one or several runs of a suite under one protocol; None: the only protocol.

    AUROC has its 95 % interval: for one checkpoint by DeLong on the logit scale, for several seeds by Student's t
    over the seeds, and for an adapted checkpoint by Student's t over its streams. Ranks are ranges within one model and
    adapter, from Holm-adjusted paired tests over all pairs. Raises RecordsError as read_runs does, and
    UnknownNameError for an unknown metric, group or protocol.
    """
    runs = read_runs(folders, protocol)
    _require_known(metric, group, runs)
    blocks: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for block in (block for folder in folders for block in read_paired(folder)):
        blocks.setdefault(_block_key(block), []).append(block)
    tables = [_Table(runs, place, blocks) for place in runs.rows]
    rows = [row for table in tables for row in table.rows(metric, group)]
    told = cautions(gathered(folders), [read_manifest(folder) for folder in folders])
    return Board(
        frame=_ordered(rows, metric, group),
        suite=runs.suite,
        protocol=runs.protocol,
        metric=metric,
        group=group,
        fpr=runs.fpr,
        sets=runs.sets,
        remarks=[*told, *(remark for table in tables for remark in table.remarks())],
        preprocessing={table.place[0]: stated for table in tables if (stated := table.preprocessing())},
        not_applicable=[
            (*table.place[:2], label)
            for table in tables
            for label, row in table.scorers.items()
            if not row.by_set
        ],
    )


@dataclass
class _Table:
    """The rows of one model under one adapter and protocol, which are ranked together."""

    runs: Runs
    place: Place
    blocks: Mapping[tuple[Any, ...], list[dict[str, Any]]]  # one per folder

    def __post_init__(self) -> None:
        self.scorers = self.runs.rows[self.place]
        self.seeds = sorted({seed for row in self.scorers.values() for seed in row.seeds()})
        self.aliases = _aliases(self.scorers)

    @property
    def mixes(self) -> bool:
        """Whether the rows are of streams that mix ID and OOD."""
        return any(record.mixture is not None for row in self.scorers.values() for record in row.records())

    def rows(self, metric: str, group: str) -> Iterator[dict[str, Any]]:
        """Yield each scorer's columns."""
        ranks, fpr = self._ranks(group), self.runs.fpr
        for label, row in self.scorers.items():
            best, worst = ranks.get(self.aliases.get(label, label), (None, None))
            values = {
                "suite": self.runs.suite,
                **dict(zip(("model", "adapter", "protocol"), self.place, strict=True)),
                "scorer": label,
                "same_as": self.aliases.get(label),
                "seeds": len(self.seeds),
                "rank_best": best,
                "rank_worst": worst,
                **_columns("id_accuracy", _summarised([*self.runs.accuracies.get(self.place, {}).values()])),
            }
            for name in (*GROUPS, "all"):
                values |= _columns(f"{name}_{metric}", self._group_value(row, name, metric))
                values[f"{name}_{fpr}"] = self._group_value(row, name, fpr)[0]
                if self.mixes:
                    values |= _columns(f"{name}_{metric}_gain", self._gain(row, name, metric))
            for name in self.runs.sets:
                for shown in dict.fromkeys((metric, fpr)):
                    values |= _columns(f"{name}_{shown}", self._set_value(row, name, shown))
            yield values

    def preprocessing(self) -> str:
        """Describe the preprocessing that run.json states; that of every seed, if they differ."""
        stated = (self.runs.models.get(title_of_model(self.place[0], seed), {}) for seed in self.seeds)
        found = [preprocessing_text(of["preprocessing"]) for of in stated if "preprocessing" in of]
        return " or ".join(dict.fromkeys(found))

    def remarks(self) -> Iterator[Remark]:
        """Yield caveats that rows cannot show."""
        is_split = any(len(of_place) > 1 for key, of_place in self.blocks.items() if key[:3] == self.place)
        return remarks_of(
            self.place, self.scorers, self.aliases, self.runs.sets, is_split=is_split, mixes=self.mixes
        )

    def _set_value(self, row: Row, name: str, metric: str) -> Triple:
        measured = [r.metrics.get(metric) for r in row.by_set.get(name, {}).values()]
        return _NONE if len(measured) != len(self.seeds) or None in measured else _summarised(measured)

    def _group_value(self, row: Row, group: str, metric: str) -> Triple:
        """Average a metric over a group's sets; missing if one of them is."""
        if metric == "auroc" and len(self.seeds) == 1:
            shown = mean_over_sets(row, self.seeds[0], self.runs.sets, group, metric)
            for block in self.blocks.get((*self.place, self.seeds[0], group), ()):
                # A block of other cells than those shown, of an earlier run, does not count.
                if (
                    row.scorer in block["scorers"]
                    and abs(_block_value(block, row.scorer)[0] - shown) < _ROUNDING
                ):
                    return _block_value(block, row.scorer)
        found = self._replicates(row, group, metric)
        return (found[0], math.nan, math.nan) if len(found) == 1 else _over_seeds(found)

    def _replicates(self, row: Row, group: str, metric: str) -> list[float]:
        """Average a metric over a group's sets, by the model's seed; for one adapted model, by stream."""
        if len(self.seeds) == 1:
            (seed,) = self.seeds
            by_set = {name: row.by_stream(name, seed, metric) for name in self.runs.sets}
            if len({len(values) for values in by_set.values()} - {0}) == 1:
                streams = range(max(map(len, by_set.values())))
                return [
                    mean_of_group(
                        {n: v[i] if v else math.nan for n, v in by_set.items()}, self.runs.sets, group
                    )
                    for i in streams
                ]
        return [mean_over_sets(row, seed, self.runs.sets, group, metric) for seed in self.seeds]

    def _gain(self, row: Row, group: str, metric: str) -> Triple:
        """Return the difference to the same scorer without adaptation, on the same streams."""
        model, _, protocol = self.place
        source = self.runs.rows.get((model, SOURCE, protocol), {}).get(row.scorer)
        if source is None or source is row:
            return _NONE
        of_both = [self._replicates(one, group, metric) for one in (row, source)]
        differences = [a - b for a, b in zip(*of_both, strict=False)]
        if (
            len({len(values) for values in of_both}) > 1
            or not differences
            or any(map(math.isnan, differences))
        ):
            return _NONE
        summary = intervals.seed_interval(differences, bounds=(-1.0, 1.0))
        low, high = summary.interval or (math.nan, math.nan)
        return summary.mean, low, high

    def _ranks(self, group: str) -> dict[str, tuple[int, int]]:
        """Rank the scorers without missing cells, aliases once: {scorer: (best, worst)}."""
        import numpy as np

        if self.mixes:
            return self._ranks_over_replicates(group)
        found = [self.blocks.get((*self.place, seed, group), []) for seed in self.seeds]
        if group not in RANKED or not found or any(len(of_seed) != 1 for of_seed in found):
            return {}
        present = [block for (block,) in found]
        shared = set.intersection(*(set(block["scorers"]) for block in present))
        labels = [label for label in present[0]["scorers"] if label in shared and label not in self.aliases]
        aurocs = [[b["auroc"][b["scorers"].index(label)] for b in present] for label in labels]
        values = np.array(aurocs)  # (S, R)
        if len(present) == 1:
            chosen = [present[0]["scorers"].index(label) for label in labels]
            p_values = inference.paired_p_values(
                values[:, 0], np.array(present[0]["covariance"])[np.ix_(chosen, chosen)]
            )
        else:
            p_values = inference.paired_t_p_values(values)
        best, worst = inference.rank_ranges(values.mean(axis=1), p_values)
        return {label: (int(best[i]), int(worst[i])) for i, label in enumerate(labels)}

    def _ranks_over_replicates(self, group: str) -> dict[str, tuple[int, int]]:
        """Rank by paired t tests over models' seeds; with one seed, over streams."""
        import numpy as np

        named = [label for label in self.scorers if label not in self.aliases]
        found = {label: self._replicates(self.scorers[label], group, "auroc") for label in named}
        whole = {
            label: values for label, values in found.items() if values and not any(map(math.isnan, values))
        }
        most = max(map(len, whole.values()), default=0)
        whole = {label: values for label, values in whole.items() if len(values) == most}
        if group not in RANKED or not whole or most < 2:
            return {}
        values = np.array(list(whole.values()))  # (S, R)
        best, worst = inference.rank_ranges(values.mean(axis=1), inference.paired_t_p_values(values))
        return {label: (int(best[i]), int(worst[i])) for i, label in enumerate(whole)}


def _aliases(scorers: Mapping[str, Row]) -> dict[str, str]:
    """Find scorers with the same per-sample scores as another: {later name: first name}."""
    first: dict[str, str] = {}
    aliases: dict[str, str] = {}
    for label in sorted(scorers):
        signature = scorers[label].signature()
        known = label if signature is None else first.setdefault(signature, label)
        if known != label:
            aliases[label] = known
    return aliases


def _block_value(block: Mapping[str, Any], scorer: str) -> Triple:
    place = block["scorers"].index(scorer)
    auroc, variance = block["auroc"][place], block["covariance"][place][place]
    return (auroc, *intervals.logit_interval(auroc, variance, block["n_id"], block["n_ood"]))


def _over_seeds(values: list[float]) -> Triple:
    if not values or any(math.isnan(value) for value in values):
        return _NONE
    summary = intervals.seed_interval(values)
    low, high = summary.interval or (math.nan, math.nan)
    return summary.mean, low, high


def _summarised(measured: list[Any]) -> Triple:
    return _triple(measured[0]) if len(measured) == 1 else _over_seeds([m["value"] for m in measured])


def _triple(metric: Mapping[str, float | None]) -> Triple:
    low, high = metric["lo"], metric["hi"]
    return float(metric["value"] or 0.0), math.nan if low is None else low, math.nan if high is None else high


def _columns(name: str, triple: Triple) -> dict[str, float]:
    return {name: triple[0], f"{name}_lo": triple[1], f"{name}_hi": triple[2]}


def _block_key(block: Mapping[str, Any]) -> tuple[Any, ...]:
    return (*place_of(block), block["seed"], block["group"])


def _ordered(rows: list[dict[str, Any]], metric: str, group: str) -> pd.DataFrame:
    """Sort models by their best row; a model's rows stay together, since ranks are within a model."""
    import pandas as pd

    frame = pd.DataFrame(rows).astype({"rank_best": "Int64", "rank_worst": "Int64"}).copy()
    value = frame[f"{group}_{metric}"] * (-1 if METRICS[metric].higher_is_better else 1)
    best_of_model = value.groupby([frame["model"], frame["adapter"]]).transform("min")
    keys = pd.DataFrame({"best": best_of_model, "value": value, **frame[["model", "adapter", "scorer"]]})
    order = keys.sort_values(["best", "model", "adapter", "value", "scorer"], na_position="last").index
    return frame.loc[order].reset_index(drop=True)


def _require_known(metric: str, group: str, runs: Runs) -> None:
    rows = [row for of_place in runs.rows.values() for row in of_place.values()]
    metrics = {name for row in rows for r in row.records() for name in r.metrics}
    if metric not in metrics and metrics:
        raise unknown_name("metric", metric, metrics, valid_label="Measured")
    if group not in (*GROUPS, "all"):
        raise unknown_name("group", group, (*GROUPS, "all"), valid_label="Valid")
