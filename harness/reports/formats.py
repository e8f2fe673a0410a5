"""How a command writes a table: for the terminal, or as text in a named format."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from rich.console import RenderableType

_UNBOUNDED = 10_000  # characters of a line that goes into a file


class Format(StrEnum):
    """How a table is written."""

    table = "table"
    md = "md"
    csv = "csv"
    json = "json"


class Texts(Protocol):
    """A module that writes one kind of table in every format."""

    def as_terminal(self, table: Any) -> RenderableType:
        """Draw it."""

    def as_markdown(self, table: Any) -> str:
        """Write what a document shows."""

    def as_csv(self, table: Any) -> str:
        """Write the numbers."""

    def as_json(self, table: Any) -> str:
        """Write the numbers."""


def show(table: Any, format: Format, texts: Texts) -> None:
    """Print a table."""
    import typer

    if format is Format.table:
        draw(texts.as_terminal(table))
        return
    writers = {Format.md: texts.as_markdown, Format.csv: texts.as_csv, Format.json: texts.as_json}
    typer.echo(writers[format](table), nl=False)


def draw(drawing: RenderableType) -> None:
    """Print to the terminal's width; into a file or a pipe, at the drawing's own."""
    from rich.console import Console
    from rich.measure import Measurement

    console = Console()
    if not console.is_terminal:
        unbounded = console.options.update(max_width=_UNBOUNDED)
        console = Console(width=Measurement.get(console, unbounded, drawing).maximum)
    console.print(drawing)
