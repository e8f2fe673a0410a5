from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import nn
from training_data import selected

import harness
from harness.contract.registry import Registry
from harness.models.training import loop
from harness.models.training.assembly import Blueprint, Part
from harness.models.training.loop import DivergedError, Trained, train
from harness.models.training.recipe import Recipe
from harness.models.training.samples import shuffled
from harness.models.training.state import StateFile

if TYPE_CHECKING:
    from pathlib import Path

    from harness import Selection

SETTINGS = {
    "schema": 1,
    "name": "tiny",
    "model": "cnn",
    "objective": "cross_entropy",
    "optimizer": "adam",
    "lr": 0.003,
    "epochs": 2,
    "batch_size": 16,
    "weight_decay": 1e-4,
    "schedule": "cosine",
}
GREY = harness.Preprocessing((1, 8, 8), mean=(0.3,), std=(0.4,))


def recipe(**changes: Any) -> Recipe:
    return Recipe.model_validate({**SETTINGS, **changes})


def trained(
    data: harness.TrainingData, settings: Recipe | None = None, *, seed: int = 0, **options: Any
) -> Trained:
    settings = settings or recipe()
    blueprint = Blueprint(
        Part("cnn", {"width": 4, "dropout": 0.2}),
        Part(settings.objective, settings.objective_params),
        2,
        GREY,
        Registry.load(blocked=()),
    )
    return train(blueprint.build(seed=seed), blueprint.loss(), settings, data, seed=seed, **options)


def weights(result: Trained) -> list[bytes]:
    network: Any = result.model.classifier
    return [value.numpy().tobytes() for value in network.state_dict().values()]


def test_the_same_seed_gives_the_same_bits_and_another_seed_others(tiny: harness.TrainingData) -> None:
    first, again, other = (weights(trained(tiny, seed=seed)) for seed in (3, 3, 4))
    assert first == again
    assert first != other


def test_training_leaves_the_global_random_states_and_flags_as_they_were(tiny: harness.TrainingData) -> None:
    def states() -> tuple[object, ...]:
        name, keys, *rest = np.random.get_state(legacy=True)
        flags = torch.backends.cudnn
        return (
            torch.random.get_rng_state().numpy().tobytes(),
            (name, np.asarray(keys).tobytes(), *rest),
            random.getstate(),
            (flags.enabled, flags.benchmark, flags.deterministic),
            torch.get_num_threads(),
            torch.get_default_dtype(),
            torch.is_grad_enabled(),
        )

    before = states()
    trained(tiny, seed=1)
    assert states() == before


def test_a_trained_network_is_in_eval_mode_and_knows_its_validation_accuracy(
    tiny: harness.TrainingData,
) -> None:
    result = trained(tiny, recipe(epochs=12, batch_size=8))
    network: Any = result.model.classifier
    assert not network.training
    assert result.validation_accuracy == 1.0
    assert trained(harness.TrainingData(tiny.train, None, 2)).validation_accuracy is None


def test_progress_goes_to_stderr_only_where_it_is_wanted(
    tiny: harness.TrainingData, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.base.progress._SECONDS_BETWEEN_LOG_LINES", 0.0)
    trained(tiny, recipe(name="quiet"))
    assert capsys.readouterr() == ("", "")
    trained(tiny, recipe(name="loud"), progress=True)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "train loud" in shown.err
    assert "loss=" in shown.err
    assert "val_accuracy=" in shown.err


def test_a_loss_that_is_not_finite_names_the_step_and_the_fix(tiny: harness.TrainingData) -> None:
    settings = recipe(name="wild", optimizer="sgd", lr=1e30, epochs=4, schedule="constant")
    with pytest.raises(
        harness.HarnessError,
        match=r"'wild' \(seed 0\): the loss became (nan|inf) at step \d+ \(epoch \d of 4\)\. Lower the recipe's lr",
    ):
        trained(tiny, settings)


class Exploding:
    """Cross-entropy until a given call, then NaN."""

    def __init__(self, good_calls: int) -> None:
        self.calls, self.good_calls = 0, good_calls

    def head(self, num_features: int, num_classes: int) -> nn.Module | None:
        return None

    def loss(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        loss = nn.functional.cross_entropy(outputs, targets)
        return loss if self.calls <= self.good_calls else loss * math.nan


@pytest.mark.parametrize(("good_calls", "epoch"), [(0, 0), (2, 0), (3, 1), (7, 2)])
def test_divergence_names_its_very_step_and_holds_the_last_good_epoch(
    tiny: harness.TrainingData, good_calls: int, epoch: int
) -> None:
    settings = recipe(epochs=5, schedule="constant")  # of three steps each
    model = Blueprint(
        Part("cnn", {"width": 4}), Part("cross_entropy", {}), 2, GREY, Registry.load(blocked=())
    )
    with pytest.raises(DivergedError, match=rf"became nan at step {good_calls + 1} ") as caught:
        train(model.build(seed=0), Exploding(good_calls), settings, tiny)
    assert caught.value.epoch == epoch
    assert (caught.value.weights is None) == (epoch == 0)
    if caught.value.weights is not None:
        # A constant rate makes a shorter training the beginning of a longer one.
        shorter = train(
            model.build(seed=0), Exploding(99), settings.model_copy(update={"epochs": epoch}), tiny
        )
        network: Any = shorter.model.classifier
        assert all(
            torch.equal(value, caught.value.weights[key]) for key, value in network.state_dict().items()
        )


def test_after_a_resumption_the_last_good_epoch_is_still_the_last_good_epoch(
    tiny: harness.TrainingData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "SECONDS_BETWEEN_SAVES", 0.0)
    settings, state = recipe(epochs=5, schedule="constant"), StateFile(tmp_path / "folder" / "state")
    model = Blueprint(
        Part("cnn", {"width": 4}), Part("cross_entropy", {}), 2, GREY, Registry.load(blocked=())
    )
    kept = []
    for good_calls in (5, 0):  # the second begins at step 5, where the first one left off
        with pytest.raises(DivergedError) as caught:
            train(model.build(seed=0), Exploding(good_calls), settings, tiny, state=state)
        assert caught.value.epoch == 1
        assert caught.value.weights is not None
        kept.append({key: value.tolist() for key, value in caught.value.weights.items()})
    assert kept[0] == kept[1]


@pytest.mark.parametrize("labels", [[0, 1, 2, 1], [0, -1, 1, 1]])
def test_labels_out_of_range_are_refused(labels: list[int]) -> None:
    selection = selected(np.zeros((4, 8, 8), dtype=np.uint8), labels, "odd")
    with pytest.raises(harness.InputError, match=r"'odd' has labels from -?\d to \d.*needs labels 0 to 1"):
        trained(harness.TrainingData(selection, None, 2))


def test_a_class_without_a_sample_is_refused() -> None:
    selection = selected(np.zeros((4, 8, 8), dtype=np.uint8), [0, 0, 3, 3], "gaps")
    with pytest.raises(harness.InputError, match=r"'gaps' has no sample of class 1, 2, of classes 0 to 3"):
        trained(harness.TrainingData(selection, None, 4))


def test_an_empty_selection_is_refused(tiny: harness.TrainingData) -> None:
    empty: Selection = tiny.train.take(np.arange(0))
    with pytest.raises(harness.InputError, match="'tiny' is empty"):
        trained(harness.TrainingData(empty, None, 2))


def test_a_validation_split_does_not_change_the_weights(tiny: harness.TrainingData) -> None:
    without = trained(harness.TrainingData(tiny.train, None, 2), seed=5)
    assert weights(trained(tiny, seed=5)) == weights(without)


def test_the_best_epoch_is_the_first_of_the_highest_validation_accuracy(tiny: harness.TrainingData) -> None:
    settings = recipe(optimizer="sgd", lr=0.1, epochs=8, schedule="constant")
    best = trained(tiny, settings.model_copy(update={"select": "best"}))
    accuracies = [entry["validation_accuracy"] for entry in best.history]
    assert best.validation_accuracy == max(accuracies)
    assert best.epoch == 1 + accuracies.index(max(accuracies))
    assert best.epoch < 8, "the last epoch is the best one, so this shows nothing"
    # A constant rate makes a shorter training the beginning of a longer one.
    shorter = trained(tiny, settings.model_copy(update={"epochs": best.epoch}))
    assert weights(best) == weights(shorter)
    assert weights(best) != weights(trained(tiny, settings))


def test_selecting_the_best_epoch_needs_validation_data(tiny: harness.TrainingData) -> None:
    with pytest.raises(
        harness.InputError, match="selects the best epoch on validation data, but there are none"
    ):
        trained(harness.TrainingData(tiny.train, None, 2), recipe(select="best"))


def test_the_loop_is_the_bare_loop(tiny: harness.TrainingData) -> None:
    """Without dropout and schedule, each step is forward, loss, backward and step, on shuffled batches."""
    settings = recipe(optimizer="sgd", lr=0.05, weight_decay=0.0, schedule="constant", epochs=3)
    catalogue = Registry.load(blocked=())
    blueprint = Blueprint(Part("mlp", {"hidden": [7]}), Part("cross_entropy", {}), 2, GREY, catalogue)
    result = train(blueprint.build(seed=4), blueprint.loss(), settings, tiny, seed=4)

    network: Any = blueprint.build(seed=4).classifier
    images = GREY.normalise(GREY.batch(tiny.train.images(range(40))))
    labels = torch.as_tensor(tiny.train.labels)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9, nesterov=True)
    losses = []
    for epoch in range(3):
        for chosen in shuffled(40, 16, 4, "order", epoch):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(network(images[chosen]), labels[chosen])
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    expected = {key: value.numpy() for key, value in network.state_dict().items()}
    found: Any = result.model.classifier
    for key, value in found.state_dict().items():
        np.testing.assert_allclose(value.numpy(), expected[key], rtol=1e-5, atol=1e-7)
    assert [entry["loss"] for entry in result.history] == pytest.approx(
        [float(np.mean(losses[3 * epoch : 3 * epoch + 3])) for epoch in range(3)], rel=1e-5
    )


def test_an_epoch_sees_every_sample_once_in_another_order_each_time() -> None:
    epochs = [torch.cat(list(shuffled(50, 16, 0, "order", epoch))) for epoch in range(3)]
    assert all(sorted(order.tolist()) == list(range(50)) for order in epochs)
    assert len({tuple(order.tolist()) for order in epochs}) == 3
    assert [len(batch) for batch in shuffled(49, 16, 0)] == [16, 16, 16], "a last batch of one is left out"


def test_the_schedule_is_timms_by_steps(tiny: harness.TrainingData) -> None:
    settings = recipe(
        optimizer="sgd",
        lr=0.1,
        epochs=4,
        schedule="multistep",
        schedule_params={"decay_milestones": [1, 3], "decay_rate": 0.1},
    )
    history = trained(tiny, settings).history
    assert [entry["lr"] for entry in history] == pytest.approx([0.01, 0.01, 0.001, 0.001])  # after the epoch


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"optimizer": "sdg"}, "no optimizer named 'sdg'. Did you mean 'sgd'?"),
        (
            {"optimizer": "sgd", "optimizer_params": {"momentun": 0.9}},
            "the optimizer 'sgd' cannot be made with optimizer_params = {'momentun': 0.9}:",
        ),
        ({"optimizer": "adahessian"}, "the optimizer 'adahessian' needs second derivatives"),
        (
            {"optimizer_params": {"layer_decay": 0.5}, "schedule": "constant"},
            "layer_decay is applied by a schedule, but the recipe's is constant",
        ),
        (
            {"schedule_params": {"warm": 3}},
            "the schedule 'cosine' cannot be made with schedule_params = {'warm': 3}:",
        ),
    ],
)
def test_settings_that_timm_does_not_take_are_one_line(
    tiny: harness.TrainingData, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(harness.HarnessError) as caught:
        trained(tiny, recipe(**changes))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_outliers_come_in_every_batch_with_the_target_minus_one(tiny: harness.TrainingData) -> None:
    seen: list[tuple[int, int]] = []

    class Watching(Exploding):
        def loss(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
            seen.append((int((targets >= 0).sum()), int((targets == -1).sum())))
            return nn.functional.cross_entropy(outputs, targets, ignore_index=-1)

    outliers = selected(np.full((10, 8, 8), 7, dtype=np.uint8), [-1] * 10, "outliers")
    settings = recipe(auxiliary={"dataset": "unread", "batch_size": 4})
    blueprint = Blueprint(
        Part("cnn", {"width": 4}), Part("cross_entropy", {}), 2, GREY, Registry.load(blocked=())
    )
    train(blueprint.build(seed=0), Watching(0), settings, tiny, auxiliary=outliers)
    assert seen == [(16, 4), (16, 4), (8, 4)] * 2

    seen.clear()
    ones = settings.model_copy(update={"auxiliary": settings.auxiliary.model_copy(update={"batch_size": 1})})  # type: ignore[union-attr]
    train(
        blueprint.build(seed=0), Watching(0), ones.model_copy(update={"epochs": 5}), tiny, auxiliary=outliers
    )
    assert [outliers for _, outliers in seen] == [1] * 15, "ten outliers last for fifteen steps"


def test_bfloat16_runs_and_ends_elsewhere_than_float32(tiny: harness.TrainingData) -> None:
    low, full = (trained(tiny, recipe(precision=precision)) for precision in ("bfloat16", "float32"))
    assert weights(low) != weights(full)
    assert all(math.isfinite(entry["loss"]) for entry in low.history)
    assert weights(trained(tiny, recipe(precision="auto"))) == weights(full)  # on a CPU


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_training_runs_and_repeats_on_a_gpu(tiny: harness.TrainingData) -> None:
    def on_gpu() -> list[bytes]:
        network: Any = trained(tiny, device="cuda").model.classifier
        return [value.cpu().numpy().tobytes() for value in network.state_dict().values()]

    assert on_gpu() == on_gpu()
