"""The command `ood-harness estimate`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path  # typer reads annotations at run time
from typing import Annotated

import typer

from harness.cli.options import CacheFolder, Device, Plugins, TextFormat
from harness.reports.terminal import show
from harness.reports.text import Format


class Unreadable(StrEnum):
    """The treatment of images that cannot be read."""

    error = "error"
    skip = "skip"


def estimate(
    *,
    model: Annotated[
        str,
        typer.Option(
            metavar="M", help="A recipe, a checkpoint folder, or FAMILY:NAME as in a suite (timm:resnet18)."
        ),
    ],
    data: Annotated[str, typer.Option(metavar="D", help="A folder of images, or a dataset's name.")],
    calibration: Annotated[
        str | None,
        typer.Option(
            metavar="V", help="Labelled ID data outside training. Default: the model's validation part."
        ),
    ] = None,
    suite: Annotated[
        str | None, typer.Option(help="The suite with the model's ID data. Default: the recipe's [data].")
    ] = None,
    estimator: Annotated[list[str] | None, typer.Option(help="Repeatable. Default: all that apply.")] = None,
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
        progress=True,
    )
    show(guess_text(run(model, data, options, plugins=plugin or [])), format)
