"""Contrasts as text: Markdown, CSV, JSON, and tables for the terminal. Shares are in per cent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from harness.reports.wording import (
    ABSENT,
    FPR_HEADERS,
    difference,
    is_missing,
    json_of,
    listed,
    markdown,
    percent,
    title_of,
)
from harness.statistics.inference import FEWEST_SEEDS

if TYPE_CHECKING:
    from rich.console import RenderableType

    from harness.reports.contrast import Contrast

_SMALLEST_P = 0.001  # below it, a p-value is not written out


def as_csv(contrast: Contrast) -> str:
    """Write every comparison at full precision: shares, not per cent."""
    return contrast.frame.to_csv(index=False, lineterminator="\n")


def as_json(contrast: Contrast) -> str:
    """Write the comparisons as objects at full precision, with the seeds and the verdicts."""
    names = ("suite", "a", "b", "seeds", "left_out", "verdict", "accuracy_verdict")
    head = {name: getattr(contrast, name) for name in names}
    return json_of(head | {"fpr95": FPR_HEADERS[contrast.fpr]}, contrast.rows)


def as_markdown(contrast: Contrast) -> str:
    """Write one table with both metrics side by side, and below it what a reader must know, the verdict last."""
    tables = [_table(contrast, metric) for metric in ("auroc", contrast.fpr)]
    (first, rows), (second, more) = tables
    joined = [[*row, *other[1:]] for row, other in zip(rows, more, strict=True)]
    return markdown([*first, *second[1:]], joined, legend(contrast))


def as_terminal(contrast: Contrast) -> RenderableType:
    """Draw a table for each metric: the groups, then the sets; below them what a reader must know."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    drawn = []
    groups = sum(row["level"] == "group" and row["metric"] == "auroc" for row in contrast.rows)
    for metric in ("auroc", contrast.fpr):
        table = Table(title=contrast.suite, title_justify="left", header_style="bold", padding=(0, 1))
        headers, rows = _table(contrast, metric, separator="\n")
        for header in headers:
            table.add_column(header, no_wrap=header != "on", justify="left" if header == "on" else "right")
        for number, row in enumerate(rows):
            if number == groups:
                table.add_section()
            table.add_row(*row)
        drawn.append(table)
    return Group(*drawn, Text("\n".join(legend(contrast))))


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


def _table(contrast: Contrast, metric: str, *, separator: str = " ") -> tuple[list[str], list[list[str]]]:
    title = title_of(metric)
    headers = ["on", *(f"{title}{separator}{what}" for what in ("A", "B", "B − A", "p"))]
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
