"""What adapts a model does so on the number of CPU threads that was chosen for it, as training and extraction do."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from toys import TOY_PLUGIN, run_suite

from harness.base.threads import ThreadChoice
from harness.contract.preprocessing import Preprocessing
from harness.contract.specs import Model
from harness.models.batching import Pace

NOTING = """
import torch

import harness

THREADS = {}


def note(kind):
    THREADS.setdefault(kind, []).append(torch.get_num_threads())


class Adapter:
    def adapt(self, classifier, batches):
        for images in batches:
            note("adapter")
            yield harness.Adapted(harness.Features(logits=classifier(images)))


class Estimator:
    def estimate(self, target):
        note("estimator")
        return harness.Estimate(0.5, 0.5)


class Scorer:
    def score_stream(self, stream):
        note("scorer")
        return harness.StreamScores(torch.arange(float(len(stream))))


@harness.hookimpl
def harness_adapters():
    yield harness.AdapterSpec("noting", Adapter)


@harness.hookimpl
def harness_estimators():
    yield harness.EstimatorSpec("noting", Estimator)


@harness.hookimpl
def harness_scorers():
    yield harness.ScorerSpec("noting", Scorer, needs={"stream"})
"""


def test_adapters_estimators_and_stream_scorers_compute_on_the_chosen_threads(
    toy_suite: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def three(*_: Any, **__: Any) -> ThreadChoice:
        return ThreadChoice((3,))

    monkeypatch.setattr(ThreadChoice, "on", three)
    (tmp_path / "noting.py").write_text(NOTING)
    toy_suite |= {
        "scorers": ["noting"],
        "adapters": ["noting"],
        "estimators": ["noting"],
        "adaptation": {"seeds": [0]},
        "estimation": {"corrupt": ["contrast"], "severity": [1]},
        "shift": [{"name": "dim", "dataset": "levels", "params": {"seed": 9}}],
    }
    before = torch.get_num_threads()
    plugins = (TOY_PLUGIN, tmp_path / "noting.py")
    assert run_suite(toy_suite, tmp_path / "out", plugins=plugins).succeeded
    (module,) = [m for m in sys.modules.values() if getattr(m, "__file__", "") == str(plugins[1])]
    assert module.THREADS.keys() == {"adapter", "estimator", "scorer"}
    assert {count for counts in module.THREADS.values() for count in counts} == {3}
    assert torch.get_num_threads() == before


def test_threads_are_measured_if_nothing_was_extracted(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[tuple[int, ...]] = []

    class Sizing(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            sizes.append(tuple(images.shape))
            return images.mean(dim=(1, 2, 3))[:, None]

    def two(*_: Any, **__: Any) -> ThreadChoice:
        return ThreadChoice((1, 2))

    monkeypatch.setattr(ThreadChoice, "on", two)
    classifier: Any = Sizing()
    pace = Pace(Model(classifier, Preprocessing(input_size=(1, 5, 5)), 1), "cpu")
    with pace.on_chosen_threads(20):
        assert torch.get_num_threads() == pace.threads(20).chosen
    trials = len(sizes)
    assert trials >= 4
    assert set(sizes) == {(20, 1, 5, 5)}
    with pace.on_chosen_threads(20):
        assert len(sizes) == trials
