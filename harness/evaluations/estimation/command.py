"""The command `ood-harness estimate`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path  # noqa: TC003  # typer reads annotations at run time
from typing import Annotated

import typer

from harness.reports.text import Format, show


class Unreadable(StrEnum):
    """The treatment of images that cannot be read."""

    error = "error"
    skip = "skip"


def estimate(
    *,
    model: Annotated[
        str, typer.Option(metavar="M", help="A recipe, checkpoint folder, or FAMILY:NAME as in a suite.")
    ],
    data: Annotated[str, typer.Option(metavar="D", help="A folder of images, or a dataset's name.")],
    calibration: Annotated[
        str | None,
        typer.Option(
            metavar="V", help="Labelled ID data, not trained on. Default: the model's validation part."
        ),
    ] = None,
    suite: Annotated[
        str | None, typer.Option(help="Whose [id] the model is of. Default: the recipe's.")
    ] = None,
    estimator: Annotated[list[str] | None, typer.Option(help="Repeatable. Default: all that apply.")] = None,
    split: Annotated[str | None, typer.Option(help="Of the data.")] = None,
    calibration_split: Annotated[str | None, typer.Option(help="Of the calibration data.")] = None,
    size: Annotated[int, typer.Option(min=2, help="Images that are looked at, at most.")] = 2000,
    seed: Annotated[int, typer.Option(help="Of the model's training.")] = 0,
    unreadable: Annotated[Unreadable, typer.Option(help="What to do about images that cannot be read.")] = (
        Unreadable.error
    ),
    curves: Annotated[
        Path | None, typer.Option(help="Folder of the estimators' curves. Default: the cache.")
    ] = None,
    format: Annotated[Format, typer.Option("--format", help="How it is written.")] = Format.table,
    cache: Annotated[
        Path | None, typer.Option("--cache", help="The cache folder. Default: the user's.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    plugin: Annotated[
        list[Path] | None, typer.Option("--plugin", help="A Python file that is a plugin; repeatable.")
    ] = None,
) -> None:
    """Estimate a model's accuracy on new images without labels."""
    from harness.evaluations.estimation.guesses import guess_text
    from harness.evaluations.estimation.session import EstimateOptions
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
