"""Every installed plugin on an encoder and on a network whose last layer is a distance: right, or not applicable."""

from __future__ import annotations

import json
from typing import Any

import pytest
from journals import read_journal

from harness.contract.registry import Registry
from harness.engine.runner import RunOptions
from harness.evaluations.run import plan_suite, run_plan

NETWORKS = '''
import harness
import torch
from torch import nn


class Network(nn.Module):
    """A convolution with BatchNorm. An encoder refuses to be asked for logits."""

    def __init__(self, head):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU())
        self.head = head
        self.feature_info = [{"module": "body", "num_chs": 12}]

    def forward_features(self, images):
        return self.body(images)

    def forward_head(self, features, pre_logits=False):
        pooled = features.mean(dim=(2, 3))
        if pre_logits:
            return pooled
        if self.head is None:
            raise RuntimeError("an encoder was asked for logits")
        return self.head(pooled)

    def forward(self, images):
        return self.forward_head(self.forward_features(images))

    def get_classifier(self):
        return self.head or nn.Identity()


class Distances(nn.Module):
    """Logits are minus the distances to ten prototypes."""

    def __init__(self):
        super().__init__()
        self.prototypes = nn.Parameter(torch.randn(10, 12))

    def forward(self, penultimate):
        return -torch.cdist(penultimate, self.prototypes)


def build(request, head):
    with torch.random.fork_rng():
        torch.manual_seed(request.seed)
        network = Network(Distances() if head == "distance" else None)
    preprocessing = harness.Preprocessing(input_size=(1, 8, 8))
    return harness.Model(network.eval(), preprocessing, 10 if head == "distance" else 0)


@harness.hookimpl
def harness_models():
    yield harness.ModelSpec("small", build)
'''

PUBLISHED = "flips_published"  # estimators that were fitted on models of 1,000 classes


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Every scorer, probe, adapter and estimator on both networks: the records, and what was not applicable."""
    folder = tmp_path_factory.mktemp("needs")
    (folder / "networks.py").write_text(NETWORKS)
    registry = Registry.load([folder / "networks.py"])
    parts = {name: {"split": name, "limit": 300} for name in ("train", "validation")}
    suite = {
        "schema": 1,
        "name": "needs",
        "scorers": registry.names("scorer"),
        "probes": registry.names("probe"),
        "adapters": registry.names("adapter"),
        "estimators": [
            {"name": n, **({"steps": 4, "epsilon": 2.0, "margin": 1.0} if n == "flips" else {})}
            for n in registry.names("estimator")
        ],
        "adaptation": {"seeds": [0], "size": 80},
        "estimation": {"corrupt": ["contrast"], "severity": [2]},
        "id": {"dataset": "digits", **parts, "test": {"split": "test"}},
        "models": [
            {"name": "small", "label": label, "params": {"head": label}, "seeds": [0, 1]}
            for label in ("encoder", "distance")
        ],
        "ood": [{"name": "noise", "dataset": "uniform", "group": "far"}],
        "shift": [{"corrupt": ["contrast"], "severity": [1]}],
    }
    plan = plan_suite(suite, registry, source="needs.toml")
    run_plan(plan, RunOptions(out=folder / "out", cache=folder / "cache", device="cpu"))
    manifest = json.loads((folder / "out/run.json").read_text())
    return read_journal(folder / "out"), manifest["not_applicable"]


def of(records: list[dict[str, Any]], model: str, key: str) -> dict[str, set[str | None]]:
    """The errors of a model's records, by the plugin that a key names."""
    found: dict[str, set[str | None]] = {}
    for record in records:
        if record["model"].startswith(model) and record.get(key):
            found.setdefault(str(record[key]), set()).add(record["error"])
    return found


def test_nothing_that_reads_logits_gives_a_number_for_an_encoder(measured: Any) -> None:
    records, missing = measured
    asked = [r for r in records if "an encoder was asked for logits" in (r["error"] or "")]
    assert asked == []
    of_features = {"knn", "mahalanobis", "mahalanobis_pp", "vmf_kde", "dse", "dse_change"}
    assert set(of(records, "encoder", "scorer")) == of_features
    assert not of(records, "encoder", "estimator")
    lacking = {e.get("scorer"): e["missing"] for e in missing if e["model"].startswith("encoder")}
    assert lacking["flips"] == ["classifier"]
    assert "logits" in lacking["msp"]


def test_on_a_distance_head_all_but_linear_methods_give_numbers(measured: Any) -> None:
    records, missing = measured
    scorers = of(records, "distance", "scorer")
    others = [r for r in records if not str(r.get("estimator")).startswith(PUBLISHED)]
    lacking = {e["scorer"] for e in missing if e["model"].startswith("distance") and e.get("scorer")}
    assert lacking == {"vim"}
    assert scorers
    assert {name: errors for name, errors in scorers.items() if errors != {None}} == {}
    for key in ("adapter", "estimator", "probe"):
        assert of(others, "distance", key), key
        assert {n: e for n, e in of(others, "distance", key).items() if e != {None}} == {}, key


def test_the_published_flips_give_a_number_or_say_that_nothing_was_updated(measured: Any) -> None:
    """Their ε is for 1,000 classes: with ten, few samples or none pass it."""
    of_model = of(measured[0], "distance", "estimator")
    published = {name: errors for name, errors in of_model.items() if name.startswith(PUBLISHED)}
    assert set(published) == {"flips_published", "flips_published_scaled"}
    for error in set().union(*published.values()):
        assert error is None or "steps updated a weight, so flips are not informative" in error
