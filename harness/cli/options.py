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

Isolate = Annotated[
    str | None,
    typer.Option(
        metavar="WHOSE",
        help="Whose methods run in worker processes: foreign (of other distributions and files), all or none. "
        "Default: foreign, or what the suite says.",
    ),
]
TimeLimit = Annotated[
    float | None,
    typer.Option(help="Seconds that a worker may take for one call. Default: 3600, or what the suite says."),
]
MemoryLimit = Annotated[
    float | None, typer.Option(help="MB of memory for a worker. Default: that of the machine.")
]


def limits_of(isolate: str | None, seconds: float | None, megabytes: float | None) -> dict[str, object]:
    """Return the keys of a suite's [limits] that were given on the command line."""
    given: dict[str, object] = {"isolate": isolate, "seconds": seconds, "megabytes": megabytes}
    return {key: value for key, value in given.items() if value is not None}
