"""Training a classifier on a suite's ID data: cross-entropy, float32, the last epoch's weights.

Nothing is selected on held-out data: validation accuracy is shown and reported, and no test data is seen.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from timm.optim import create_optimizer_v2  # type: ignore[attr-defined]
from timm.scheduler.scheduler_factory import create_scheduler_v2
from torch.nn import functional

import harness
from harness_plugins.models.seeding import one_thread, repeatable_kernels, seeded

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from harness import Selection
    from harness_plugins.models.networks import Network

DECODED_AT_ONCE = 4096
EVALUATED_AT_ONCE = 1024
SMALL_BATCH = 2**14  # pixels in a batch, below which a second thread costs more than it brings


@dataclass(frozen=True)
class Settings:
    """How to optimise."""

    optimizer: str  # a name of timm's: adam, adamw, sgd (with Nesterov momentum 0.9)
    lr: float
    epochs: int
    batch_size: int
    weight_decay: float = 0.0  # on weights only, not on biases and normalisation
    schedule: str = "constant"  # or cosine: down to 0, step by step


@dataclass(frozen=True, eq=False)
class Trained:
    """A trained network in eval mode, and its accuracy on the validation data where there is any."""

    network: Network
    validation_accuracy: float | None


@dataclass(frozen=True, eq=False)
class _Samples:
    images: Tensor  # uint8 (N, channels, H, W)
    labels: Tensor  # (N,) int64

    def __len__(self) -> int:
        return len(self.labels)


def train(
    build: Callable[[], Network],
    data: harness.TrainingData,
    preprocessing: harness.Preprocessing,
    settings: Settings,
    *,
    name: str = "model",
    seed: int = 0,
    device: str = "cpu",
    progress: bool = False,
) -> Trained:
    """Build a network and train it on `data.train`; the same seed gives the same bits on the same machine.

    All images are decoded once and held in memory as one uint8 tensor, so this is for data that fits there.
    Raises InputError for labels out of range, and where the loss stops being finite, naming the step.
    """
    samples = _decode(data.train, preprocessing, data.num_classes)
    validation = _decode(data.validation, preprocessing, data.num_classes) if data.validation else None
    is_small = settings.batch_size * samples.images[0].numel() < SMALL_BATCH
    with seeded(seed, device), repeatable_kernels(), one_thread(wanted=is_small):
        network = build().to(device).to(memory_format=torch.channels_last)  # up to twice as fast on a CPU
        run = _Run(network, preprocessing, settings, name=name, device=device)
        accuracy = run.fit(
            samples, validation, shuffler=torch.Generator().manual_seed(seed), progress=progress
        )
    return Trained(network.to(memory_format=torch.contiguous_format).eval(), accuracy)


class _Run:
    def __init__(
        self,
        network: Network,
        preprocessing: harness.Preprocessing,
        settings: Settings,
        *,
        name: str,
        device: str,
    ) -> None:
        self._network, self._preprocessing, self._settings = network, preprocessing, settings
        self._name, self._device = name, device
        self._optimizer = create_optimizer_v2(
            network, opt=settings.optimizer, lr=settings.lr, weight_decay=settings.weight_decay
        )

    def fit(
        self, samples: _Samples, validation: _Samples | None, *, shuffler: torch.Generator, progress: bool
    ) -> float | None:
        """Run all epochs and return the validation accuracy after the last."""
        steps = math.ceil(len(samples) / self._settings.batch_size)
        scheduler = self._scheduler(steps)
        shown: dict[str, str] = {}
        accuracy = None
        total = self._settings.epochs * steps
        with harness.progress_bar(
            total=total, description=f"train {self._name}", unit="step", enabled=progress
        ) as bar:
            for epoch in range(self._settings.epochs):
                self._network.train()
                order = torch.randperm(len(samples), generator=shuffler)
                for number, chosen in enumerate(torch.split(order, self._settings.batch_size), start=1):
                    loss = self._step(samples.images[chosen], samples.labels[chosen])
                    self._refuse_divergence(loss, step=epoch * steps + number, epoch=epoch + 1)
                    if scheduler is not None:
                        scheduler.step_update(epoch * steps + number)
                    shown["loss"] = f"{loss:.4f}"
                    bar.set_postfix(shown, refresh=False)
                    bar.update()
                if validation is not None:
                    accuracy = self._accuracy(validation)
                    shown["val_accuracy"] = f"{accuracy:.4f}"
        return accuracy

    def _step(self, images: Tensor, labels: Tensor) -> float:
        logits = self._network(self._inputs(images))
        loss = functional.cross_entropy(logits, labels.to(self._device))
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        return float(loss.detach())

    def _accuracy(self, samples: _Samples) -> float:
        self._network.eval()
        correct = 0
        with torch.inference_mode():
            for start in range(0, len(samples), EVALUATED_AT_ONCE):
                part = slice(start, start + EVALUATED_AT_ONCE)
                predicted = self._network(self._inputs(samples.images[part])).argmax(dim=1)
                correct += int((predicted.cpu() == samples.labels[part]).sum())
        return correct / len(samples)

    def _inputs(self, images: Tensor) -> Tensor:
        moved = images.to(self._device).contiguous(memory_format=torch.channels_last)
        return self._preprocessing.normalise(moved)

    def _scheduler(self, steps: int) -> Any:
        if self._settings.schedule == "constant":
            return None
        scheduler, _ = create_scheduler_v2(
            self._optimizer,
            sched=self._settings.schedule,
            num_epochs=self._settings.epochs,
            step_on_epochs=False,
            updates_per_epoch=steps,
        )
        return scheduler

    def _refuse_divergence(self, loss: float, *, step: int, epoch: int) -> None:
        if not math.isfinite(loss):
            raise harness.InputError(
                f"training {self._name!r}: the loss became {loss} at step {step} (epoch {epoch} of "
                f"{self._settings.epochs}). Lower the recipe's lr, which is {self._settings.lr}"
            )


def _decode(selection: Selection, preprocessing: harness.Preprocessing, num_classes: int) -> _Samples:
    size = len(selection)
    if size == 0:
        raise harness.InputError(
            f"the selection {selection.name!r} is empty, so nothing can be trained on it"
        )
    labels = torch.as_tensor(selection.labels, dtype=torch.int64)
    lowest, highest = int(labels.min()), int(labels.max())
    if lowest < 0 or highest >= num_classes:
        raise harness.InputError(
            f"the selection {selection.name!r} has labels from {lowest} to {highest}. Training on "
            f"{num_classes} classes needs labels 0 to {num_classes - 1}: give the suite's [id] its classes"
        )
    images = torch.empty((size, *preprocessing.input_size), dtype=torch.uint8)
    for start in range(0, size, DECODED_AT_ONCE):
        stop = min(start + DECODED_AT_ONCE, size)
        images[start:stop] = preprocessing.batch(selection.images(range(start, stop)))
    return _Samples(images, labels)
