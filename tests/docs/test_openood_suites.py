"""The suites written out against the hub run, on tiny folders of the same layout and a small network."""

from __future__ import annotations

import io
import tomllib
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from journals import read_journal
from PIL import Image

from harness.contract.registry import Registry
from harness.engine.runner import RunOptions
from harness.evaluations.run import plan_suite, run_plan

SUITES = Path(__file__).parents[2] / "benchmarks/suites"
CLASSES = {"openood-cifar10": 10, "openood-imagenet1k": 1000}
IMAGES_A_CLASS = 10


@pytest.fixture(autouse=True)
def library_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets-cache")


def write_split(folder: Path, split: str, labels: list[int], rng: np.random.Generator) -> None:
    """Write images and labels as the hub lays them out: one Parquet file a split, images encoded."""
    rows = []
    for _ in labels:
        buffer = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (40, 32, 3), dtype=np.uint8)).save(buffer, "PNG")
        rows.append({"bytes": buffer.getvalue(), "path": None})
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table({"image": pa.array(rows, image), "label": pa.array(labels, pa.int64())})
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
    folder.mkdir(parents=True, exist_ok=True)
    described = table.replace_schema_metadata(features.arrow_schema.metadata)
    pq.write_table(described, folder / f"{split}-00000-of-00001.parquet")


def lay_out(suite: dict[str, Any], root: Path, classes: int) -> None:
    """Make every dataset that a suite names, with two classes of which one is the last."""
    rng = np.random.default_rng(0)
    labels = [0, classes - 1] * IMAGES_A_CLASS
    for part in ("train", "test"):
        write_split(
            root / suite["id"]["dataset"].removeprefix("hf:") / "data",
            suite["id"][part]["split"],
            labels,
            rng,
        )
    for entry in (*suite["ood"], *(shift for shift in suite.get("shift", []) if "dataset" in shift)):
        repository = entry["dataset"].removeprefix("hf:")
        write_split(root / repository / "data", entry.get("split", "train"), labels, rng)


@pytest.mark.parametrize("name", CLASSES)
def test_a_suite_written_for_the_hub_runs_on_folders_of_its_layout(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = tomllib.loads((SUITES / f"{name}.toml").read_text())
    for entry in content["ood"]:
        entry.get("params", {}).pop("config", None)  # a local folder has one configuration
    lay_out(content, tmp_path / "data", CLASSES[name])
    content["id"]["validation"]["holdout"] = 1 / IMAGES_A_CLASS
    content |= {
        "models": [{"timm": "test_resnet", "params": {"pretrained": False}}],
        "scorers": ["msp", "gen", "mahalanobis_pp"],
    }
    monkeypatch.setenv("OOD_HARNESS_DATA", str(tmp_path / "data"))
    build_with(monkeypatch, classes=CLASSES[name])
    registry = Registry.load()
    plan = plan_suite(content, registry, source=name)
    result = run_plan(plan, RunOptions(out=tmp_path / "out", device="cpu"))

    records = [record for record in read_journal(tmp_path / "out") if record["kind"] == "score"]
    assert content["verified"] is False
    assert {record["error"] for record in records} == {None}
    assert len(records) == result.cells == 3 * len(plan.sets)
    assert {record["group"] for record in records} == {"near", "far", "csid"}


def build_with(monkeypatch: pytest.MonkeyPatch, *, classes: int) -> None:
    """Give timm's networks the suite's number of classes, which pretrained ones have by themselves."""
    import timm

    original = timm.create_model
    monkeypatch.setattr(
        timm, "create_model", lambda name, **keywords: original(name, num_classes=classes, **keywords)
    )
