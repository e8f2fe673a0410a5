"""The sign of dse does not depend on its width or its number of modes, on Fashion-MNIST against MNIST."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.metrics import roc_auc_score

import harness
from harness.contract.registry import Registry
from harness.data.opening import open_dataset
from harness_plugins.scorers.dse import Dse

TRAIN, TEST = 2000, 500


@pytest.fixture(scope="module")
def principal_components():
    root = Path(os.environ.get("OOD_HARNESS_DATA") or "absent")
    if not (root / "fashion_mnist").is_dir():
        pytest.skip(
            f"no real data: {root}/fashion_mnist is missing. Set OOD_HARNESS_DATA to a folder that holds it"
        )
    registry = Registry.load()

    def pixels(name, split, count):
        chosen = open_dataset(name, f"hf:{name}", registry, split=split).limited(count)
        return np.stack(chosen.images(range(len(chosen)))).reshape(len(chosen), -1) / 255, chosen.labels

    train, labels = pixels("fashion_mnist", "train", TRAIN)
    components = PCA(100, random_state=0).fit(train)
    known, unknown = (pixels(name, "test", TEST)[0] for name in ("fashion_mnist", "mnist"))
    return [torch.as_tensor(components.transform(rows)) for rows in (train, known, unknown)], labels


@pytest.mark.parametrize("modes", [10, 50])
@pytest.mark.parametrize("width", [{"scale": 1.0}, {"scale": 0.5}, {"width": "neighbour"}])
def test_sign_is_stable(principal_components, width, modes):
    (train, known, unknown), labels = principal_components
    fitted = Dse(modes=modes, **width).fit(
        harness.FitData(
            train=harness.FeatureSet.of(harness.Features(penultimate=train, labels=torch.as_tensor(labels)))
        )
    )
    scores = [fitted.score(harness.Features(penultimate=rows)).numpy() for rows in (known, unknown)]
    assert roc_auc_score(np.repeat([0, 1], [len(known), len(unknown)]), np.concatenate(scores)) > 0.8
