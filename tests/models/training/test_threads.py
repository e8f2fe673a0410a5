"""The number of CPU threads of a training is chosen before the first step, recorded, and kept when it resumes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from training_data import selected

import harness
from harness.base.threads import ThreadChoice
from harness.contract.registry import Registry
from harness.models.training import loop
from harness.models.training.assembly import Blueprint, Part
from harness.models.training.loop import Trained, train
from harness.models.training.recipe import Recipe
from harness.models.training.state import StateFile

if TYPE_CHECKING:
    from pathlib import Path

SIDE = 32
SETTINGS = Recipe.model_validate(
    {
        "schema": 1,
        "name": "wide",
        "model": "cnn",
        "objective": "cross_entropy",
        "lr": 0.003,
        "epochs": 2,
        "batch_size": 24,
    }
)


@pytest.fixture(scope="module")
def data() -> harness.TrainingData:
    """Two classes of images whose batches are not small."""
    rng = np.random.default_rng(0)
    labels = np.arange(48) % 2
    images = (rng.integers(0, 100, (48, SIDE, SIDE)) + 100 * labels[:, None, None]).astype(np.uint8)
    return harness.TrainingData(selected(images, labels, "wide"), None, 2)


@pytest.fixture
def choices(monkeypatch: pytest.MonkeyPatch) -> list[ThreadChoice]:
    """The choices that trainings open: between 1 and 2 threads, whatever the machine and the user say."""
    opened: list[ThreadChoice] = []

    def on(device: str, *, is_small: bool = False) -> ThreadChoice:
        assert not is_small
        opened.append(ThreadChoice((1, 2)))
        return opened[-1]

    monkeypatch.setattr(ThreadChoice, "on", on)
    return opened


def trained(data: harness.TrainingData, state: StateFile | None = None, **options: Any) -> Trained:
    grey = harness.Preprocessing((1, SIDE, SIDE), mean=(0.3,), std=(0.4,))
    blueprint = Blueprint(
        Part("cnn", {"width": 4, "dropout": 0.2}),
        Part("cross_entropy", {}),
        2,
        grey,
        Registry.load(blocked=()),
    )
    return train(blueprint.build(seed=0), blueprint.loss(), SETTINGS, data, state=state, **options)


def weights(result: Trained) -> list[bytes]:
    network: Any = result.model.classifier
    return [value.numpy().tobytes() for value in network.state_dict().values()]


def test_the_chosen_number_is_recorded_and_the_former_one_restored(
    data: harness.TrainingData, choices: list[ThreadChoice]
) -> None:
    before = torch.get_num_threads()
    result = trained(data)
    assert len(choices) == 1
    assert result.threads == choices[0].chosen
    assert result.threads in (1, 2)
    assert torch.get_num_threads() == before


def test_measuring_changes_no_bit(
    data: harness.TrainingData, choices: list[ThreadChoice], monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = trained(data)
    assert measured.threads is not None
    fixed = ThreadChoice((measured.threads,))
    monkeypatch.setattr(ThreadChoice, "on", lambda *_, **__: fixed)
    assert weights(trained(data)) == weights(measured)


class Killed(Exception):
    pass


def test_a_resumed_training_keeps_its_number(
    data: harness.TrainingData,
    choices: list[ThreadChoice],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(loop, "SECONDS_BETWEEN_SAVES", 0.0)
    state = StateFile(tmp_path / "state")

    def kill(epoch: int, _model: harness.Model) -> None:
        if epoch == 1:
            raise Killed

    with pytest.raises(Killed):
        trained(data, state, on_epoch=kill)
    first = choices[-1].chosen
    resumed = trained(data, state)
    assert choices[-1].chosen is None, "it was measured again"
    assert first is not None
    assert resumed.threads == first
    monkeypatch.setattr(ThreadChoice, "on", lambda *_, **__: ThreadChoice((first,)))
    assert weights(resumed) == weights(trained(data))
