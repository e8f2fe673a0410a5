"""Compares two pairings of a model with a scorer: differences paired by seed, their tests, and both as text.

The seeds of a model are independent trainings, so the tests include the variation between trainings.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.base.errors import InputError, unknown_name
from harness.reports.leaderboard import RANKED
from harness.reports.record import SOURCE, Place
from harness.reports.runs import GROUPS, Row, mean_over_sets, read_runs
from harness.reports.text import Sheet, Text
from harness.reports.wording import (
    ABSENT,
    FPR_HEADERS,
    difference,
    is_missing,
    listed,
    percent,
    rows_of,
    title_of,
)
from harness.statistics import inference, intervals

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import pandas as pd

    from harness.reports.runs import Runs

ALPHA = 0.05
EQUAL_WITHIN = 0.005  # half a point of accuracy
ALL = "all"
AUROC, ACCURACY = "auroc", "id_accuracy"
UNDECIDED = "undecided"
_MOST_NAMED = 5  # missing cells in one message
_SMALLEST_P = 0.001  # below it, a p-value is not written out


@dataclass(frozen=True)
class Contrast:
    """A and B over the seeds that both have, and the verdicts.

    The frame has one row per comparison: `level` (group, set or id), `on` (a group's or set's name, "id" for
    accuracy), `metric`, the means `a` and `b` over seeds, the mean paired `difference` b - a, its 95 % interval
    `lo` and `hi`, its two-sided `p`, and for sets `p_holm`, adjusted over the sets of one metric. With fewer
    than inference.FEWEST_SEEDS seeds, intervals and p are NaN.
    """

    frame: pd.DataFrame
    suite: str
    a: str
    b: str
    fpr: str  # "fpr95_id" or "fpr95_ood"
    seeds: tuple[int, ...]  # that both have
    left_out: dict[str, tuple[int, ...]]  # the other seeds, of "a" and "b"
    verdict: str  # "A is better", "B is better" or "undecided", by AUROC on `all`
    accuracy_verdict: str

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The frame's rows, by column."""
        return rows_of(self.frame)


@dataclass(frozen=True)
class _Side:
    """One of the two that are compared."""

    name: str
    place: Place
    row: Row


def contrast(folders: Path | Sequence[Path], a: str, b: str, *, protocol: str | None = None) -> Contrast:
    """Compare two pairings "MODEL/SCORER" in one or several runs of a suite, by AUROC and the run's FPR95.

    Means are over seeds, `all` is the mean of the near mean and the far mean within a seed, and differences are
    paired by seed: Student's t interval and test, with one degree of freedom less than seeds.

    Raises RecordsError for folders without records or with records that must not be compared, UnknownNameError for a
    model or scorer without records, InputError for a name that is no pair, the same pair twice, no common seed, and
    cells without a number.
    """
    import pandas as pd

    runs = read_runs([folders] if isinstance(folders, Path) else folders, protocol)
    sides = _side(a, runs), _side(b, runs)
    if a == b:
        raise InputError(f"A and B are both {a!r}. Name two that differ in the model, the scorer or both")
    seeds = _common_seeds(*sides)
    for side in sides:
        _require_cells(side, runs, seeds)
    rows = [
        *_metric_rows(AUROC, sides, runs, seeds),
        *_metric_rows(runs.fpr, sides, runs, seeds),
        _accuracy_row(sides, runs, seeds),
    ]
    return Contrast(
        frame=pd.DataFrame([dict(row) for row in rows]),
        suite=runs.suite,
        a=a,
        b=b,
        fpr=runs.fpr,
        seeds=tuple(seeds),
        left_out={
            key: tuple(sorted(side.row.seeds() - set(seeds))) for key, side in zip("ab", sides, strict=True)
        },
        verdict=_verdict(rows),
        accuracy_verdict=_accuracy_verdict(rows[-1], one_model=sides[0].place == sides[1].place),
    )


def _side(name: str, runs: Runs) -> _Side:
    """Find a pair by its name. A label may contain a slash, so every slash is tried, the last one first."""
    models = {_model_label(place): place for place in runs.rows}
    for cut in reversed([i for i, character in enumerate(name) if character == "/"]):
        place = models.get(name[:cut])
        row = runs.rows[place].get(name[cut + 1 :]) if place else None
        if place and row:
            return _Side(name, place, row)
    model, slash, scorer = name.rpartition("/")
    if not slash:
        raise InputError(f"{name!r} names no pair; valid: MODEL/SCORER. Models: {', '.join(sorted(models))}")
    if model not in models:
        raise unknown_name("model", model, models, valid_label="Measured")
    scorers = runs.rows[models[model]]
    raise unknown_name(f"scorer of {model}", scorer, scorers, valid_label="Measured")


def _model_label(place: Place) -> str:
    """Name a model as the leaderboard does."""
    model, adapter, _ = place
    return model if adapter == SOURCE else f"{model} + {adapter}"


def _common_seeds(a: _Side, b: _Side) -> list[int]:
    for side in (a, b):
        if not side.row.seeds():
            raise InputError(
                f"{side.name} does not apply: the model lacks a need of the scorer. Name another"
            )
    common = sorted(a.row.seeds() & b.row.seeds())
    if not common:
        found = " and ".join(f"{side.name} has {listed(sorted(side.row.seeds()))}" for side in (a, b))
        raise InputError(f"no seed in common: {found}. Run both with the same seeds")
    return common


def _require_cells(side: _Side, runs: Runs, seeds: Sequence[int]) -> None:
    """Raise InputError if a set was not measured at one of the seeds, with the recorded errors."""
    missing = []
    for name in runs.sets:
        for seed in seeds:
            if any(math.isnan(side.row.value(name, seed, metric)) for metric in (AUROC, runs.fpr)):
                record = side.row.by_set.get(name, {}).get(seed)
                missing.append(f"{name}, seed {seed} ({(record and record.error) or 'not measured'})")
    if missing:
        rest = f"; and {len(missing) - _MOST_NAMED} more" if len(missing) > _MOST_NAMED else ""
        raise InputError(
            f"{side.name} lacks {len(missing)} cells: {'; '.join(missing[:_MOST_NAMED])}{rest}. "
            "Run the suite again: only these are measured"
        )


def _metric_rows(
    metric: str, sides: tuple[_Side, _Side], runs: Runs, seeds: Sequence[int]
) -> Iterator[dict[str, Any]]:
    """Compare by one metric: on the groups that the suite has, then on every set."""
    present = {ALL, *runs.sets.values()}
    for group in (name for name in dict.fromkeys((*RANKED, *GROUPS)) if name in present):
        a, b = (
            [mean_over_sets(side.row, seed, runs.sets, group, metric) for seed in seeds] for side in sides
        )
        if not math.isnan(a[0]):  # else: `all` of a suite without near and far
            yield {"level": "group", "on": group, "metric": metric, **_paired(a, b)}
    of_sets: list[dict[str, Any]] = []
    for name in runs.sets:
        a, b = ([side.row.value(name, seed, metric) for seed in seeds] for side in sides)
        of_sets.append({"level": "set", "on": name, "metric": metric, **_paired(a, b)})
    if len(seeds) >= inference.FEWEST_SEEDS:
        for row, adjusted in zip(of_sets, inference.holm([row["p"] for row in of_sets]), strict=True):
            row["p_holm"] = float(adjusted)
    yield from of_sets


def _accuracy_row(sides: tuple[_Side, _Side], runs: Runs, seeds: Sequence[int]) -> dict[str, Any]:
    unmeasured = {"value": math.nan}
    of_sides = [runs.accuracies.get(side.place, {}) for side in sides]
    a, b = ([by_seed.get(seed, unmeasured)["value"] for seed in seeds] for by_seed in of_sides)
    return {"level": "id", "on": "id", "metric": ACCURACY, **_paired(a, b)}


def _paired(a: list[float], b: list[float]) -> dict[str, float]:
    """Compare the values of A and B, (R,) each, in the order of their common seeds."""
    differences = [of_b - of_a for of_a, of_b in zip(a, b, strict=True)]
    found = {
        "a": math.fsum(a) / len(a),
        "b": math.fsum(b) / len(b),
        "difference": math.fsum(differences) / len(differences),
        **dict.fromkeys(("lo", "hi", "p", "p_holm"), math.nan),
    }
    if len(a) >= inference.FEWEST_SEEDS and not math.isnan(found["difference"]):
        interval = intervals.seed_interval(differences, bounds=(-1.0, 1.0)).interval
        found["lo"], found["hi"] = interval or (math.nan, math.nan)
        found["p"] = float(inference.paired_t_p_values([a, b])[0, 1])
    return found


def _verdict(rows: Sequence[Mapping[str, Any]]) -> str:
    """Decide by AUROC on `all`; without a p-value, nothing is decided."""
    for row in rows:
        if (row["level"], row["on"], row["metric"]) == ("group", ALL, AUROC) and row["p"] <= ALPHA:
            return "B is better" if row["difference"] > 0 else "A is better"
    return UNDECIDED


def _accuracy_verdict(row: Mapping[str, Any], *, one_model: bool) -> str:
    if one_model:
        return "one model, so the same"
    equal = row["lo"] >= -EQUAL_WITHIN and row["hi"] <= EQUAL_WITHIN  # False without an interval
    return f"equal within ±{100 * EQUAL_WITHIN:g} points" if equal else "not shown equal"


def contrast_text(contrast: Contrast) -> Text:
    """Show one table per metric, groups before sets; the verdict is the last line of the legend."""
    groups = sum(row["level"] == "group" and row["metric"] == "auroc" for row in contrast.rows)
    sheets = [
        Sheet(contrast.suite, *_table(contrast, metric), ("on",), (groups,))
        for metric in ("auroc", contrast.fpr)
    ]
    (first, second) = sheets
    joined = [[*row, *other[1:]] for row, other in zip(first.rows, second.rows, strict=True)]
    wide = Sheet(contrast.suite, [*first.headers, *second.headers[1:]], joined, ("on",))
    names = ("suite", "a", "b", "seeds", "left_out", "verdict", "accuracy_verdict")
    head = {name: getattr(contrast, name) for name in names}
    content = head | {"fpr95": FPR_HEADERS[contrast.fpr], "rows": contrast.frame}
    return Text(sheets, legend(contrast), contrast.frame, content, [wide])


def legend(contrast: Contrast) -> list[str]:
    """Explain how to read a contrast, and give its verdict."""
    count = len(contrast.seeds)
    how = f"with Student's 95 % interval ({count - 1} degrees of freedom)"
    if count < inference.FEWEST_SEEDS:
        how = f"without interval and p: fewer than {inference.FEWEST_SEEDS} seeds decide nothing"
    others = [f"{listed(seeds)} of {side.upper()}" for side, seeds in contrast.left_out.items() if seeds]
    left_out = f" Left out: seeds {' and '.join(others)}." if others else ""
    (accuracy,) = [row for row in contrast.rows if row["level"] == "id"]
    return [
        f"A: {contrast.a}. B: {contrast.b}.",
        f"Seeds that both have: {count} ({listed(contrast.seeds)}).{left_out}",
        f"Means over these seeds in per cent; B − A in points, paired by seed, {how}.",
        f"{FPR_HEADERS[contrast.fpr]}.",
        "p: paired t-test, two-sided. AUROC on all is the primary comparison; the p of groups are not adjusted. "
        "The p of sets are Holm-adjusted over the sets, for each metric by itself.",
        "all: the mean of the near and far means. csid, shifted ID, is shown and never part of it.",
        f"ID accuracy: A {percent(accuracy['a'], 2)}, B {percent(accuracy['b'], 2)}, B − A {_difference(accuracy)}, "
        f"p {_p_value(accuracy)}: {contrast.accuracy_verdict}.",
        f"Verdict, by AUROC on all at the 5 % level: {contrast.verdict}.",
    ]


def _table(contrast: Contrast, metric: str) -> tuple[list[str], list[list[str]]]:
    title = title_of(metric)
    headers = ["on", *(f"{title} {what}" for what in ("A", "B", "B − A", "p"))]
    rows = [
        [row["on"], percent(row["a"], 2), percent(row["b"], 2), _difference(row), _p_value(row)]
        for row in contrast.rows
        if row["metric"] == metric
    ]
    return headers, rows


def _difference(row: dict[str, Any]) -> str:
    return difference(row["difference"], row["lo"], row["hi"])


def _p_value(row: dict[str, Any]) -> str:
    """Write the p-value of a row: the adjusted one for a set."""
    p_value = row["p_holm"] if row["level"] == "set" else row["p"]
    if is_missing(p_value):
        return ABSENT
    return f"{p_value:.3f}" if p_value >= _SMALLEST_P else f"<{_SMALLEST_P}"
