"""A zoo of scorers, each of which does one thing to its surroundings that no scorer may do. A plugin for the tests."""

from __future__ import annotations

import io
import logging
import os
import random
import signal
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from toy_plugin import Levels, Network, is_probe

import harness


class Unreadable(Exception):
    """An error whose message cannot be made."""

    def __str__(self) -> str:
        raise RuntimeError


def exits() -> None:
    sys.exit(0)


def raises_unreadable() -> None:
    raise Unreadable


def raises_surrogate() -> None:
    raise ValueError("half a letter: \ud800")


def raises_after_a_change() -> None:
    torch.set_default_dtype(torch.float64)
    torch.set_grad_enabled(False)
    os.chdir("/")
    raise ValueError("after a change")


def raises_address() -> None:
    raise ValueError(f"in {object()!r}")


def recurses() -> None:
    recurses()


def moves_away() -> None:
    os.chdir("/")


def loses_its_folder() -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)


def reseeds() -> None:
    torch.manual_seed(1)
    np.random.seed(1)
    random.seed(1)


def widens() -> None:
    torch.set_default_dtype(torch.float64)


def forgets_gradients() -> None:
    torch.set_grad_enabled(False)


def takes_threads() -> None:
    torch.set_num_threads(torch.get_num_threads() + 1)


def changes_the_device() -> None:
    torch.set_default_device("meta")


def changes_the_precision() -> None:
    torch.set_float32_matmul_precision("medium")


def contradicts_the_precision() -> None:
    torch.backends.mkldnn.matmul.fp32_precision = "bf16"


def asks_for_half() -> None:
    torch.set_autocast_enabled("cpu", True)


def demands_determinism() -> None:
    torch.use_deterministic_algorithms(not torch.are_deterministic_algorithms_enabled())


def traps_overflow() -> None:
    np.seterr(all="raise")


def makes_warnings_errors() -> None:
    warnings.simplefilter("error" if warnings.filters[0][0] == "ignore" else "ignore")


def empties_the_environment() -> None:
    os.environ.clear()


def takes_all_rights() -> None:
    os.umask(0o777)


def shortens_the_stack() -> None:
    sys.setrecursionlimit(700)


def ignores_signals() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def silences_logs() -> None:
    logging.disable(logging.CRITICAL)


def silences_our_logger() -> None:
    logging.getLogger("ood_harness").setLevel(logging.CRITICAL)
    logging.getLogger("ood_harness").disabled = True
    logging.getLogger().handlers.clear()


def takes_the_terminal() -> None:
    sys.stdout = sys.stderr = io.StringIO()


TO_THE_PROCESS: dict[str, Callable[[], None]] = {
    act.__name__: act
    for act in (
        exits,
        raises_unreadable,
        raises_surrogate,
        raises_address,
        raises_after_a_change,
        recurses,
        moves_away,
        loses_its_folder,
        reseeds,
        widens,
        forgets_gradients,
        takes_threads,
        changes_the_device,
        changes_the_precision,
        contradicts_the_precision,
        asks_for_half,
        demands_determinism,
        traps_overflow,
        makes_warnings_errors,
        empties_the_environment,
        takes_all_rights,
        shortens_the_stack,
        ignores_signals,
        silences_logs,
        silences_our_logger,
        takes_the_terminal,
    )
}


def zeroes(features: Tensor) -> None:
    features.zero_()


def clips_in_numpy(features: Tensor) -> None:
    np.clip(features.numpy(), 0, 0.1, out=features.numpy())


def writes_to_data(features: Tensor) -> None:
    features.data.fill_(3)


def overwrites_storage(features: Tensor) -> None:
    features.untyped_storage().fill_(0)


TO_FEATURES: dict[str, Callable[[Tensor], None]] = {
    act.__name__: act for act in (zeroes, clips_in_numpy, writes_to_data, overwrites_storage)
}


def zeroes_the_head(model: Any) -> None:
    with torch.no_grad():
        model.fc.weight.zero_()


def zeroes_data(model: Any) -> None:
    model.fc.weight.data.zero_()


def zeroes_in_numpy(model: Any) -> None:
    model.fc.weight.detach().numpy()[:] = 0


def leaves_a_hook(model: Any) -> None:
    model.fc.register_forward_hook(lambda _module, _inputs, output: 0 * output)


def leaves_it_training(model: Any) -> None:
    model.train()


def replaces_a_method(model: Any) -> None:
    model.forward_head = lambda maps, **_: torch.zeros(len(maps), 3)


def replaces_the_head(model: Any) -> None:
    model.fc = torch.nn.Linear(2, 3)


def freezes(model: Any) -> None:
    model.requires_grad_(False)


def loses_a_weight(model: Any) -> None:
    model.fc.bias = None


TO_THE_MODEL: dict[str, Callable[[Any], None]] = {
    act.__name__: act
    for act in (
        zeroes_the_head,
        zeroes_data,
        zeroes_in_numpy,
        leaves_a_hook,
        leaves_it_training,
        replaces_a_method,
        replaces_the_head,
        freezes,
        loses_a_weight,
    )
}


class Whenever:
    """Acts on the process when it is built, fitted or asked for scores."""

    def __init__(self, act: Callable[[], None], when: str) -> None:
        self._act, self._when = act, when
        self._at("build")

    def _at(self, when: str) -> None:
        if when == self._when:
            self._act()

    def fit(self, data: harness.FitData) -> Whenever:
        self._at("fit")
        return self

    def score(self, features: harness.Features) -> Tensor:
        self._at("score")
        return features.logits[:, 0]


class Otherwise:
    """Acts on the process as a stream scorer, a probe, an estimator, or an adapter at each batch."""

    def __init__(self, act: Callable[[], None]) -> None:
        self._act = act

    def score_stream(self, stream: harness.Unlabelled) -> harness.StreamScores:
        self._act()
        return harness.StreamScores(torch.zeros(len(stream)))

    def measure(self, features: harness.FeatureSet) -> harness.Measurement:
        self._act()
        return harness.Measurement(1.0)

    def estimate(self, target: harness.Unlabelled) -> harness.Estimate:
        self._act()
        return harness.Estimate(0.5, 0.5)

    def prepare(self, classifier: Any, batches: Iterable[Tensor]) -> Otherwise:
        self._act()
        return self

    def adapt(self, classifier: Any, batches: Iterable[Tensor]) -> Iterator[harness.Adapted]:
        for images in batches:
            self._act()
            logits = classifier(images)
            yield harness.Adapted(harness.Features(logits=logits, penultimate=logits))


class Stranger(Levels):
    """Images with a digest of their own: the features of another animal's equal images are not theirs."""

    def __init__(self, act: Callable[[], None]) -> None:
        super().__init__(40, 3, 4, 20, 8)
        self._act = act
        self.digest += act.__name__


class Acting(Stranger):
    """Images that act when they are decoded."""

    def __getitem__(self, index: int) -> np.ndarray:
        self._act()
        return super().__getitem__(index)


class Telling(Stranger):
    """Images that act when they are asked for their identity, by which sets are compared."""

    def identity(self, index: int) -> bytes:
        self._act()
        return super().identity(index)


class Forwarding(Network):
    """A network that acts whenever it is forwarded, but for the first times, when it is examined."""

    def __init__(self, act: Callable[[], None]) -> None:
        super().__init__(3, 0)
        self._act = act

    def forward_features(self, images: Tensor) -> Tensor:
        if not is_probe(images):
            self._act()
        return super().forward_features(images)


def opened(act: Callable[[], None]) -> Stranger:
    act()
    return Stranger(act)


def model(network: Any, name: str) -> harness.Model:
    preprocessing = harness.Preprocessing(input_size=(1, 8, 8), std=(1.0,))
    return harness.Model(network.eval(), preprocessing, 3, source=name)


def loaded(act: Callable[[], None]) -> harness.Model:
    act()
    return model(Network(3, 0), act.__name__)


class Scribbler:
    """Writes into the features that it is fitted on and scores."""

    def __init__(self, act: Callable[[Tensor], None]) -> None:
        self._act = act

    def fit(self, data: harness.FitData) -> Scribbler:
        for chunk in data.train:
            self._act(chunk.penultimate)
        return self

    def score(self, features: harness.Features) -> Tensor:
        self._act(features.penultimate)
        self._act(features.logits)
        return torch.arange(len(features)).double()


class Meddler:
    """Changes the model that it is given with the images, and writes into the images."""

    def __init__(self, act: Callable[[Any], None]) -> None:
        self._act = act

    def score_images(self, images: Tensor, classifier: Any) -> Tensor:
        images.zero_()
        self._act(classifier)
        return torch.zeros(len(images))


class Wrecker:
    """Changes the head that it is fitted with."""

    def fit(self, data: harness.FitData) -> Wrecker:
        data.linear.weight.data.zero_()
        data.linear.bias.numpy()[:] = 7
        return self

    def score(self, features: harness.Features) -> Tensor:
        return features.logits[:, 0]


class Reuser:
    """Returns the same tensor for every chunk."""

    def __init__(self) -> None:
        self._scores = torch.zeros(0, dtype=torch.float64)

    def score(self, features: harness.Features) -> Tensor:
        if len(self._scores) != len(features):
            self._scores = torch.zeros(len(features), dtype=torch.float64)
        self._scores[:] = features.logits[:, 1]  # rises with the level
        return self._scores


class Drawer:
    """Draws its scores from the global generators."""

    def score(self, features: harness.Features) -> Tensor:
        return torch.rand(len(features)) + np.random.rand() + random.random()


WHEN = ("build", "fit", "score")


@harness.hookimpl
def harness_datasets() -> Iterator[harness.DatasetSpec]:
    for name, act in TO_THE_PROCESS.items():
        yield harness.DatasetSpec(f"{name}_when_opened", lambda request, act=act: opened(act))
        yield harness.DatasetSpec(f"{name}_when_decoded", lambda request, act=act: Acting(act))
        yield harness.DatasetSpec(f"{name}_when_compared", lambda request, act=act: Telling(act))


@harness.hookimpl
def harness_models() -> Iterator[harness.ModelSpec]:
    for name, act in TO_THE_PROCESS.items():
        yield harness.ModelSpec(f"{name}_when_loaded", lambda request, act=act: loaded(act))
        yield harness.ModelSpec(
            f"{name}_when_forwarded", lambda request, act=act: model(Forwarding(act), act.__name__)
        )


@harness.hookimpl
def harness_probes() -> Iterator[harness.ProbeSpec]:
    for name, act in TO_THE_PROCESS.items():
        yield harness.ProbeSpec(name, lambda act=act: Otherwise(act))


@harness.hookimpl
def harness_estimators() -> Iterator[harness.EstimatorSpec]:
    for name, act in TO_THE_PROCESS.items():
        yield harness.EstimatorSpec(name, lambda act=act: Otherwise(act))


@harness.hookimpl
def harness_adapters() -> Iterator[harness.AdapterSpec]:
    for name, act in TO_THE_PROCESS.items():
        yield harness.AdapterSpec(name, lambda act=act: Otherwise(act))
        yield harness.AdapterSpec(f"{name}_in_prepare", lambda act=act: Otherwise(act), needs={"train"})


@harness.hookimpl
def harness_scorers() -> Iterator[harness.ScorerSpec]:
    for name, act in TO_THE_PROCESS.items():
        for when in WHEN:
            yield harness.ScorerSpec(f"{name}_in_{when}", lambda act=act, when=when: Whenever(act, when))
        yield harness.ScorerSpec(f"{name}_on_streams", lambda act=act: Otherwise(act), needs={"stream"})
    for name, act in TO_FEATURES.items():
        needs = {"logits", "penultimate", "train"}
        yield harness.ScorerSpec(name, lambda act=act: Scribbler(act), needs=needs)
    for name, act in TO_THE_MODEL.items():
        yield harness.ScorerSpec(name, lambda act=act: Meddler(act), needs={"images"})
    yield harness.ScorerSpec("wrecks_the_head", Wrecker, needs={"logits", "linear"})
    yield harness.ScorerSpec("reuses_its_tensor", Reuser)
    yield harness.ScorerSpec("draws", Drawer)
