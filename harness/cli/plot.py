"""The command `ood-harness plot`, which has many options; the others are in harness.cli."""

from __future__ import annotations

from pathlib import Path  # typer reads annotations at run time
from typing import Annotated

import typer


def plot(
    kind: Annotated[str, typer.Argument(metavar="KIND", help="hist, roc or features2d.")],
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A run's folder.")],
    *,
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="FILE", help="A .png, .svg or .pdf file.")
    ],
    model: Annotated[str | None, typer.Option(metavar="LABEL", help="Default: the suite's first.")] = None,
    seed: Annotated[int | None, typer.Option(help="The model's. Default: its lowest.")] = None,
    scorer: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Repeatable. Default: of hist the best on the board, of roc all."),
    ] = None,
    of_set: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="NAME", help="Repeatable. Default: all near and far sets, of roc the first set."
        ),
    ] = None,
    log: Annotated[
        bool, typer.Option("--log", help="Logarithmic: the density of hist, the share of ID of roc.")
    ] = False,
    method: Annotated[str | None, typer.Option(help="Of features2d: tsne, the default, or pca.")] = None,
    samples: Annotated[
        int | None, typer.Option(help="Of features2d: at most so many of each set. Default: 1000.")
    ] = None,
    cache: Annotated[Path | None, typer.Option(help="The cache folder. Default: the user's.")] = None,
    device: Annotated[str, typer.Option(help="Of features2d: auto, cpu, cuda or cuda:N.")] = "auto",
    plugin: Annotated[
        list[Path] | None, typer.Option(help="A Python file that is a plugin, as for `run`; repeatable.")
    ] = None,
) -> None:
    """Draw a finished run: score histograms, ROC curves, or features in the plane."""
    from harness.evaluations.pictures import FeatureOptions, draw
    from harness.reports.plots.curves import Choice

    choice = Choice(model, seed, tuple(scorer or ()), tuple(of_set or ()))
    options = FeatureOptions(method, samples, cache, device, tuple(plugin or ()), progress=True)
    title = draw(kind, folder, output, choice, log=log, options=options)
    typer.echo(f"ood-harness: {output}: {title}", err=True)
