"""The command `ood-harness plot`."""

from __future__ import annotations

from pathlib import Path  # typer reads annotations at run time
from typing import Annotated

import typer

from harness.cli.options import CacheFolder, Plugins


def plot(
    kind: Annotated[str, typer.Argument(metavar="KIND", help="hist, roc, features2d, curves or probes.")],
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A run's folder.")],
    *,
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="FILE", help="A .png, .svg or .pdf file.")
    ],
    model: Annotated[
        str | None, typer.Option(metavar="LABEL", help="Default: the suite's first; all for curves.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="The model's seed. Default: the lowest; all for curves.")
    ] = None,
    scorer: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="Repeatable. Default: the best on the board for hist, all for roc."
        ),
    ] = None,
    of_set: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="NAME", help="Repeatable. Default: all near and far sets, the first set for roc."
        ),
    ] = None,
    log: Annotated[
        bool, typer.Option("--log", help="Logarithmic axis: density for hist, share of ID for roc.")
    ] = False,
    method: Annotated[str | None, typer.Option(help="For features2d: tsne (default) or pca.")] = None,
    samples: Annotated[
        int | None, typer.Option(help="For features2d: samples of each set, at most. Default: 1000.")
    ] = None,
    cache: CacheFolder = None,
    device: Annotated[str, typer.Option(help="For features2d: auto, cpu, cuda or cuda:N.")] = "auto",
    plugin: Plugins = None,
) -> None:
    """Draw a finished run: score histograms, ROC curves, a map of features, probes along training or over accuracy."""
    from harness.evaluations.pictures import FeatureOptions, draw
    from harness.reports.plots.curves import Choice

    choice = Choice(model, seed, tuple(scorer or ()), tuple(of_set or ()))
    options = FeatureOptions(method, samples, cache, device, tuple(plugin or ()), progress=True)
    title = draw(kind, folder, output, choice, log=log, options=options)
    typer.echo(f"ood-harness: {output}: {title}", err=True)
