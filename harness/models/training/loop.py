"""The training loop. A step depends only on its number, the seed and the weights before it.

Every random draw is seeded by (seed, purpose, number). So the weights, the optimiser's state and the step's number are
enough to resume, and a resumed training ends with the same bits as one that was not interrupted. The number of CPU
threads changes the last bits of gradients. It is chosen before the first step, and kept with the state.
"""

from __future__ import annotations

import contextlib
import math
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch

from harness.base.errors import HarnessError
from harness.base.progress import progress_bar
from harness.base.seeding import (
    derived_seed,
    library_seeds_restored,
    repeatable_kernels,
    reseed,
    reseed_libraries,
    seeded,
)
from harness.base.threads import ThreadChoice, on_threads
from harness.contract.protocols import ViewObjective
from harness.models.batching import SMALL_BATCH, decoded_at_once
from harness.models.training.network import time_steps, trained_network
from harness.models.training.samples import shuffled
from harness.models.training.sets import Sets
from harness.models.training.settings import (
    autocast_dtype,
    make_optimizer,
    make_scheduler,
    require_known_optimizer,
)
from harness.models.training.state import Progress, StateFile, optimizer_state, restore_optimizer, with_prefix

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor, nn

    from harness.contract.protocols import Objective
    from harness.contract.selection import Selection
    from harness.contract.specs import Model, TrainingData
    from harness.models.training.recipe import Recipe
    from harness.models.training.samples import Samples

EVALUATED_AT_ONCE = 1024  # images, at most
SECONDS_BETWEEN_SAVES = 30.0
STEPS_BETWEEN_CHECKS = 16  # of the loss: reading it makes a GPU wait

_NETWORK, _KEPT, _GOOD = "network.", "kept.", "good."


class DivergedError(HarnessError):
    """The loss is not finite. Holds the weights of the last epoch that ended with finite weights, if any."""

    def __init__(self, message: str, weights: dict[str, Tensor] | None, epoch: int) -> None:
        super().__init__(message)
        self.weights, self.epoch = weights, epoch


@dataclass(frozen=True, eq=False)
class Trained:
    """A trained network in eval mode, and the record of its training."""

    model: Model
    epoch: int  # the epoch whose weights these are, from 1
    validation_accuracy: float | None  # of these weights; None without validation data or logits
    history: list[dict[str, float | int | None]]  # loss, learning rate and validation accuracy of each epoch
    threads: int | None = None  # on which the CPU computed; None for a GPU


def train(
    model: Model,
    objective: Objective,
    recipe: Recipe,
    data: TrainingData,
    *,
    auxiliary: Selection | None = None,
    seed: int = 0,
    device: str = "cpu",
    state: StateFile | None = None,
    progress: bool = False,
    on_epoch: Callable[[int, Model], None] | None = None,
) -> Trained:
    """Train a freshly built model on `data.train`.

    The same seed and the same number of CPU threads give the same bits on the same machine. One thread or all are
    used, whichever is faster on the first batch, unless the user has set a number (`OMP_NUM_THREADS`).

    The state file is saved at intervals, and a later call resumes from it. Images are held in memory if they fit
    (samples.py), else decoded when needed.

    `on_epoch` gets the model in eval mode: with 0 before the first step, and with each epoch's number at its end. Its
    random draws change no weight. A resumed training does not call it again for epochs that were completed before.

    Raises InputError for labels out of range, an empty class, and settings that timm does not take. Raises
    DivergedError, with the step, if the loss is not finite.
    """
    require_known_optimizer(recipe)
    views = objective.views if isinstance(objective, ViewObjective) else 1
    sets = Sets.of(recipe, data, auxiliary, model, views=views, seed=seed, device=device)
    is_small = views * recipe.batch_size * math.prod(model.preprocessing.input_size) < SMALL_BATCH
    with (
        seeded(seed, device),
        library_seeds_restored(),
        repeatable_kernels(),
    ):
        run = _Run(model, objective, recipe, sets, seed=seed, device=device)
        return run.fit(
            state, ThreadChoice.on(device, is_small=is_small), progress=progress, on_epoch=on_epoch
        )


class _Run:
    def __init__(
        self,
        model: Model,
        objective: Objective,
        recipe: Recipe,
        sets: Sets,
        *,
        seed: int,
        device: str,
    ) -> None:
        self._model, self._objective, self._recipe = model, objective, recipe
        self._sets, self._samples, self._validation = sets, sets.train, sets.validation
        self._seed, self._device = seed, device
        classifier: Any = model.classifier
        self._classifier: nn.Module = classifier
        self._network = trained_network(model, objective, seed).to(device)  # or a module around it
        self._network.to(memory_format=torch.channels_last)
        self._optimizer = make_optimizer(self._network, recipe)
        self._steps = len(shuffled(len(self._samples), recipe.batch_size))  # in an epoch
        self._scheduler = make_scheduler(self._optimizer, recipe, self._steps)
        augmentation = self._samples.augmentation
        self._erase = augmentation.erase if augmentation else None
        self._autocast_dtype = autocast_dtype(recipe.precision, device)
        self._after_step: Callable[[], None] | None = getattr(self._network, "after_step", None)
        self._on_epoch: Callable[[int, Model], None] | None = None
        self._progress = Progress()
        self._kept: dict[str, Tensor] | None = None  # weights of the best epoch, if the recipe selects it
        self._good: dict[str, Tensor] | None = None  # of the last epoch with finite weights
        self._unchecked: list[Tensor] = []  # losses that were not checked yet

    def fit(
        self,
        state: StateFile | None,
        choice: ThreadChoice,
        *,
        progress: bool = False,
        on_epoch: Callable[[int, Model], None] | None = None,
    ) -> Trained:
        """Run the remaining epochs, and return the model with the weights that the recipe selects."""
        self._on_epoch = on_epoch
        if state is not None:
            self._resume(state)
        self._progress.threads = self._threads(choice)
        with on_threads(self._progress.threads):
            self._run(state, progress=progress)
        return self._finished()

    def _threads(self, choice: ThreadChoice) -> int:
        """Return the number of threads: the user's, that of the resumed training, or the faster on the first batch."""
        if choice.chosen is None and not self._progress.threads:
            first = shuffled(len(self._samples), self._recipe.batch_size, self._seed, "order", 0)[:1]
            images = next(iter(self._samples.batches(first, views=self._sets.views)))
            batch = self._inputs(images), self._samples.labels[first[0]]
            time_steps(choice, self._network, self._objective, batch, self._autocast)
        return choice.chosen or self._progress.threads

    def _run(self, state: StateFile | None, *, progress: bool) -> None:
        if not self._progress.step:
            self._report(0)
        saved_at = time.monotonic()
        total = self._recipe.epochs * self._steps
        description = f"train {self._recipe.name} (seed {self._seed})"
        with progress_bar(total=total, description=description, unit="step", enabled=progress) as bar:
            bar.update(self._progress.step)
            shown: dict[str, str] = {}
            while self._progress.step < total:
                for loss in self._epoch():
                    if loss is not None:
                        shown["loss"] = f"{loss:.4f}"
                        bar.set_postfix(shown, refresh=False)
                    bar.update()
                    if state is not None and time.monotonic() - saved_at >= SECONDS_BETWEEN_SAVES:
                        self._save(state)
                        saved_at = time.monotonic()
                self._end_epoch()
                accuracy = self._progress.history[-1]["validation_accuracy"]
                if accuracy is not None:
                    shown["val_accuracy"] = f"{accuracy:.4f}"
                    bar.set_postfix(shown, refresh=False)

    def _epoch(self) -> Iterator[float | None]:
        """Take the remaining steps of the current epoch. Yields the last loss after a check, else None."""
        epoch, done = divmod(self._progress.step, self._steps)
        order = shuffled(len(self._samples), self._recipe.batch_size, self._seed, "order", epoch)[done:]
        outliers = self._sets.outlier_batches(self._progress.step, len(order))
        self._network.train()
        images_of = self._samples.batches(order, epoch=epoch, views=self._sets.views)
        batches = zip(order, images_of, outliers, strict=True)
        for chosen, images, extra in batches:
            reseed(derived_seed(self._seed, "step", self._progress.step), self._device)  # for dropout
            self._step(images, self._samples.labels[chosen], extra)
            is_last = self._progress.step % self._steps == 0
            yield self._check() if is_last or len(self._unchecked) >= STEPS_BETWEEN_CHECKS else None

    def _step(self, images: Tensor, labels: Tensor, extra: Tensor | None) -> None:
        if extra is not None:
            images = torch.cat([images, extra])
            labels = torch.cat([labels, labels.new_full((len(extra),), -1)])
        inputs = self._inputs(images)
        if self._erase is not None:
            reseed_libraries(derived_seed(self._seed, "erase", self._progress.step))
            inputs = self._erase(inputs)
        with self._autocast():
            outputs = self._network(inputs)
        loss = self._objective.loss(outputs.float(), labels.to(self._device, non_blocking=True))
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        if self._after_step is not None:
            self._after_step()
        self._unchecked.append(loss.detach())
        self._progress.step += 1
        if self._progress.step == 1:
            optimizer_state(self._optimizer)  # if it cannot be stored, fail now, not at the first save
        if self._scheduler is not None:
            self._scheduler.step_update(self._progress.step)

    def _check(self) -> float | None:
        """Add up the losses since the last check. Raises DivergedError at the first that is not finite."""
        if not self._unchecked:
            return None
        losses = torch.stack(self._unchecked).double().tolist()
        first = self._progress.step - len(losses) + 1
        self._unchecked.clear()
        for number, loss in enumerate(losses, start=first):
            if not math.isfinite(loss):
                raise self._diverged(loss, number)
            self._progress.loss_sum += loss
        return float(losses[-1])

    def _end_epoch(self) -> None:
        progress = self._progress
        epoch = progress.step // self._steps
        accuracy = None if self._validation is None else self._accuracy(self._validation)
        progress.history.append(
            {
                "epoch": epoch,
                "loss": progress.loss_sum / self._steps,
                "lr": self._optimizer.param_groups[0]["lr"],
                "validation_accuracy": accuracy,
            }
        )
        progress.loss_sum = 0.0
        weights = {name: value.detach().clone() for name, value in self._classifier.state_dict().items()}
        if all(bool(value.isfinite().all()) for value in weights.values()):
            self._good, progress.good_epoch = weights, epoch
        if self._recipe.select == "best" and self._chosen()["epoch"] == epoch:
            self._kept = weights
        self._report(epoch)

    def _report(self, epoch: int) -> None:
        if self._on_epoch is not None:
            self._network.eval()
            self._on_epoch(epoch, self._model)

    def _chosen(self) -> dict[str, Any]:
        """Return the history's entry of the epoch that the recipe selects, among those so far."""
        history = self._progress.history
        if self._recipe.select == "last":
            return history[-1]
        return max(history, key=lambda entry: entry["validation_accuracy"] or 0.0)  # the first of the highest

    def _finished(self) -> Trained:
        if self._kept is not None:
            self._classifier.load_state_dict(self._kept)
        self._classifier.to(memory_format=torch.contiguous_format).eval()
        chosen, progress = self._chosen(), self._progress
        threads = progress.threads if self._device == "cpu" else None
        return Trained(self._model, chosen["epoch"], chosen["validation_accuracy"], progress.history, threads)

    def _save(self, state: StateFile) -> None:
        self._check()
        tensors, values = optimizer_state(self._optimizer)
        tensors |= {_NETWORK + name: value for name, value in self._network.state_dict().items()}
        tensors |= {_KEPT + name: value for name, value in (self._kept or {}).items()}
        tensors |= {_GOOD + name: value for name, value in (self._good or {}).items()}
        state.save(tensors, {"progress": asdict(self._progress), "optimizer": values})

    def _resume(self, state: StateFile) -> None:
        found = state.load()
        if found is None:
            return
        tensors, content = found
        self._network.load_state_dict(with_prefix(tensors, _NETWORK))
        self._kept = {k: v.to(self._device) for k, v in with_prefix(tensors, _KEPT).items()} or None
        restore_optimizer(self._optimizer, tensors, content["optimizer"])
        self._progress = Progress(**content["progress"])
        self._good = with_prefix(tensors, _GOOD) or None
        if self._scheduler is not None:
            self._scheduler.step_update(self._progress.step)
        if self._progress.step and self._progress.step % self._steps == 0 and not self._ended_last_epoch():
            self._end_epoch()

    def _ended_last_epoch(self) -> bool:
        return len(self._progress.history) == self._progress.step // self._steps

    def _accuracy(self, samples: Samples) -> float:
        """Compute the accuracy: the share of samples whose largest logit is their label's."""
        self._classifier.eval()
        at_once = min(EVALUATED_AT_ONCE, decoded_at_once(self._model.preprocessing))
        order = torch.split(torch.arange(len(samples)), at_once)
        hits = 0
        with torch.inference_mode(), self._autocast():
            for chosen, images in zip(order, samples.batches(order), strict=True):
                predicted = self._classifier(self._inputs(images)).argmax(dim=1)
                hits += int((predicted.cpu() == samples.labels[chosen]).sum())
        return hits / len(samples)

    def _inputs(self, images: Tensor) -> Tensor:
        moved = images.to(self._device, non_blocking=True).contiguous(memory_format=torch.channels_last)
        return self._model.preprocessing.normalise(moved)

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        if self._autocast_dtype is None:
            return contextlib.nullcontext()
        return torch.autocast(torch.device(self._device).type, dtype=self._autocast_dtype)

    def _diverged(self, loss: float, step: int) -> DivergedError:
        recipe = self._recipe
        return DivergedError(
            f"training {recipe.name!r} (seed {self._seed}): the loss became {loss} at step {step} (epoch "
            f"{(step - 1) // self._steps + 1} of {recipe.epochs}). Lower the recipe's lr, which is {recipe.lr}",
            self._good,
            self._progress.good_epoch,
        )
