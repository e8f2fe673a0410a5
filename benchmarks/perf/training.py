"""What training by a recipe costs beside a bare loop of the same network, data and optimiser, side by side in one run.

    OOD_HARNESS_DATA=... python benchmarks/perf/training.py [RECIPE] [--suite SUITE] [--device DEVICE]

Both start from the same undecoded images and end with trained weights, which must agree. The bare loop decodes, then
shuffles, forwards, computes the loss, goes backward and steps, and does nothing else. The harness's adds all that a
user gets: seeding of every step, checks of the loss, progress, history, and the state from which a killed training
goes on. They take turns, and sums are compared, as the speed of a shared machine wanders. Exit 1 above the bound.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from harness.base.seeding import repeatable_kernels
from harness.contract.registry import Registry
from harness.contract.specs import TrainingData
from harness.data.opening import open_id, training_data
from harness.engine.manifest import device_name
from harness.engine.suite import load_id
from harness.models.loaded import resolve_device
from harness.models.training import loop
from harness.models.training.recipe import load_recipe
from harness.models.training.samples import shuffled
from harness.models.training.settings import make_optimizer
from harness.models.training.state import StateFile
from harness.models.training.training import Training

BOUND = 1.10
IMAGES, REPEATS = 12_800, 5
SECONDS_BETWEEN_SAVES = 1.0  # thirty times as often as in use, so that saves are in every measurement


def main() -> int:
    loop.SECONDS_BETWEEN_SAVES = SECONDS_BETWEEN_SAVES
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipe", nargs="?", default="fashion-mnist-isomaxplus")
    parser.add_argument("--suite", default="fashion-mnist-objectives")
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()
    device = resolve_device(arguments.device)
    training = prepared(arguments.recipe, arguments.suite, device)
    print(f"{arguments.recipe}: {len(training.data.train)} images of {arguments.suite}, one epoch, batch "
          f"{training.recipe.batch_size}")  # fmt: skip
    print(f"{device_name(device)}, {torch.get_num_threads()} threads, torch {torch.__version__}")

    threads = warm_up(training, device)
    print(f"both on {threads} threads, which the harness chose")
    bare, ours = 0.0, 0.0
    for number in range(REPEATS):
        for is_ours in (number % 2 == 0, number % 2 == 1):
            seconds, weights = (run_ours if is_ours else run_bare)(training, device)
            if is_ours:
                ours, our_weights = ours + seconds, weights
            else:
                bare, bare_weights = bare + seconds, weights
    apart = max(float((our_weights[k].double() - v.double()).abs().max()) for k, v in bare_weights.items())
    ratio = ours / bare
    print(f"{'':16s} {'seconds':>8s} {'ratio':>6s} {'bound':>6s}")
    print(f"{'bare loop':16s} {bare / REPEATS:8.2f} {1:6.3f}         {IMAGES * REPEATS / bare:.0f} images/s")
    print(f"{'harness':16s} {ours / REPEATS:8.2f} {ratio:6.3f} {BOUND:6.2f}")
    print(f"largest difference of a weight: {apart:.1e}")
    return int(ratio > BOUND or apart > 1e-6)


def prepared(recipe: str, suite: str, device: str) -> Training:
    """One epoch at a constant rate on the first part of the suite's training data."""
    registry = Registry.load()
    entry = load_id(suite, registry)
    data = training_data(open_id(entry, registry), entry.dataset)
    fewer = data.train.take(np.arange(min(IMAGES, len(data.train))))
    settings = load_recipe(recipe, registry).model_copy(
        update={
            "epochs": 1,
            "schedule": "constant",
            "schedule_params": {},
            "augmentation": None,
            "precision": "float32",
        }
    )
    return Training(settings, TrainingData(fewer, None, data.num_classes), 0, registry, device)


def warm_up(training: Training, device: str) -> int:
    """Run both once, and fix the number of threads for the measurement: both must compute the same sums."""
    threads = training.run().threads or torch.get_num_threads()
    torch.set_num_threads(threads)
    os.environ["OMP_NUM_THREADS"] = str(threads)
    run_bare(training, device), run_ours(training, device)
    return threads


def run_ours(training: Training, device: str) -> tuple[float, dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        trained = training.run(state=StateFile(Path(folder) / "state"), progress=True)
        seconds = time.perf_counter() - start
    return seconds, weights_of(trained.model.classifier)


def run_bare(training: Training, device: str) -> tuple[float, dict[str, Any]]:
    start = time.perf_counter()
    model = replace(training.blueprint.build(seed=0), num_classes=training.data.num_classes)
    objective, recipe, preprocessing = training.blueprint.loss(), training.recipe, model.preprocessing
    data = training.data.train
    images = torch.cat(
        [
            preprocessing.batch(data.images(range(i, min(i + 4096, len(data)))))
            for i in range(0, len(data), 4096)
        ]
    )
    labels = torch.as_tensor(data.labels)
    classifier: Any = model.classifier
    network = classifier.to(device).to(memory_format=torch.channels_last)
    optimizer = make_optimizer(network, recipe)
    network.train()
    with repeatable_kernels():
        for chosen in shuffled(len(images), recipe.batch_size, 0, "order", 0):
            batch = images[chosen].to(device).contiguous(memory_format=torch.channels_last)
            loss = objective.loss(network(preprocessing.normalise(batch)), labels[chosen].to(device))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.perf_counter() - start, weights_of(network)


def weights_of(network: Any) -> dict[str, Any]:
    return {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}


if __name__ == "__main__":
    sys.exit(main())
