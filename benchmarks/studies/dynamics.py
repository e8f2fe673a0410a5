"""DSE, DSMI and the ER terms along training, on the true labels and on shuffled ones, which are learnt by heart.

    OOD_HARNESS_DATA=... python benchmarks/studies/dynamics.py

A small convnet on 1,000 images of Fashion-MNIST, 3 seeds each, measured on 500 test images with their true labels
and on 500 training images with the labels that were trained on. Writes dynamics.csv and dynamics.png.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
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
from torch.nn import functional

from harness.contract.preprocessing import Preprocessing
from harness.contract.registry import Registry
from harness.contract.selection import Selection
from harness.contract.specs import Model, TrainingData
from harness.models.training.assembly import Blueprint, Part
from harness.models.training.augmentation import Augmentation
from harness.models.training.loop import train
from harness.models.training.recipe import AugmentationTable, Recipe
from harness_plugins.probes.clouds import input_clusters
from harness_plugins.probes.diffusion import (
    diffusion_spectral_entropy,
    diffusion_spectral_mutual_information,
)
from harness_plugins.probes.er import vmf_entropy, vmf_reconstruction

CONDITIONS = ("true labels", "shuffled labels")
VIEWS = AugmentationTable(crop_padding=2, hflip=0.5)


def main() -> None:
    arguments = options(__doc__, seeds=3, epochs=60, train=1000, test=500)
    data = fashion_mnist(train=arguments.train, test=arguments.test)
    assert data.train is not None
    runs = [(condition, seed) for condition in CONDITIONS for seed in range(arguments.seeds)]
    rows = [
        row
        for condition, seed in each(runs, "dynamics")
        for row in follow(data.train, data.test, condition, seed, arguments)
    ]
    frame = write_table(rows, arguments.tables / "dynamics.csv")
    draw(frame, panels(), arguments.pictures / "dynamics.png")


def follow(
    train_set: Selection, test_set: Selection, condition: str, seed: int, arguments: Any
) -> list[dict[str, Any]]:
    """Train one network and measure it before the first epoch and after every one."""
    labels = train_set.labels
    if condition == CONDITIONS[1]:
        labels = np.random.default_rng(seed).permutation(labels)
    trained_on = Selection(train_set.name, train_set.dataset, train_set.indices, labels)
    seen = trained_on.take(np.arange(min(len(test_set), len(trained_on))))
    parts = {"test": Measured(test_set), "train": Measured(seen)}
    rows: list[dict[str, Any]] = []

    def measure(epoch: int, model: Model) -> None:
        for name, part in parts.items():
            place = {"condition": condition, "seed": seed, "epoch": epoch, "on": name}
            rows.append({**place, **part.numbers(model.classifier)})

    recipe = Recipe.model_validate(
        {
            "schema": 1,
            "name": "dynamics",
            "model": "cnn",
            "objective": "cross_entropy",
            "lr": 0.002,
            "epochs": arguments.epochs,
            "batch_size": 64,
        }
    )
    blueprint = Blueprint(
        Part("cnn", {"width": 16}), Part("cross_entropy", {}), 10, PREPROCESSING, Registry.load()
    )
    model = replace(blueprint.build(seed=seed), num_classes=10)
    data = TrainingData(trained_on, None, 10)
    train(model, blueprint.loss(), recipe, data, seed=seed, device=arguments.device, on_epoch=measure)
    return rows


class Measured:
    """A set of images with two augmented views of each, and what is measured of their features."""

    def __init__(self, selection: Selection) -> None:
        self.images = pixels(selection)
        self.labels = torch.as_tensor(selection.labels)
        self.views = [views(selection, PREPROCESSING, number) for number in (0, 1)]
        self.clusters = input_clusters(self.images.flatten(1).double())

    def numbers(self, classifier: Any) -> dict[str, float]:
        """Compute accuracy and every measure, at the paper's width 10 and at that of the 10th neighbour."""
        z = penultimate(classifier, self.images)
        found = {"accuracy": accuracy(classifier, self.images, self.labels)}
        for name, sigma in (("10", 10.0), ("neighbour", "neighbour")):
            found[f"dse_{name}"] = diffusion_spectral_entropy(z, sigma=sigma)
            found[f"dsmi_y_{name}"] = diffusion_spectral_mutual_information(z, self.labels, sigma=sigma)
            found[f"dsmi_x_{name}"] = diffusion_spectral_mutual_information(z, self.clusters, sigma=sigma)
        first, second = (functional.normalize(penultimate(classifier, view)) for view in self.views)
        found["er_entropy"] = vmf_entropy(first).item()
        found["er_reconstruction"] = vmf_reconstruction(first, second).item()
        found["er_bound"] = found["er_entropy"] - found["er_reconstruction"]
        return found


def views(selection: Selection, preprocessing: Preprocessing, number: int) -> torch.Tensor:
    """Shift and mirror every image by a seed of its own, (N, 1, 28, 28)."""
    augmentation = Augmentation(VIEWS, preprocessing)
    state = torch.random.get_rng_state()
    try:
        changed = [
            augmentation.changed(image, 2 * place + number)
            for place, image in enumerate(selection.images(range(len(selection))))
        ]
    finally:
        torch.random.set_rng_state(state)
    return preprocessing.normalise(torch.stack(changed))


def panels() -> list[Panel]:
    """Lay out the picture: what the networks learn, then the measures on test images."""

    def on(name: str) -> Any:
        return lambda frame: frame["on"] == name

    shown = (
        ("accuracy", "accuracy, training images", "train"),
        ("accuracy", "accuracy, test images", "test"),
        ("er_bound", "ER bound, entropy - reconstruction (nats)", "test"),
        ("dse_10", "DSE(Z), σ = 10 (bits)", "test"),
        ("dsmi_y_10", "DSMI(Z; Y), σ = 10 (bits)", "test"),
        ("dsmi_x_10", "DSMI(Z; X), σ = 10 (bits)", "test"),
        ("dse_neighbour", "DSE(Z), σ by neighbours (bits)", "test"),
        ("dsmi_y_neighbour", "DSMI(Z; Y), σ by neighbours (bits)", "test"),
        ("dsmi_x_neighbour", "DSMI(Z; X), σ by neighbours (bits)", "test"),
    )
    return [Panel(title, "epoch", column, "condition", on(name)) for column, title, name in shown]


if __name__ == "__main__":
    main()
