"""The command `ood-harness adaptation`."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003  # typer reads annotations at run time
from typing import Annotated

import typer

from harness.reports.formats import Format, show


def adaptation(
    folders: Annotated[list[Path], typer.Argument(metavar="DIR...", help="Folders of runs of one suite.")],
    format: Annotated[Format, typer.Option("--format", help="How it is written.")] = Format.table,
) -> None:
    """Print what adapters did to the error on shifted data, and what it cost."""
    from harness.evaluations.adaptation import text
    from harness.evaluations.adaptation.table import adaptation_table

    show(adaptation_table(folders), format, text)
