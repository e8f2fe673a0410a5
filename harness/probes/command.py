"""The command `ood-harness probes`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path  # noqa: TC003  # typer reads annotations at run time
from typing import Annotated

import typer


class Format(StrEnum):
    """How the probes' table is written."""

    table = "table"
    md = "md"
    csv = "csv"
    json = "json"


def probes(
    folders: Annotated[list[Path], typer.Argument(metavar="DIR...", help="Folders of runs of one suite.")],
    format: Annotated[Format, typer.Option("--format", help="How it is written.")] = Format.table,
) -> None:
    """Print what the probes found, and its rank correlation with accuracy across models."""
    from rich.console import Console

    from harness.probes import text
    from harness.probes.table import probe_table

    table = probe_table(folders)
    if format is Format.table:
        Console().print(text.as_terminal(table))
        return
    writers = {Format.md: text.as_markdown, Format.csv: text.as_csv, Format.json: text.as_json}
    typer.echo(writers[format](table), nl=False)
