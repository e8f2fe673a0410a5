"""The command `ood-harness leaderboard`: the board of one metric with ranks, or several metrics side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from harness.base.errors import InputError
from harness.cli.options import Folders, ProtocolName
from harness.reports.board_text import BoardFormat
from harness.reports.terminal import draw, show, terminal_width
from harness.reports.text import Format

if TYPE_CHECKING:
    from harness.reports.text import Text


def leaderboard(
    folders: Folders,
    *,
    format: Annotated[BoardFormat, typer.Option("--format", help="The output format.")] = BoardFormat.table,
    metric: Annotated[
        str | None,
        typer.Option(
            help="The metric of the main columns and of the order, such as fpr95_id or aupr_out. Default: auroc.",
            show_default=False,
        ),
    ] = None,
    metrics: Annotated[
        str | None,
        typer.Option(
            help="Several metrics side by side, with commas between: mean ± standard deviation over seeds, ordered by "
            "the first. Without intervals and ranks.",
            show_default=False,
        ),
    ] = None,
    group: Annotated[
        str, typer.Option(help="Order by near, far, csid or all. csid is never ranked.")
    ] = "all",
    protocol: ProtocolName = None,
    sets: Annotated[
        bool, typer.Option("--sets", help="Show every set in the table, too. Other formats always do.")
    ] = False,
) -> None:
    """Print the leaderboard of one or several runs, one board per protocol."""
    from harness.reports.board_terminal import as_terminal
    from harness.reports.board_text import WRITERS
    from harness.reports.leaderboard import leaderboards
    from harness.reports.metric_table import metric_table, metric_text

    if metrics is not None:
        if metric is not None:
            raise InputError(f"--metric {metric} and --metrics {metrics} are given. Give only one")
        names = [name.strip() for name in metrics.split(",") if name.strip()]
        table = metric_table(folders, names, group=group, protocol=protocol)
        _show(metric_text(table, with_sets=sets), format)
        return
    boards = leaderboards(folders, metric=metric or "auroc", group=group, protocol=protocol)
    if format is BoardFormat.table:
        draw(as_terminal(boards, width=terminal_width(), with_sets=sets))
        return
    typer.echo(WRITERS[format](*boards), nl=False)


def _show(text: Text, format: BoardFormat) -> None:
    from harness.reports.metric_table import as_latex

    if format is BoardFormat.latex:
        typer.echo(as_latex(text), nl=False)
    else:
        show(text, Format(format.value))
