"""The command `ood-harness estimates`, which prints what a run made of its estimators."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003  # typer reads annotations at run time
from typing import Annotated

import typer

from harness.formats import Format, show


def estimates(
    folders: Annotated[list[Path], typer.Argument(metavar="DIR...", help="Folders of runs of one suite.")],
    format: Annotated[Format, typer.Option("--format", help="How it is written.")] = Format.table,
) -> None:
    """Print how far estimates of accuracy were from the truth, estimator by estimator."""
    from harness.estimation import text
    from harness.estimation.table import estimate_table

    show(estimate_table(folders), format, text)
