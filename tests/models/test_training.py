from __future__ import annotations

import random
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

import harness
from harness_plugins.models.networks import Network, build_network
from harness_plugins.models.training import Settings, Trained, train

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness import Selection

SETTINGS = Settings(optimizer="adam", lr=0.003, epochs=2, batch_size=16, weight_decay=1e-4, schedule="cosine")
GREY = harness.Preprocessing((1, 8, 8), mean=(0.3,), std=(0.4,))


def trained(data: harness.TrainingData, settings: Settings = SETTINGS, **options: Any) -> Trained:
    build = partial(build_network, "cnn", GREY.input_size, 2, {"width": 4, "dropout": 0.2})
    return train(build, data, GREY, settings, **options)


def weights(network: Network) -> list[bytes]:
    return [value.numpy().tobytes() for value in network.state_dict().values()]


def test_the_same_seed_gives_the_same_bits_and_another_seed_others(tiny: harness.TrainingData) -> None:
    first, again, other = (weights(trained(tiny, seed=seed).network) for seed in (3, 3, 4))
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
    settings = Settings(optimizer="sgd", lr=0.05, epochs=6, batch_size=8)
    result = trained(tiny, settings)
    assert not result.network.training
    assert result.validation_accuracy == 1.0
    assert trained(harness.TrainingData(tiny.train, None, 2)).validation_accuracy is None


def test_progress_goes_to_stderr_only_where_it_is_wanted(
    tiny: harness.TrainingData, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.progress._SECONDS_BETWEEN_LOG_LINES", 0.0)
    trained(tiny, name="quiet")
    assert capsys.readouterr() == ("", "")
    trained(tiny, name="loud", progress=True)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "train loud" in shown.err
    assert "loss=" in shown.err
    assert "val_accuracy=" in shown.err


def test_a_loss_that_is_not_finite_names_the_step_and_the_fix(tiny: harness.TrainingData) -> None:
    settings = Settings(optimizer="sgd", lr=1e30, epochs=4, batch_size=16)
    with pytest.raises(
        harness.InputError, match=r"'wild': the loss became (nan|inf) at step \d+ \(epoch \d of 4\)"
    ):
        trained(tiny, settings, name="wild")


@pytest.mark.parametrize("labels", [[0, 1, 2, 1], [0, -1, 1, 1]])
def test_labels_out_of_range_are_refused(selection_of: Callable[..., Selection], labels: list[int]) -> None:
    selection = selection_of(np.zeros((4, 8, 8), dtype=np.uint8), labels, "odd")
    with pytest.raises(harness.InputError, match=r"'odd' has labels from -?\d to \d.*needs labels 0 to 1"):
        trained(harness.TrainingData(selection, None, 2))


def test_an_empty_selection_is_refused(tiny: harness.TrainingData) -> None:
    empty: Selection = tiny.train.take(np.arange(0))
    with pytest.raises(harness.InputError, match="'tiny' is empty"):
        trained(harness.TrainingData(empty, None, 2))


def test_a_validation_split_does_not_change_the_weights(tiny: harness.TrainingData) -> None:
    without = trained(harness.TrainingData(tiny.train, None, 2), seed=5)
    assert weights(trained(tiny, seed=5).network) == weights(without.network)
