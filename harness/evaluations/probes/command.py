"""The command `ood-harness probes`."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003  # typer reads annotations at run time
from typing import Annotated

import typer

from harness.reports.formats import Format, show


def probes(
    folders: Annotated[list[Path], typer.Argument(metavar="DIR...", help="Folders of runs of one suite.")],
    format: Annotated[Format, typer.Option("--format", help="How it is written.")] = Format.table,
) -> None:
    """Print what the probes found, and its rank correlation with accuracy across models."""
    from harness.evaluations.probes import text
    from harness.evaluations.probes.table import probe_table

    show(probe_table(folders), format, text)
