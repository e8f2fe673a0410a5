"""What becomes of embeddings through long adaptation by entropy minimisation: clusters, distance, entropies, accuracy.

    OOD_HARNESS_DATA=... python benchmarks/studies/enigma.py

The convnets of the recipes fashion-mnist-batchnorm and fashion-mnist-groupnorm, 3 seeds, adapted by tent and by eta to
corrupted Fashion-MNIST, severity 5, in batches of 50: epoch after epoch over 9,000 images, shuffled anew for each. At
some of the steps the network is measured on 1,000 other corrupted images, without learning from them, and beside the
source model's embeddings of 1,000 training images. Writes enigma.csv, and a picture for each corruption: enigma.png
for the first. After Press et al., "The Entropy Enigma", ICML 2024.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from common import PREPROCESSING, Panel, draw, each, options, penultimate, pixels, trained, write_table
from dynamics import views
from sklearn.metrics import silhouette_score
from torch import Tensor

import harness
from harness.base.seeding import repeatable_kernels
from harness.contract.registry import Registry
from harness.contract.selection import Selection
from harness.data.id_data import IdData
from harness.data.opening import open_id
from harness.data.tables import IdEntry
from harness_plugins.adapters.eta import Eta
from harness_plugins.adapters.layers import entropy, forward
from harness_plugins.adapters.tent import Tent
from harness_plugins.datasets.corruptions.dataset import CorruptedDataset
from harness_plugins.probes.diffusion import diffusion_spectral_entropy
from harness_plugins.probes.drift import DriftDetector, FittedDriftDetector
from harness_plugins.probes.er import vmf_entropy, vmf_reconstruction
from harness_plugins.scorers.moments import unit_vectors

NETWORKS = ("batchnorm", "groupnorm")
ADAPTERS: dict[str, harness.Adapter] = {"tent": Tent(), "eta": Eta()}
CORRUPTIONS = ("gaussian_noise", "contrast")
SEVERITY = 5
BATCH = 50
MEASURED = (0, 1, 2, 5, 10, 20, 50, 100, 200, 300, 500, 700, 1000, 1500, 2000, 3000, 5000)


def main() -> None:
    arguments = options(__doc__, seeds=3, steps=2000, pool=9000, probe=1000, train=20_000)
    registry = Registry.load()
    train = {"split": "train", "limit": arguments.train}
    entry = {"dataset": "hf:fashion_mnist", "train": train, "test": {"split": "test"}}
    data = open_id(IdEntry.model_validate(entry), registry)
    runs = list(itertools.product(CORRUPTIONS, NETWORKS, range(arguments.seeds)))
    rows = [row for run in each(runs, "enigma") for row in compare(run, data, registry, arguments)]
    frame = write_table(rows, arguments.tables / "enigma.csv")
    adapted = frame[frame["adapter"] != "source"]
    lines = adapted["network"] + ", " + adapted["adapter"]
    shown = adapted.assign(line=lines, step=adapted["step"].clip(lower=0.5))  # a logarithmic axis has no 0
    for corruption, name in zip(CORRUPTIONS, ("enigma", "enigma-contrast"), strict=True):
        of_corruption = shown[shown["corruption"] == corruption]
        draw(of_corruption, panels(), arguments.pictures / f"{name}.png")


def compare(
    run: tuple[str, str, int], data: IdData, registry: Registry, arguments: Any
) -> Iterator[dict[str, Any]]:
    """Adapt one network by every adapter to one corruption, and yield what was measured along the way."""
    corruption, network, seed = run
    order = np.random.default_rng(seed).permutation(len(data.test))
    held, pool = np.split(order[: arguments.probe + arguments.pool], [arguments.probe])
    model = trained(f"fashion-mnist-{network}", seed, data, registry, arguments.device)
    source: Any = model.classifier
    source.to(arguments.device).eval()
    measured = Measured(data.test.take(held), corruption, training_embeddings(source, data, arguments.probe))
    stream = pixels(corrupted(data.test.take(pool), corruption)).to(arguments.device)
    place = {"corruption": corruption, "network": network, "seed": seed}
    yield {**place, "adapter": "source", "step": 0, "updated": math.nan, **measured.numbers(source)}
    for name, adapter in ADAPTERS.items():
        for row in follow(copy.deepcopy(source), adapter, stream, measured, steps=arguments.steps, seed=seed):
            yield {**place, "adapter": name, **row}


def training_embeddings(source: Any, data: IdData, count: int) -> Tensor:
    """Embed training images by the source model as it was trained, with its own statistics, (M, D)."""
    assert data.train is not None
    return penultimate(source, pixels(data.train.limited(count)))


def corrupted(selection: Selection, corruption: str) -> Selection:
    """Put a corruption onto images, which keep their order and labels."""
    changed = CorruptedDataset(selection, corruption, severity=SEVERITY)
    return Selection(corruption, changed, np.arange(len(selection)), selection.labels)


def follow(
    classifier: Any, adapter: harness.Adapter, stream: Tensor, measured: Measured, *, steps: int, seed: int
) -> list[dict[str, Any]]:
    """Adapt a classifier, and measure it before its first step and after some of the others."""
    rows: list[dict[str, Any]] = []
    updated: list[bool] = []  # since the last measurement

    def batches() -> Iterator[Tensor]:
        # the adapter asks for a batch when it is done with the one before, so that nothing happens meanwhile
        for step, batch in enumerate(itertools.islice(endless(stream, seed), steps + 1)):
            if step in MEASURED or step == steps:
                share = float(np.mean(updated)) if updated else math.nan
                rows.append({"step": step, "updated": share, **measured.numbers(classifier)})
                updated.clear()
            if step < steps:
                yield batch

    with repeatable_kernels():
        for adapted in adapter.adapt(classifier, batches()):
            updated.append(adapted.updated)
    return rows


def endless(images: Tensor, seed: int) -> Iterator[Tensor]:
    """Yield full batches of images, in a new order every epoch."""
    rng = np.random.default_rng(seed)
    while True:
        order = torch.from_numpy(rng.permutation(len(images))).to(images.device)
        yield from (images[chosen] for chosen in order.split(BATCH) if len(chosen) == BATCH)


class Measured:
    """Held-out images, clean, corrupted, and corrupted in two augmented views; and the source's embeddings beside."""

    def __init__(self, held: Selection, corruption: str, training: Tensor) -> None:
        shifted = corrupted(held, corruption)
        self.labels = torch.from_numpy(held.labels)
        self.clean, self.shifted = pixels(held), pixels(shifted)
        self.views = [views(shifted, PREPROCESSING, number) for number in (0, 1)]
        vectors = unit_vectors(training)
        self.near = FittedDriftDetector(DriftDetector("knn"), vectors, sigma=1.0, size=len(held), within=0.0)

    def numbers(self, classifier: Any) -> dict[str, float]:
        """Compute every measure, on unit vectors where it is about distances. Nothing of the classifier changes."""
        clean, shifted = forwarded(classifier, self.clean), forwarded(classifier, self.shifted)
        z, directions = shifted.penultimate, unit_vectors(shifted.penultimate)
        predicted = shifted.logits.argmax(dim=1)
        first, second = (unit_vectors(forwarded(classifier, view).penultimate) for view in self.views)
        return {
            "accuracy": (predicted == self.labels).double().mean().item(),
            "clean_accuracy": (clean.logits.argmax(dim=1) == self.labels).double().mean().item(),
            "entropy": entropy(shifted.logits).mean().item(),
            "class_entropy": evenness(predicted, shifted.logits.shape[1]),
            "silhouette_true": silhouette(directions, self.labels),
            "silhouette_predicted": silhouette(directions, predicted),
            "distance": defined(lambda: self.near.value(z)),
            "clean_distance": defined(lambda: self.near.value(clean.penultimate)),
            "norm": torch.linalg.vector_norm(z, dim=1).mean().item(),
            "dse_10": diffusion_spectral_entropy(z),
            "dse_neighbour": defined(lambda: diffusion_spectral_entropy(z, sigma="neighbour")),
            "er_entropy": defined(lambda: vmf_entropy(first).item()),
            "er_reconstruction": defined(lambda: vmf_reconstruction(first, second).item()),
        }


def forwarded(classifier: Any, images: Tensor) -> harness.Features:
    """Forward images in batches of the stream's size, whose statistics BatchNorm takes: float64, on the CPU."""
    device = next(classifier.parameters()).device
    with torch.no_grad():
        parts = [forward(classifier, batch.to(device)) for batch in images.split(BATCH)]
    return harness.Features(
        logits=torch.cat([part.logits for part in parts]).double().cpu(),
        penultimate=torch.cat([part.penultimate for part in parts]).double().cpu(),
    )


def silhouette(points: Tensor, classes: Tensor) -> float:
    """Compute the mean silhouette by Euclidean distances, (N, D), (N,): from -1 to 1, NaN where there is one class."""
    if len(classes.unique()) < 2:
        return math.nan
    value: float = silhouette_score(points.numpy(), classes.numpy())
    return value


def evenness(classes: Tensor, count: int) -> float:
    """Compute the entropy of the classes' shares over ln C: 1 where all are as frequent, 0 where there is one."""
    shares = classes.bincount(minlength=count).double() / len(classes)
    return torch.special.entr(shares).sum().item() / math.log(count)


def defined(measure: Callable[[], float]) -> float:
    """Return what a measure gives, or NaN where it has none, as the width of points that coincide."""
    try:
        return measure()
    except harness.InputError:
        return math.nan


def panels() -> list[Panel]:
    """Lay out the picture: how well the networks do, then what has become of the held-out images' embeddings."""
    shown = {
        "accuracy": "accuracy, held-out corrupted images",
        "clean_accuracy": "accuracy, the same images clean",
        "entropy": "mean entropy of predictions (nats)",
        "distance": "distance to the source's training embeddings",
        "silhouette_predicted": "silhouette by predicted classes",
        "silhouette_true": "silhouette by true classes",
        "dse_neighbour": "DSE(Z), σ by neighbours (bits)",
        "er_entropy": "vMF entropy (nats)",
        "er_reconstruction": "reconstruction between two views (nats)",
    }
    return [
        Panel(title, "step", column, "line", x_label="step (left edge: before the first)", log=True)
        for column, title in shown.items()
    ]


if __name__ == "__main__":
    main()
