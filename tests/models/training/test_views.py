"""Objectives on augmented views: what the loop gives them, and the encoders that come of it."""

from __future__ import annotations

import copy
import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional

import harness
from harness.base.cache import Cache
from harness.base.seeding import derived_seed, library_seeds_restored
from harness.contract.registry import Registry
from harness.data.streams import Stream
from harness.models.extract import extract
from harness.models.loaded import LoadedModel
from harness.models.training import loop
from harness.models.training.augmentation import Augmentation
from harness.models.training.loop import DivergedError, Trained, train
from harness.models.training.recipe import Recipe
from harness.models.training.samples import Samples
from harness.models.training.state import StateFile
from harness.models.training.store import kept_model
from harness.models.training.training import Training

SETTINGS = {
    "schema": 1,
    "name": "views",
    "model": "cnn",
    "model_params": {"width": 4, "dropout": 0.2},
    "objective": "byol",
    "objective_params": {"ema": 0.9, "hidden": 8, "dim": 4},
    "lr": 0.01,
    "weight_decay": 0.01,
    "schedule": "cosine",
    "epochs": 3,
    "batch_size": 16,
    "preprocessing": {"input_size": [1, 8, 8], "mean": [0.3], "std": [0.4]},
    "augmentation": {"scale": [0.5, 1.0], "hflip": 0.5, "re_prob": 0.2},
}


def training(data: harness.TrainingData, catalogue: Registry, *, seed: int = 0, **changes: Any) -> Training:
    return Training(Recipe.model_validate({**SETTINGS, **changes}), data, seed, catalogue)


def bits(model: harness.Model) -> dict[str, bytes]:
    network: Any = model.classifier
    return {name: value.numpy().tobytes() for name, value in network.state_dict().items()}


def watched(monkeypatch: pytest.MonkeyPatch) -> list[nn.Module]:
    """Collect the networks that are trained."""
    found: list[nn.Module] = []
    original = loop.trained_network

    def watching(*arguments: Any) -> nn.Module:
        found.append(original(*arguments))
        return found[-1]

    monkeypatch.setattr(loop, "trained_network", watching)
    return found


# What the loop does


def test_each_view_is_augmented_by_a_seed_of_its_own_and_the_first_as_ever(
    tiny: harness.TrainingData,
) -> None:
    recipe = Recipe.model_validate(SETTINGS)
    preprocessing = recipe.preprocessing.opened()  # type: ignore[union-attr]
    assert recipe.augmentation is not None
    augmentation = Augmentation(recipe.augmentation, preprocessing)
    samples = Samples.of(tiny.train, preprocessing, augmentation=augmentation, seed=7)
    with harness.seeded(0), library_seeds_restored():
        (batch,) = samples.batches([torch.tensor([4, 9, 1])], epoch=2, views=2)
        (single,) = samples.batches([torch.tensor([4, 9, 1])], epoch=2)
        expected = [
            augmentation.changed(
                tiny.train.images([position])[0], derived_seed(7, "augment", 2, position, *view)
            )
            for view in ((), (1,))
            for position in (4, 9, 1)
        ]
    assert torch.equal(batch, torch.stack(expected))
    assert torch.equal(batch[:3], single)
    assert not torch.equal(batch[:3], batch[3:])


def test_crops_of_originals_are_the_same_whether_they_are_held_or_decoded(
    tiny: harness.TrainingData, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = Recipe.model_validate(SETTINGS)
    assert recipe.augmentation is not None
    preprocessing = recipe.preprocessing.opened()  # type: ignore[union-attr]
    augmentation = Augmentation(recipe.augmentation, preprocessing)

    def read() -> tuple[bool, torch.Tensor]:
        samples = Samples.of(tiny.train, preprocessing, augmentation=augmentation)
        with harness.seeded(0), library_seeds_restored():
            return samples.held is not None, torch.cat(list(samples.batches([torch.arange(40)])))

    is_held, held = read()
    monkeypatch.setattr("harness.models.training.samples.HELD_BYTES", 1)
    is_still_held, decoded = read()
    assert (is_held, is_still_held) == (True, False)
    assert torch.equal(held, decoded)

    larger = replace(augmentation, preprocessing=harness.Preprocessing((1, 6, 6)))
    assert Samples.of(tiny.train, larger.preprocessing, augmentation=larger).held is None


def test_a_change_of_colour_that_changes_nothing_is_left_out(tiny: harness.TrainingData) -> None:
    """Pixels are those of timm's own list, which has a ColorJitter of nothing in it."""
    from timm.data import create_transform

    recipe = Recipe.model_validate({**SETTINGS, "augmentation": {"scale": [0.5, 1.0], "hflip": 0.5}})
    preprocessing = recipe.preprocessing.opened()  # type: ignore[union-attr]
    assert recipe.augmentation is not None
    ours = Augmentation(recipe.augmentation, preprocessing)
    theirs: Any = create_transform(
        (1, 8, 8),
        is_training=True,
        mean=(0.3,),
        scale=(0.5, 1.0),
        ratio=(1.0, 1.0),
        hflip=0.5,
        color_jitter=0.0,
        interpolation="bilinear",
        use_prefetcher=True,
    )
    image = tiny.train.images([0])[0]
    with harness.seeded(0), library_seeds_restored():
        for seed in range(5):
            found = ours.changed(image, seed)
            torch.manual_seed(seed)
            random.seed(seed)
            np.random.seed(seed)
            expected = np.asarray(theirs(Image.fromarray(image))).reshape(1, 8, 8)
            assert found.numpy().tolist() == expected.tolist()


class Comparing:
    """The squared difference of two views' outputs, with everything that it was given written down."""

    views = 2

    def __init__(self) -> None:
        self.seen: list[tuple[torch.Tensor, torch.Tensor]] = []
        self.num_features: list[int] = []

    def head(self, num_features: int, num_classes: int) -> nn.Module:
        return nn.Identity()

    def around(self, classifier: Any, num_features: int) -> nn.Module:
        self.num_features.append(num_features)
        return nn.Sequential(classifier, nn.Linear(num_features, 2))

    def loss(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        self.seen.append((outputs.detach().clone(), targets))
        first, second = outputs.chunk(2)
        return functional.mse_loss(first, second) + functional.mse_loss(first.std(), torch.tensor(1.0))


def test_the_loss_gets_all_views_of_the_batch_and_its_labels(
    tiny: harness.TrainingData, catalogue: Registry
) -> None:
    task, objective = training(tiny, catalogue), Comparing()
    trained = train(task.blueprint.build(seed=0), objective, task.recipe, tiny)
    assert objective.num_features == [16]
    assert [(len(outputs), len(targets)) for outputs, targets in objective.seen[:3]] == [
        (32, 16),
        (32, 16),
        (16, 8),
    ]
    labels = torch.cat([targets for _, targets in objective.seen[:3]])
    assert sorted(labels.tolist()) == sorted(tiny.train.labels.tolist())
    assert trained.validation_accuracy is None
    assert trained.model.num_classes == 0
    assert [entry["validation_accuracy"] for entry in trained.history] == [None] * 3


@pytest.mark.parametrize("objective", ["byol", "infonce", "dino", "deepcluster"])
def test_an_interrupted_training_ends_with_the_same_bits_the_teachers_included(
    tiny: harness.TrainingData,
    catalogue: Registry,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    objective: str,
) -> None:
    own = {
        "byol": {"ema": 0.9},
        "dino": {"ema": 0.9, "prototypes": 4},  # and a centre
        "deepcluster": {"prototypes": 3, "memory": 12},  # and a memory, which is full after two steps
    }
    params = {"hidden": 8, "dim": 4} | own.get(objective, {})
    task = training(tiny, catalogue, objective=objective, objective_params=params)
    networks = watched(monkeypatch)
    whole = task.run()
    monkeypatch.setattr(loop, "SECONDS_BETWEEN_SAVES", 0.0)
    state = StateFile(tmp_path / "folder" / "state")

    class Killed(Exception):
        pass

    for steps in (1, 2, 3, 2):  # taken by each life
        left = [steps]
        original = loop._Run._step

        def dying(
            run: Any, *arguments: Any, _left: list[int] = left, _original: Any = original, **rest: Any
        ) -> None:
            if not _left[0]:
                raise Killed
            _left[0] -= 1
            _original(run, *arguments, **rest)

        with monkeypatch.context() as patched:
            patched.setattr(loop._Run, "_step", dying)
            with pytest.raises(Killed):
                task.run(state=state)
    resumed = task.run(state=state)
    assert bits(resumed.model) == bits(whole.model)
    first, last = networks[0].state_dict(), networks[-1].state_dict()
    has_teacher = (
        "ema" in params or objective == "deepcluster"
    )  # whose teacher is the student at the last clustering
    assert any("teacher" in name for name in first) == has_teacher
    assert all(torch.equal(value, last[name]) for name, value in first.items())
    assert resumed.history == whole.history


def test_the_teacher_follows_the_student_after_every_step_and_does_not_decay(
    tiny: harness.TrainingData, catalogue: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    networks = watched(monkeypatch)
    expected: list[torch.Tensor] = []

    def follow(self: Any) -> None:
        students = [parameter.detach().clone() for parameter in networks[-1].student.parameters()]  # type: ignore[union-attr, operator]
        for own, new in zip(expected, students, strict=True):
            own.mul_(0.9).add_(0.1 * new)
        original(self)

    from harness_plugins.objectives.views import TwoViews

    original = TwoViews.after_step
    monkeypatch.setattr(TwoViews, "after_step", follow)

    def remember(epoch: int, model: harness.Model) -> None:
        if epoch == 0:
            network: Any = networks[-1]
            expected.extend(parameter.clone() for parameter in network.teacher.parameters())

    for frozen in (None, 1.0):
        expected.clear()
        params = {"ema": frozen or 0.9, "hidden": 8, "dim": 4}
        if frozen:
            monkeypatch.setattr(TwoViews, "after_step", original)
        training(tiny, catalogue, weight_decay=0.5, optimizer="adamw", objective_params=params).run(
            on_epoch=remember
        )
        network: Any = networks[-1]
        for own, wanted in zip(network.teacher.parameters(), expected, strict=True):
            torch.testing.assert_close(own, wanted, rtol=1e-5, atol=1e-6)


def test_on_epoch_sees_every_epoch_in_eval_mode_and_leaves_the_bits_alone(
    tiny: harness.TrainingData, catalogue: Registry
) -> None:
    task = training(tiny, catalogue)
    seen: list[int] = []

    def measure(epoch: int, model: harness.Model) -> None:
        network: Any = model.classifier
        assert not network.training
        torch.rand(3), np.random.rand(3), random.random()
        network(torch.rand(5, 1, 8, 8))
        seen.append(epoch)

    assert bits(task.run(on_epoch=measure).model) == bits(task.run().model)
    assert seen == [0, 1, 2, 3]
    classes = training(tiny, catalogue, objective="cross_entropy", objective_params={})
    assert bits(classes.run(on_epoch=measure).model) == bits(classes.run().model)


def test_on_epoch_is_not_called_again_for_what_a_resumed_training_has_behind_it(
    tiny: harness.TrainingData, catalogue: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "SECONDS_BETWEEN_SAVES", 0.0)
    task, state, seen = training(tiny, catalogue), StateFile(tmp_path / "folder" / "state"), []

    def stop_after_the_second(epoch: int, model: harness.Model) -> None:
        seen.append(epoch)
        if len(seen) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        task.run(state=state, on_epoch=stop_after_the_second)
    task.run(state=state, on_epoch=stop_after_the_second)
    assert seen == [0, 1, 2, 2, 3], "the epoch in whose report it was killed is reported again"


def test_a_divergence_keeps_the_encoder_alone(
    tiny: harness.TrainingData, catalogue: Registry, tmp_path: Path
) -> None:
    class Exploding(Comparing):
        def loss(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
            return super().loss(outputs, targets) * (1.0 if len(self.seen) <= 4 else float("nan"))

    task = training(tiny, catalogue)
    model = task.blueprint.build(seed=0)
    with pytest.raises(DivergedError) as caught:
        train(model, Exploding(), task.recipe, tiny)
    assert caught.value.weights is not None
    network: Any = model.classifier
    assert caught.value.weights.keys() == network.state_dict().keys()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"augmentation": None},
            "'byol', which compares augmented views of an image, but no [augmentation]. Add one",
        ),
        (
            {"select": "best"},
            "the objective 'byol' trains an encoder, which has no accuracy. Write select = \"last\"",
        ),
    ],
)
def test_what_views_cannot_be_trained_with_is_one_line(
    tiny: harness.TrainingData, catalogue: Registry, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(harness.InputError) as caught:
        training(tiny, catalogue, **changes).run()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_outliers_cannot_be_compared_by_views(tiny: harness.TrainingData, catalogue: Registry) -> None:
    task = training(tiny, catalogue)
    with pytest.raises(
        harness.InputError, match=r"has \[auxiliary\] data, but the objective 'byol' compares"
    ):
        train(task.blueprint.build(seed=0), Comparing(), task.recipe, tiny, auxiliary=tiny.train)


# The encoders


@pytest.fixture
def encoder(tiny: harness.TrainingData, catalogue: Registry, tmp_path: Path) -> tuple[Path, harness.Model]:
    task = training(tiny, catalogue, epochs=1)
    return tmp_path / "encoder", kept_model(task, tmp_path / "encoder")


def test_an_encoder_is_saved_without_what_was_around_it_and_comes_back(
    encoder: tuple[Path, harness.Model], tiny: harness.TrainingData, catalogue: Registry
) -> None:
    folder, model = encoder
    config = json.loads((folder / "config.json").read_text())
    assert (config["num_classes"], config["num_features"], config["validation_accuracy"]) == (0, 16, None)
    again = harness.load_checkpoint(folder, catalogue=catalogue)
    assert again.num_classes == model.num_classes == 0
    assert bits(again) == bits(model) == bits(training(tiny, catalogue, epochs=1).run().model)
    assert not any(part in name for name in bits(model) for part in ("teacher", "projector", "fc"))


def test_an_encoder_offers_no_logits_and_extraction_gives_its_penultimate_features_alone(
    encoder: tuple[Path, harness.Model], tiny: harness.TrainingData, tmp_path: Path
) -> None:
    assert tiny.validation is not None
    model = LoadedModel(encoder[1], "cpu")
    assert model.offers == {
        "penultimate", "images", "inputs", "gradients", "stream", "layers", "normalisation", "batchnorm",
    }  # fmt: skip
    stream, cache = Stream.of(tiny.validation, batch_size=4), Cache(tmp_path / "features")
    features = extract(model, stream, cache).features
    (chunk,) = features.chunks()
    network: Any = model.module
    with torch.inference_mode():
        images = model.model.preprocessing.normalise(
            model.model.preprocessing.batch(stream.images(np.arange(8)))
        )
        expected = network.stages(images).mean(dim=(2, 3))
    torch.testing.assert_close(chunk.penultimate, expected)
    with pytest.raises(harness.HarnessError, match="logits"):
        _ = chunk.logits

    as_classifier = LoadedModel(replace(encoder[1], num_classes=2), "cpu")
    assert as_classifier.digest == model.digest
    assert as_classifier.features_key(stream, layers=False) != model.features_key(stream, layers=False)


def test_timms_models_without_classes_are_encoders(catalogue: Registry, tiny: harness.TrainingData) -> None:
    import timm

    with harness.seeded(0):
        network = timm.create_model("test_resnet", num_classes=0, in_chans=1)
    model = harness.Model(network, harness.Preprocessing((1, 32, 32)), 0)  # type: ignore[arg-type]
    assert model.num_classes == 0
    assert "logits" not in LoadedModel(model, "cpu").offers


def test_any_timm_network_can_be_the_encoder(tiny: harness.TrainingData, catalogue: Registry) -> None:
    changes = {
        "model": "timm:test_resnet",
        "model_params": {},
        "epochs": 1,
        "preprocessing": {"input_size": [1, 32, 32]},
    }
    trained: Trained = training(tiny, catalogue, **changes).run()
    network: Any = trained.model.classifier
    assert isinstance(network.get_classifier(), nn.Identity)
    assert network(torch.rand(2, 1, 32, 32)).shape == (2, network.num_features)


def test_around_gets_random_numbers_that_are_not_the_encoders(
    tiny: harness.TrainingData, catalogue: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    networks = watched(monkeypatch)
    for seed in (0, 0, 1):
        training(tiny, catalogue, epochs=1, lr=1e-12, weight_decay=0.0, seed=seed).run()
    weights = [copy.deepcopy(network.student.projector[0].weight) for network in networks]  # type: ignore[union-attr, index]
    assert torch.equal(weights[0], weights[1])
    assert not torch.allclose(weights[0], weights[2])
