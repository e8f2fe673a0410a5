"""Contrasts as text: Markdown, CSV, JSON, and tables for the terminal. Shares are in per cent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from harness.reports.text import Sheet, Text
from harness.reports.wording import (
    ABSENT,
    FPR_HEADERS,
    difference,
    is_missing,
    listed,
    percent,
    title_of,
)
from harness.statistics.inference import FEWEST_SEEDS

if TYPE_CHECKING:
    from harness.reports.contrast import Contrast

_SMALLEST_P = 0.001  # below it, a p-value is not written out


def contrast_text(contrast: Contrast) -> Text:
    """Show one table per metric: the groups, then the sets; the verdict is the legend's last line."""
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
    """Say how a contrast is read, and what it decides."""
    count = len(contrast.seeds)
    inference = f"with Student's 95 % interval ({count - 1} degrees of freedom)"
    if count < FEWEST_SEEDS:
        inference = f"without interval and p: fewer than {FEWEST_SEEDS} seeds decide nothing"
    others = [f"{listed(seeds)} of {side.upper()}" for side, seeds in contrast.left_out.items() if seeds]
    left_out = f" Left out: seeds {' and '.join(others)}." if others else ""
    (accuracy,) = [row for row in contrast.rows if row["level"] == "id"]
    return [
        f"A: {contrast.a}. B: {contrast.b}.",
        f"Seeds that both have: {count} ({listed(contrast.seeds)}).{left_out}",
        f"Means over these seeds in per cent; B − A in points, paired by seed, {inference}.",
        f"{FPR_HEADERS[contrast.fpr]}.",
        "p: paired t-test, two-sided. AUROC on all is the primary comparison: it is not adjusted, nor are the other "
        "groups. The sets' p are Holm-adjusted over the sets, for each metric by itself.",
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
    """Write the p-value of a row: of a set, the adjusted one."""
    p_value = row["p_holm"] if row["level"] == "set" else row["p"]
    if is_missing(p_value):
        return ABSENT
    return f"{p_value:.3f}" if p_value >= _SMALLEST_P else f"<{_SMALLEST_P}"
