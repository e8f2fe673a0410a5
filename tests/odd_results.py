"""Plugins that return odd facts, names and costs, for the tests of what a record may hold."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from toy_plugin import Levels, Network

import harness

NAN = float("nan")
FACTS: dict[str, Any] = {
    "nan": {"x": NAN},
    "infinite": {"x": float("inf")},
    "set": {"x": {1}},
    "tensor": {"x": torch.ones(3)},
    "numpys_nan": {"x": np.float32(NAN)},
    "numbered": {1: 2.0},
    "nested": {"x": {"y": [1]}},
    "list": [1],
    "none": None,
    "text": {"x": "much"},
    "surrogate": {"x": "\ud800"},
}
FINE: dict[str, Any] = {
    "of_numpy": {"x": np.float32(0.5), "y": np.int64(3)},
    "of_torch": {"x": torch.tensor(0.5)},
    "odd_name": {"=1+1|\n\\input{x}": 1.0},
}
JSON = ("nested", "text", "surrogate", "numbered", "odd_name")  # which those of datasets and models may hold
ESTIMATES: dict[str, dict[str, Any]] = {
    "score_is_text": {"score": "high"},
    "score_is_none": {"score": None},
    "accuracy_is_a_list": {"accuracy": [0.5]},
    "interval_is_nan": {"lo": NAN},
    "definition_is_a_number": {"definition": 3},
}
STREAMS: dict[str, dict[str, Any]] = {
    "forwards_are_nan": {"forwards": NAN},
    "forwards_are_text": {"forwards": "many"},
    "backwards_are_negative": {"backwards": -1},
    "variants_are_numbered": {"variants": {1: torch.zeros(80)}},
    "variants_are_a_list": {"variants": [torch.zeros(80)]},
}


@dataclass(frozen=True)
class Odd:
    """Returns results with the given parts, as whatever plugin it is asked to be."""

    parts: dict[str, Any]

    def score_stream(self, stream: harness.Unlabelled) -> harness.StreamScores:
        return harness.StreamScores(torch.arange(len(stream)).double(), **self.parts)

    def estimate(self, target: harness.Unlabelled) -> harness.Estimate:
        return harness.Estimate(**{"score": 0.5, "accuracy": 0.5, **self.parts})

    def measure(self, features: harness.FeatureSet) -> harness.Measurement:
        return harness.Measurement(**{"value": 1.0, **self.parts})

    def adapt(self, classifier: Any, batches: Iterable[Tensor]) -> Iterator[harness.Adapted]:
        for images in batches:
            yield harness.Adapted(harness.Features(logits=classifier(images)), **self.parts)


class Told(Levels):
    """Images with facts."""

    def __init__(self, facts: Any) -> None:
        super().__init__(40, 3, 4, 20, 8)
        self.facts = facts


def model(facts: Any) -> harness.Model:
    network = Network(3, 0.0).eval()
    return harness.Model(network, harness.Preprocessing(input_size=(1, 8, 8), std=(1.0,)), 3, facts=facts)


@harness.hookimpl
def harness_scorers() -> Iterator[harness.ScorerSpec]:
    for name, parts in {**_facts(), **STREAMS}.items():
        yield harness.ScorerSpec(name, lambda parts=parts: Odd(parts), needs={"stream"})


@harness.hookimpl
def harness_estimators() -> Iterator[harness.EstimatorSpec]:
    for name, parts in {**_facts(), **ESTIMATES}.items():
        yield harness.EstimatorSpec(name, lambda parts=parts: Odd(parts))


@harness.hookimpl
def harness_probes() -> Iterator[harness.ProbeSpec]:
    for name, value in {"text": "much", "none": None, "list": [1], "complex": 1j}.items():
        yield harness.ProbeSpec(f"value_is_{name}", lambda value=value: Odd({"value": value}))
        if value is not None:
            yield harness.ProbeSpec(f"error_is_{name}", lambda value=value: Odd({"standard_error": value}))


@harness.hookimpl
def harness_adapters() -> Iterator[harness.AdapterSpec]:
    for name, value in {"nan": NAN, "text": "many", "none": None, "negative": -1}.items():
        yield harness.AdapterSpec(f"forwards_are_{name}", lambda value=value: Odd({"forwards": value}))


@harness.hookimpl
def harness_datasets() -> Iterator[harness.DatasetSpec]:
    for name, facts in {**FACTS, **FINE}.items():
        yield harness.DatasetSpec(name, lambda request, facts=facts: Told(facts))


@harness.hookimpl
def harness_models() -> Iterator[harness.ModelSpec]:
    for name, facts in {**FACTS, **FINE}.items():
        yield harness.ModelSpec(name, lambda request, facts=facts: model(facts))


def _facts() -> dict[str, dict[str, Any]]:
    return {f"facts_are_{name}": {"facts": facts} for name, facts in {**FACTS, **FINE}.items()}
