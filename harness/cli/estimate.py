"""The command `ood-harness estimate`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path  # typer reads annotations at run time
from typing import TYPE_CHECKING, Annotated

import typer

from harness.base.progress import print_beside
from harness.cli.options import (
    CacheFolder,
    Device,
    Isolate,
    MemoryLimit,
    Plugins,
    TextFormat,
    TimeLimit,
    limits_of,
)
from harness.reports.terminal import show
from harness.reports.text import Format
from harness.reports.wording import duration

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.evaluations.estimation.guesses import Guess


class Unreadable(StrEnum):
    """The treatment of images that cannot be read."""

    error = "error"
    skip = "skip"


def estimate(
    *,
    data: Annotated[str, typer.Option(metavar="D", help="A folder of images, or a dataset's name.")],
    model: Annotated[
        str | None,
        typer.Option(
            metavar="M",
            help="A recipe, a checkpoint folder, or FAMILY:NAME as in a suite (timm:resnet18). Default: the "
            "model on which an installed estimator was fitted, if one names it.",
        ),
    ] = None,
    calibration: Annotated[
        str | None,
        typer.Option(
            "--calibration",
            "--valdata",
            metavar="V",
            help="Labelled ID data outside training. Default: the model's validation part.",
        ),
    ] = None,
    suite: Annotated[
        str | None, typer.Option(help="The suite with the model's ID data. Default: the recipe's [data].")
    ] = None,
    estimator: Annotated[
        list[str] | None,
        typer.Option(
            metavar="E",
            help="NAME, or NAME:KEY=VALUE,... as in NAME:steps=200. Repeatable. Default: all that apply, but those "
            "that take long or were fitted on models of other classes.",
        ),
    ] = None,
    split: Annotated[str | None, typer.Option(help="The split of the data, such as test.")] = None,
    calibration_split: Annotated[str | None, typer.Option(help="The split of the calibration data.")] = None,
    size: Annotated[int, typer.Option(min=2, help="Images of each set, at most.")] = 2000,
    seed: Annotated[int, typer.Option(help="The seed of the model's training.")] = 0,
    unreadable: Annotated[
        Unreadable, typer.Option(help="error: stop at an image that cannot be read; skip: leave it out.")
    ] = (Unreadable.error),
    curves: Annotated[
        Path | None,
        typer.Option(help="Folder of the fitted curves from score to accuracy. Default: the cache."),
    ] = None,
    format: TextFormat = Format.table,
    cache: CacheFolder = None,
    device: Device = "auto",
    plugin: Plugins = None,
    isolate: Isolate = None,
    time_limit: TimeLimit = None,
    memory_limit: MemoryLimit = None,
) -> None:
    """Estimate a model's accuracy on new images without labels."""
    from harness.evaluations.estimation.guesses import guess_text
    from harness.evaluations.estimation.options import EstimateOptions
    from harness.evaluations.estimation.session import estimate as run

    options = EstimateOptions(
        calibration=calibration,
        suite=suite,
        estimators=tuple(estimator or ()),
        split=split,
        calibration_split=calibration_split,
        size=size,
        seed=seed,
        skip_unreadable=unreadable is Unreadable.skip,
        curves=curves,
        cache=cache,
        device=device,
        limits=limits_of(isolate, time_limit, memory_limit),
        progress=True,
    )
    found = run(model, data, options, plugins=plugin or [], finished=_tell)
    show(guess_text(found), format)


def _tell(rows: Sequence[Guess], left: float) -> None:
    """Print an estimator's rows as soon as it has finished, with the time that the others may take."""
    from harness.evaluations.estimation.guesses import guess_line

    for row in rows:
        print_beside(f"ood-harness: {guess_line(row)}")
    if left:
        print_beside(f"ood-harness: about {duration(left)} left")
