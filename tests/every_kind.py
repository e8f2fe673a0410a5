"""A toy suite of every kind of evaluation: scores, streams, probes, adapters, mixtures and estimators."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from toys import TOY_SUITE

EIGHT = {"side": 8}


def every_kind() -> dict[str, Any]:
    """Return a suite with something of every kind, that which fails and that which does not apply among it."""
    suite = copy.deepcopy(TOY_SUITE)
    suite["id"]["params"] = dict(EIGHT)
    for entry in suite["ood"]:
        entry["params"] |= EIGHT
    suite["models"] = [
        {"name": "network", "params": {"size": 8}, "seeds": [0, 1]},
        {"name": "network", "label": "distance", "params": {"size": 8, "head": "distance"}},
    ]
    suite["scorers"] = ["level", "margin", "from_train", "needs_linear", "gradient", "whole", "nan"]
    suite["probes"] = ["mean", "from_training", "labels", {"name": "unruly", "how": "raises"}]
    suite["curves"] = {
        "probes": ["mean", {"name": "unruly", "how": "nan"}],
        "every": 2,
        "on": ["id", "close"],
    }
    suite["shift"] = [{"corrupt": ["brightness", "fog"], "severity": [1, 3]}]
    suite["adapters"] = [
        {"name": "source", "protocol": ["mixed", "separate", "episodic", "continual", "correlated"]},
        {"name": "slide", "protocol": ["mixed", "continual"]},
        {"name": "brighten", "protocol": ["mixed", "episodic"]},
        {"name": "norm", "protocol": ["episodic", "mixed"]},
        {"name": "cautious", "protocol": "episodic"},
    ]
    suite["adaptation"] = {
        "seeds": [0, 1, 2],
        "batch_size": 8,
        "shares": [[0.5, 0, 0.5], [0, 0.9, 0.1]],
        "refit": 20,
        "shifts": ["fog-1"],
    }
    suite["estimators"] = ["confident", "halves", "peering"]
    suite["estimation"] = {"corrupt": ["contrast", "snow"], "severity": [2, 5]}
    return suite


def one_of_each_kind() -> dict[str, Any]:
    """Return a quick suite of every kind of evaluation."""
    suite = every_kind()
    return suite | {
        "models": suite["models"][:1],
        "scorers": ["level", "from_train", "whole"],
        "probes": ["mean"],
        "curves": {"probes": ["mean"], "on": ["close"]},
        "shift": [{"corrupt": ["fog"], "severity": [1]}],
        "adapters": [{"name": "slide", "protocol": ["mixed", "episodic"]}],
        "adaptation": {"seeds": [0], "batch_size": 8, "shares": [[0.5, 0, 0.5]]},
        "estimators": ["confident"],
        "estimation": {"corrupt": ["snow"], "severity": [2]},
    }


RECIPE = """schema = 1
name = "tiny"
model = "mlp"
model_params = { hidden = [16] }
optimizer = "adam"
lr = 0.03
epochs = 4
batch_size = 8
snapshots = 1

[preprocessing]
input_size = [1, 8, 8]
"""


def trained(folder: Path) -> dict[str, Any]:
    """Return a quick suite of every kind of evaluation, whose model is trained by a recipe that is written here."""
    (folder / "tiny.toml").write_text(RECIPE)
    return one_of_each_kind() | {
        "models": [{"recipe": str(folder / "tiny.toml")}],
        "scorers": ["margin", "from_train", "needs_linear", "whole", "nan"],
        "adapters": [{"name": "source", "protocol": ["mixed", "episodic"]}],
    }
