"""What the documents show of plugins works as it is shown."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

import harness

DOCS = Path(__file__).parents[1] / "docs"
IMPORTS = "from dataclasses import dataclass\n\nfrom torch import Tensor, nn\n\nimport harness\n\n\n"
RECIPE = """
schema = 1
name = "focused"
model = "mlp"
objective = "focal"
objective_params = { focus = 1.0 }
lr = 0.01
epochs = 1
batch_size = 64

[preprocessing]
input_size = [1, 8, 8]
"""


def test_the_objective_in_the_training_document_trains() -> None:
    (shown,) = re.findall(r"```python\n(.*?)```", (DOCS / "training.md").read_text(), flags=re.DOTALL)
    Path("focal.py").write_text(IMPORTS + shown)
    Path("focused.toml").write_text(RECIPE)
    (folder,) = harness.train("focused.toml", suite="digits", plugins=["focal.py"], out="out", device="cpu")
    registry = harness.Registry.load([Path("focal.py")], blocked=())
    model = harness.load_checkpoint(folder, catalogue=registry)
    assert model.facts["objective"] == {"name": "focal", "params": {"focus": 1.0}}
    assert model.facts["validation_accuracy"] > 0.5  # type: ignore[operator]

    focal = registry.get("objective", "focal").spec.build(focus=2.0)
    logits, targets = np.array([[1.0, 0.0, -1.0], [0.5, 2.0, 0.0]]), np.array([0, 2])
    p = (np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True))[np.arange(2), targets]
    expected = -((1 - p) ** 2 * np.log(p)).mean()
    assert focal.loss(torch.from_numpy(logits), torch.from_numpy(targets)).item() == pytest.approx(expected)


def test_every_key_of_a_recipe_is_explained() -> None:
    from harness.training.recipe import AugmentationTable, PreprocessingTable, Recipe

    text = (DOCS / "training.md").read_text()
    for table in (Recipe, AugmentationTable, PreprocessingTable):
        for key in set(table.keys()) - {"description"}:
            assert f"`{key}`" in text or f"`[{key}]`" in text, key
