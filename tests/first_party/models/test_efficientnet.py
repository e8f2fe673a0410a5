"""A real ImageNet-1k network on photographs of a few of its classes: what a plain timm loop says, in little memory."""

from __future__ import annotations

import importlib.util
import io
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import timm
import torch
from journals import read_journal
from PIL import Image
from safetensors.torch import load_file
from sklearn.datasets import load_sample_images
from sklearn.metrics import roc_auc_score
from timm.data import create_transform
from toys import as_toml

if TYPE_CHECKING:
    from numpy.typing import NDArray

NAME = "tf_efficientnet_lite0"
CLASSES = 1000
PHOTOGRAPHS = {"china.jpg": 698, "flower.jpg": 985}  # palace, daisy; of scikit-learn
MORE = {  # of scikit-image, if it is installed: tripod, tiger cat, espresso, missile
    "camera.png": 872,
    "chelsea.png": 282,
    "coffee.png": 967,
    "rocket.jpg": 657,
}
CROPS = 8  # of each photograph
RENDERED = 96  # in one batch they took 3 GB
MOST_BYTES = 2_000_000_000
RUN = """
import resource, sys
from harness import cli
sys.argv = ["ood-harness", *sys.argv[1:]]
try:
    cli.main()
finally:
    print("peak", 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.fixture(scope="module")
def folder() -> Path:
    """The checkpoint's folder, beside the real data."""
    beside = Path(__file__).resolve().parents[3].parent / "shared/data"
    found = Path(os.environ.get("OOD_HARNESS_DATA") or beside).parent / "models" / NAME
    if not found.is_dir():
        pytest.skip(f"no real model: {found} is missing. Set OOD_HARNESS_DATA to a folder beside models/")
    return found


def photographs() -> list[tuple[NDArray[np.uint8], int]]:
    """Cut crops out of photographs of known classes; the last image, a rendered roll of paper, has the last class."""
    loaded = load_sample_images()
    found = [
        (image, PHOTOGRAPHS[Path(name).name])
        for name, image in zip(loaded.filenames, loaded.images, strict=True)
    ]
    installed = importlib.util.find_spec("skimage")  # its data are read without it
    for place in installed.submodule_search_locations or () if installed else ():
        for name, label in MORE.items():
            with Image.open(Path(place, "data", name)) as image:
                found.append((np.asarray(image.convert("RGB")), label))
    rng = np.random.default_rng(0)
    crops = []
    for image, label in found:
        for _ in range(CROPS):
            side = int(rng.integers(200, min(image.shape[:2])))
            top, left = (int(rng.integers(0, length - side + 1)) for length in image.shape[:2])
            crops.append((image[top : top + side, left : left + side], label))
    roll = np.full((240, 300, 3), 40, dtype=np.uint8)
    roll[60:180, 80:220] = 235
    return [*crops, (roll, CLASSES - 1)]


def rendered() -> list[NDArray[np.uint8]]:
    """Render gratings of random colours and directions, which are of no class."""
    rng = np.random.default_rng(1)
    y, x = np.mgrid[0:64, 0:64]
    images = []
    for _ in range(RENDERED):
        wave = np.sin(x * rng.normal(0, 0.3) + y * rng.normal(0, 0.3))[..., None]
        images.append((127.5 + 127.5 * wave * rng.uniform(-1, 1, 3)).astype(np.uint8))
    return images


def write_parquet(folder: Path, images: list[NDArray[np.uint8]], labels: list[int] | None) -> None:
    """Write one split as the hub lays it out."""
    rows = []
    for image in images:
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "PNG")
        rows.append({"bytes": buffer.getvalue(), "path": None})
    columns = {"image": pa.array(rows, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))}
    features: dict[str, Any] = {"image": datasets.Image()}
    if labels is not None:
        columns["label"], features["label"] = pa.array(labels, pa.int64()), datasets.Value("int64")
    metadata = datasets.Features(features).arrow_schema.metadata
    folder.mkdir(parents=True)
    table = pa.table(columns).replace_schema_metadata(metadata)
    pq.write_table(table, folder / "test-00000-of-00001.parquet")


def logits_of(images: list[NDArray[np.uint8]], folder: Path) -> torch.Tensor:
    """Forward images as a user of timm does, one by one."""
    model: Any = timm.create_model(NAME, pretrained=False)
    model.load_state_dict(load_file(folder / "model.safetensors"))
    model.eval()
    config = dict(interpolation="bicubic", crop_pct=0.875, mean=(0.5,) * 3, std=(0.5,) * 3)
    transform: Any = create_transform((3, 224, 224), **config)
    with torch.inference_mode():
        return torch.cat([model(transform(Image.fromarray(image))[None]) for image in images]).double()


def test_accuracy_and_scores_are_those_of_a_plain_loop_in_less_than_2_gb(
    folder: Path, tmp_path: Path
) -> None:
    known = photographs()
    images, labels = [image for image, _ in known], [label for _, label in known]
    unknown = rendered()
    write_parquet(tmp_path / "photos/data", images, labels)
    write_parquet(tmp_path / "gratings/data", unknown, None)
    suite = {
        "schema": 1,
        "name": "photographs",
        "id": {"dataset": "hf:photos", "test": {"split": "test"}},
        "models": [{"checkpoint": str(folder)}],
        "ood": [{"name": "gratings", "dataset": "hf:gratings", "group": "far", "split": "test"}],
        "scorers": ["msp", "max_logit"],
    }
    (tmp_path / "photographs.toml").write_text(as_toml(suite))
    out = tmp_path / "out"
    ran = subprocess.run(
        [sys.executable, "-c", RUN, "run", "photographs.toml", "--out", out, "--device", "cpu"],
        cwd=tmp_path,
        env={**os.environ, "OOD_HARNESS_DATA": str(tmp_path), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    peak = int(ran.stdout.rpartition("peak ")[2])
    assert peak < MOST_BYTES, peak

    ours, theirs = (logits_of(of_set, folder) for of_set in (images, unknown))
    accuracy = float((ours.argmax(dim=1) == torch.tensor(labels)).double().mean())
    scores = {
        "msp": [-of_set.softmax(dim=1).amax(dim=1) for of_set in (ours, theirs)],
        "max_logit": [-of_set.amax(dim=1) for of_set in (ours, theirs)],
    }
    records = read_journal(out)
    (model,) = (r for r in records if r["kind"] == "model")
    assert 0.2 < accuracy < 1
    assert model["metrics"]["accuracy"]["value"] == pytest.approx(accuracy, abs=1e-12)
    measured = {r["scorer"]: r["metrics"]["auroc"]["value"] for r in records if r["kind"] == "score"}
    is_ood = [0] * len(ours) + [1] * len(theirs)
    for scorer, pair in scores.items():
        assert measured[scorer] == pytest.approx(roc_auc_score(is_ood, torch.cat(pair)), abs=1e-6), scorer

    rows = pd.read_parquet(out / "scores.parquet")
    assert rows["label"][: len(labels)].tolist() == labels
    assert rows["prediction"].tolist() == torch.cat([ours, theirs]).argmax(dim=1).tolist()
    confidence = torch.cat([ours, theirs]).softmax(dim=1).amax(dim=1).numpy()
    np.testing.assert_allclose(rows["confidence"], confidence, atol=1e-5)
