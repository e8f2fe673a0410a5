"""DSE of an untrained network against the width of its convolution weights N(0, σ), and how fast it then learns.

    OOD_HARNESS_DATA=... python benchmarks/studies/initialisation.py

Two networks of Fashion-MNIST, with BatchNorm and without, σ from 0.003 to 0.3, 3 seeds each: features of 1,000
test images before the first step, and test accuracy after every epoch on 4,000 images. Writes initialisation.csv and
initialisation.png.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from common import (
    PREPROCESSING,
    Panel,
    accuracy,
    draw,
    each,
    fashion_mnist,
    options,
    penultimate,
    pixels,
    write_table,
)
from torch import nn

from harness.base.seeding import seeded
from harness.contract.registry import Registry
from harness.contract.specs import Model, TrainingData
from harness.models.training.assembly import Blueprint, Part
from harness.models.training.loop import train
from harness.models.training.recipe import Recipe
from harness_plugins.probes.diffusion import diffusion_spectral_entropy

NETWORKS = {"with BatchNorm": Part("cnn", {"width": 16}), "without": Part("toy-convnet", {"dropout": 0.0})}
WIDTHS = (0.003, 0.01, 0.03, 0.1, 0.3)


def main() -> None:
    arguments = options(__doc__, seeds=3, epochs=3, train=4000, test=1000)
    data = fashion_mnist(train=arguments.train, test=arguments.test)
    assert data.train is not None
    images, labels = pixels(data.test), torch.as_tensor(data.test.labels)
    trained_on = TrainingData(data.train, None, 10)
    runs = [(name, width, seed) for name in NETWORKS for width in WIDTHS for seed in range(arguments.seeds)]
    rows: list[dict[str, Any]] = []
    for name, width, seed in each(runs, "initialisation"):
        model, blueprint = initialised(NETWORKS[name], width, seed)
        z = penultimate(model.classifier.eval().to(arguments.device), images)
        spread = z.pow(2).sum(dim=1).mean().sqrt().item()
        dse = {
            "dse_10": diffusion_spectral_entropy(z, sigma=10.0),
            "dse_neighbour": diffusion_spectral_entropy(z, sigma="neighbour") if spread > 0 else math.nan,
        }
        place = {"network": name, "sigma": width, "seed": seed}

        def note(
            epoch: int,
            trained: Model,
            known: dict[str, Any] = {**place, **dse, "feature_norm": spread},  # noqa: B006
        ) -> None:
            rows.append({**known, "epoch": epoch, "accuracy": accuracy(trained.classifier, images, labels)})

        recipe = Recipe.model_validate(
            {
                "schema": 1,
                "name": "initialisation",
                "model": "cnn",
                "objective": "cross_entropy",
                "optimizer": "sgd",
                "optimizer_params": {"momentum": 0.9},
                "lr": 0.01,
                "epochs": arguments.epochs,
                "batch_size": 64,
            }
        )
        train(model, blueprint.loss(), recipe, trained_on, seed=seed, device=arguments.device, on_epoch=note)
    frame = write_table(rows, arguments.tables / "initialisation.csv")
    draw(frame, panels(arguments.epochs), arguments.pictures / "initialisation.png")


def initialised(part: Part, width: float, seed: int) -> tuple[Model, Blueprint]:
    """Build a network whose convolutions are drawn from N(0, width)."""
    blueprint = Blueprint(part, Part("cross_entropy", {}), 10, PREPROCESSING, Registry.load())
    model = replace(blueprint.build(seed=seed), num_classes=10)
    network: Any = model.classifier
    with seeded(seed):
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=width)
    return model, blueprint


def panels(epochs: int) -> list[Panel]:
    """Lay out the picture: DSE before training, accuracy early and late."""

    def at(epoch: int) -> Any:
        return lambda frame: frame["epoch"] == epoch

    log = {"x_label": "σ of the convolution weights", "log": True}
    return [
        Panel("DSE(Z) untrained, σ = 10 (bits)", "sigma", "dse_10", "network", at(0), **log),
        Panel("DSE(Z) untrained, σ by neighbours", "sigma", "dse_neighbour", "network", at(0), **log),
        Panel("norm of the features", "sigma", "feature_norm", "network", at(0), **log),
        Panel("accuracy after 1 epoch", "sigma", "accuracy", "network", at(1), **log),
        Panel(f"accuracy after {epochs} epochs", "sigma", "accuracy", "network", at(epochs), **log),
    ]


if __name__ == "__main__":
    main()
