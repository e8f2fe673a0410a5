"""Options and arguments that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.reports.text import Format

Plugins = Annotated[
    list[Path] | None, typer.Option("--plugin", help="A Python file that is a plugin; repeatable.")
]
CacheFolder = Annotated[
    Path | None,
    typer.Option(
        "--cache", help="The cache folder. Default: OOD_HARNESS_CACHE, else the user's cache folder."
    ),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Folders = Annotated[list[Path], typer.Argument(metavar="DIR...", help="Folders of runs of one suite.")]
TextFormat = Annotated[Format, typer.Option("--format", help="The output format.")]
ProtocolName = Annotated[
    str | None, typer.Option(help='One protocol of several, such as "mixed 0/50/50".', show_default=False)
]
