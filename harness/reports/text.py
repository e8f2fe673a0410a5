"""Writes a report in every format: for the terminal, as Markdown, CSV or JSON. The one writer of all reports.

A `Text` is the content of a report: tables of cells for people, with a legend, and numbers at full precision for
programs.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from harness.reports.wording import json_of, markdown_table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd
    from rich.console import RenderableType
    from rich.table import Table

_UNBOUNDED = 10_000  # characters of a line that goes into a file


class Format(StrEnum):
    """The output format of a report."""

    table = "table"
    md = "md"
    csv = "csv"
    json = "json"


@dataclass(frozen=True)
class Sheet:
    """A table of cells for people."""

    title: str
    headers: Sequence[str]
    rows: Sequence[Sequence[str]]
    names: Sequence[str]  # the headers of columns of names, which are left-aligned
    sections: Sequence[int] = ()  # numbers of the rows with a line above


@dataclass(frozen=True, eq=False)
class Text:
    """A report: its tables and legend, and its numbers."""

    sheets: Sequence[Sheet]
    legend: Sequence[str]
    numbers: pd.DataFrame  # for CSV
    content: Mapping[str, Any]  # for JSON; frames become lists of objects
    wide: Sequence[Sheet] = ()  # for documents, if they show the tables side by side


def as_csv(text: Text) -> str:
    """Write the numbers at full precision; a missing value is an empty field."""
    return text.numbers.to_csv(index=False, lineterminator="\n")


def as_json(text: Text) -> str:
    """Write the content at full precision; a missing value is null."""
    return json_of(text.content)


def as_markdown(text: Text) -> str:
    """Write the tables that have rows, and the legend below them."""
    tables = [markdown_table(sheet.headers, sheet.rows) for sheet in text.wide or text.sheets if sheet.rows]
    return "\n\n".join([*tables, "\n".join(f"- {line}" for line in text.legend)]) + "\n"


def as_terminal(text: Text) -> RenderableType:
    """Draw the tables that have rows, and the legend below them."""
    from rich.console import Group
    from rich.text import Text as Lines

    drawn = [terminal_table(sheet) for sheet in text.sheets if sheet.rows]
    return Group(*drawn, Lines("\n".join(text.legend)))


def terminal_table(sheet: Sheet) -> Table:
    """Draw a table: columns of names left-aligned, the others right-aligned."""
    from rich.table import Table
    from rich.text import Text as Lines

    table = Table(
        title=Lines(sheet.title, style="table.title"),
        title_justify="left",
        header_style="bold",
        padding=(0, 1),
    )
    for header in sheet.headers:
        is_name = header in sheet.names
        table.add_column(Lines(header), justify="left" if is_name else "right", no_wrap=not is_name)
    for number, row in enumerate(sheet.rows):
        if number in sheet.sections:
            table.add_section()
        table.add_row(*map(Lines, row))  # not as markup: a name may contain brackets
    return table


def show(text: Text, format: Format) -> None:
    """Print a report."""
    import typer

    if format is Format.table:
        draw(as_terminal(text))
        return
    writers = {Format.md: as_markdown, Format.csv: as_csv, Format.json: as_json}
    typer.echo(writers[format](text), nl=False)


def draw(drawing: RenderableType) -> None:
    """Print at the terminal's width; into a file or a pipe, at the drawing's full width."""
    from rich.console import Console
    from rich.measure import Measurement

    console = Console()
    if not console.is_terminal:
        unbounded = console.options.update(max_width=_UNBOUNDED)
        console = Console(width=Measurement.get(console, unbounded, drawing).maximum)
    console.print(drawing)
