"""The command `ood-harness import`."""

from __future__ import annotations

from pathlib import Path  # typer reads annotations at run time
from typing import Annotated

import typer

from harness.base.errors import InputError
from harness.cli.options import Plugins

Three = tuple[float, float, float] | None


def import_(
    weights: Annotated[
        Path, typer.Argument(help="A .pth, .pt or .bin file of a state dictionary, or .safetensors.")
    ],
    *,
    arch: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The architecture, as timm names it.", show_default=False),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            metavar="NAME or FILE",
            help="Instead of --arch: the recipe that the weights were trained by, here or elsewhere.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[Path, typer.Option("-o", "--out", metavar="FOLDER", help="The new checkpoint folder.")],
    num_classes: Annotated[
        int | None,
        typer.Option(min=0, help="Default: that of the weights. 0: an encoder, without its heads."),
    ] = None,
    size: Annotated[
        int | None, typer.Option(min=1, help="Side of the images in pixels. Default: the architecture's.")
    ] = None,
    mean: Annotated[
        Three,
        typer.Option(help="Of pixels from 0 to 1, for red, green and blue. Default: the architecture's."),
    ] = None,
    std: Annotated[Three, typer.Option(help="As --mean.")] = None,
    interpolation: Annotated[
        str | None, typer.Option(help="bilinear, bicubic, ... Default: the architecture's.")
    ] = None,
    crop_pct: Annotated[
        float | None,
        typer.Option(help="Share of the resized image that the crop keeps. Default: the architecture's."),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(help="A text file of class names, one per line, in the order of the outputs."),
    ] = None,
    plugin: Plugins = None,
) -> None:
    """Convert a file of weights to a checkpoint folder, for `checkpoint = "FOLDER"` in a suite."""
    from harness.contract.registry import Registry
    from harness.models.training.importing import ImportOptions, import_trained, import_weights
    from harness.models.training.recipe import load_recipe

    options = ImportOptions(num_classes, size, mean, std, interpolation, crop_pct, labels)
    registry = Registry.load(plugin or [])
    if recipe is not None and arch is None:
        model = import_trained(weights, load_recipe(recipe, registry), out, options, registry)
    elif arch is not None and recipe is None:
        model = import_weights(weights, arch, out, options, registry)
    else:
        raise InputError("Give either --arch or --recipe: what network the weights are of")
    outputs = f"{model.num_classes} classes" if model.num_classes else "an encoder"
    typer.echo(f"{out}: {arch or recipe}, {outputs}, {model.preprocessing.text}")
    if model.preprocessing.assumed:
        typer.echo(
            f"ood-harness: nothing states {', '.join(model.preprocessing.assumed)}, so these are defaults of the "
            "architecture. If it was trained otherwise, its numbers are wrong: import it again and state them",
            err=True,
        )
