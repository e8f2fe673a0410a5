"""The command line. Exit codes: 0 done, 1 some cells failed; `ending` has those of commands that end early."""

from __future__ import annotations

import io
import logging
import math
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.base.errors import InputError
from harness.base.names import printable
from harness.base.sizes import parse_size, size_text
from harness.cli import ending
from harness.cli.estimate import estimate
from harness.cli.importing import import_
from harness.cli.leaderboard import leaderboard
from harness.cli.options import (
    CacheFolder,
    Device,
    Folders,
    Isolate,
    MemoryLimit,
    Plugins,
    ProtocolName,
    TextFormat,
    TimeLimit,
    limits_of,
)
from harness.cli.plot import plot
from harness.cli.plugins import plugins
from harness.evaluations import KINDS
from harness.evaluations.table_report import TableReport
from harness.reports.terminal import draw, show, terminal_width
from harness.reports.text import Format

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from harness.base.cache import Cache, Entry
    from harness.contract.registry import Registry
    from harness.engine.runner import RunResult

FAILED = 1

app = typer.Typer(
    name="ood-harness",
    help="Benchmark out-of-distribution detection: which method detects data that a classifier was not made for.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # help shows [id] as it is written
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(f"ood-harness {version('ood-harness')}")
        raise typer.Exit


@app.callback()
def options(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Hold the options of the command line itself."""


@app.command()
def run(
    suite: Annotated[
        str, typer.Argument(help="A suite's name (see `plugins --kind suite`) or a .toml file.")
    ],
    *,
    out: Annotated[Path | None, typer.Option(help="The run's folder. Default: results/SUITE.")] = None,
    cache: CacheFolder = None,
    device: Device = "auto",
    limit: Annotated[
        int | None, typer.Option(help="Samples of every dataset, at most: for a quick look.")
    ] = None,
    scorer: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Of the suite's scorers, only this one; repeatable."),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(metavar="LABEL", help="Of the suite's models, only this one; repeatable."),
    ] = None,
    fresh: Annotated[
        bool,
        typer.Option("--fresh", help="Measure again what the run's folder holds already."),
    ] = False,
    plugin: Plugins = None,
    isolate: Isolate = None,
    time_limit: TimeLimit = None,
    memory_limit: MemoryLimit = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List the planned work and its cost, and stop.")
    ] = False,
) -> None:
    """Run every scorer on every set of a suite, in one pass over the images, and print the leaderboard."""
    from harness.engine.runner import RunOptions
    from harness.evaluations.run import prepare, run_plan

    plan = prepare(
        suite,
        limit=limit,
        plugins=plugin or [],
        models=model or [],
        scorers=scorer or [],
        limits=limits_of(isolate, time_limit, memory_limit),
    )
    options = RunOptions(out=out, cache=cache, device=device, progress=True, fresh=fresh)
    if dry_run:
        from harness.cli.dry_run import described

        for line in described(plan, options):
            typer.echo(line)
        return
    if not plan.suite.verified:
        _say(f"suite {plan.suite.name} is unverified: it was never run on the data that it names")
    result = run_plan(plan, options)
    _finish(result, plan.registry)


@app.command()
def contrast(
    folders: Folders,
    a: Annotated[str, typer.Argument(metavar="A", help="MODEL/SCORER, as the leaderboard names them.")],
    b: Annotated[str, typer.Argument(metavar="B", help="MODEL/SCORER, to be compared with A.")],
    format: TextFormat = Format.table,
    protocol: ProtocolName = None,
) -> None:
    """Test whether one model with a scorer beats another over the same seeds, by paired t tests."""
    from harness.reports import contrast as contrasts

    show(contrasts.contrast_text(contrasts.contrast(folders, a, b, protocol=protocol)), format)


@app.command()
def train(
    recipe: Annotated[
        str, typer.Argument(help="A recipe's name (see `plugins --kind recipe`) or a .toml file.")
    ],
    *,
    suite: Annotated[
        str | None, typer.Option(help="Train on this suite's [id]. Default: the recipe's [data].")
    ] = None,
    seed: Annotated[list[int] | None, typer.Option(help="Repeatable. Default: the recipe's seeds.")] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="The folder for the checkpoints. Default: the cache, where suites find them."),
    ] = None,
    cache: CacheFolder = None,
    device: Device = "auto",
    plugin: Plugins = None,
) -> None:
    """Train a recipe, one checkpoint per seed. A training that was interrupted resumes."""
    from harness.engine.trainer import TrainOptions, train_recipe

    options = TrainOptions(suite, tuple(seed or ()), out, cache, device, progress=True)
    failed = 0
    for outcome in train_recipe(recipe, options, plugins=plugin or []):
        failed += outcome.error is not None
        if outcome.error is not None:
            _say(outcome.error)
            continue
        accuracy = outcome.validation_accuracy
        shown = "no validation data" if accuracy is None else f"validation accuracy {100 * accuracy:.2f} %"
        found = ", trained before" if outcome.found else ""
        typer.echo(
            f"{outcome.recipe}, seed {outcome.seed}: {shown} (epoch {outcome.epoch}){found}: {outcome.folder}"
        )
    if failed:
        raise typer.Exit(FAILED)


app.command()(leaderboard)
app.command()(plot)
app.command()(estimate)
app.command(name="import")(import_)
app.command()(plugins)


def _command_of(report: TableReport[Any]) -> Callable[..., None]:
    """Make the command that prints the table of a kind."""

    def command(
        folders: Folders,
        format: TextFormat = Format.table,
    ) -> None:
        show(report.show(folders), format)

    return command


for kind in KINDS:
    if isinstance(kind.report, TableReport):
        app.command(name=kind.report.name, help=kind.report.help)(_command_of(kind.report))


@app.command()
def cache(
    folder: CacheFolder = None,
    prune: Annotated[bool, typer.Option("--prune", help="Remove entries that were not used lately.")] = False,
    days: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="With --prune: remove entries that were not used for so many days; 0: all. Default: 30, or with "
            "--limit none.",
        ),
    ] = None,
    limit: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            help="With --prune: remove the least recently used until SIZE, such as 50GB, suffices.",
        ),
    ] = None,
    hub: Annotated[
        bool,
        typer.Option(
            "--hub",
            help="Count the hub's copies of models and datasets, too. With --prune they are removed by the same rules; "
            "other programs may have to fetch them again.",
        ),
    ] = False,
) -> None:
    """Show the cache of features and trained models, or prune it. What a run in progress uses is kept."""
    from harness.base.cache import Cache, default_root
    from harness.base.hub_copies import hub_entries

    if not prune and (days is not None or limit is not None):
        raise InputError("--days and --limit say what to remove. Give --prune too")
    room = math.inf if limit is None else parse_size(limit)
    opened = Cache(folder or default_root())
    if prune:
        default = 30 if limit is None else math.inf
        _prune(opened, default if days is None else days, room, hub_entries() if hub else [])
    entries = [*opened.entries(), *(hub_entries() if hub else ())]
    typer.echo(f"{opened.root}: {_entries(entries)}")
    for kind in sorted({entry.kind for entry in entries}):
        of_kind = [entry for entry in entries if entry.kind == kind]
        typer.echo(f"  {kind}: {_entries(of_kind)}")


def _prune(kept: Cache, days: float, room: float, also: list[Entry]) -> None:
    """Prune the cache, and say what was removed, kept, and cannot be removed."""
    found = kept.prune(days=days, room=room, also=also)
    typer.echo(f"removed {_entries(found.removed)}")
    if found.in_use:
        typer.echo(f"kept {_entries(found.in_use)}, which a run in progress may use")
    if found.stuck:
        typer.echo(f"{_entries(found.stuck)} cannot be removed, such as {str(found.stuck[0].path)!r}")


def main() -> None:
    """Run the command line; an expected failure is one line and exit 2."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter("ood-harness: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal may lack a letter of a name
    signal.signal(signal.SIGTERM, ending.terminate)
    try:
        status = app(standalone_mode=False)
    except BaseException as error:
        sys.exit(ending.explain(error))
    sys.exit(status if isinstance(status, int) else 0)


class _Formatter(logging.Formatter):
    """Escapes what a terminal would obey."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        """Write one message on one line; a traceback below it stays as it is."""
        return printable(super().formatMessage(record))


def _finish(result: RunResult, registry: Registry) -> None:
    from harness.evaluations.run import reports

    measured = result.measured - result.failed
    for report in reports(registry):
        for drawing in report.draw(result.folder, width=terminal_width()):
            draw(drawing)
    _say(
        f"{result.folder}: {result.cells} cells, {measured} measured now, {result.failed} failed; "
        f"{result.counts.decoded} images decoded, {result.counts.forwarded} forwarded"
    )
    for problem in result.problems:
        _say(problem)
    if not result.succeeded:
        raise typer.Exit(FAILED)


def _entries(entries: Sequence[Entry]) -> str:
    return f"{len(entries)} entries, {size_text(sum(entry.bytes for entry in entries))}"


def _say(line: str) -> None:
    typer.echo(f"ood-harness: {printable(line)}", err=True)


if __name__ == "__main__":
    main()
