"""The OpenOOD suites run on tiny trees of their layouts and a small network: original lists, and hub mirrors."""

from __future__ import annotations

import hashlib
import io
import json
import tomllib
from dataclasses import replace
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
from harness.reports.leaderboard import leaderboard
from harness_plugins.datasets import openood

SUITES = Path(__file__).parents[2] / "benchmarks/suites"
CLASSES = {"openood-cifar10": 10, "openood-imagenet1k": 1000}
PROTOCOLS = {"openood-cifar10": "OpenOOD v1.5, CIFAR-10", "openood-imagenet1k": "OpenOOD v1.5, ImageNet-1K"}
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


def write_lists(suite: dict[str, Any], root: Path, classes: int) -> None:
    """Make every list that a suite names, in OpenOOD's layout, with ten images each."""
    rng = np.random.default_rng(0)
    sets = [part for part in suite["id"].values() if isinstance(part, dict)] + suite["ood"] + suite["shift"]
    for named in {suite["id"]["dataset"], *(entry["dataset"] for entry in sets if "dataset" in entry)}:
        file = root / named.removeprefix("imglist:")
        is_ood = any(entry["dataset"] == named for entry in suite["ood"])
        images = root / ("images_classic" if classes == 10 or "texture" in named else "images_largescale")
        lines = []
        for number in range(IMAGES_A_CLASS):
            path = f"{file.stem}/some folder/{number}.png"
            (images / path).parent.mkdir(parents=True, exist_ok=True)
            pixels = rng.integers(0, 256, (40, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(images / path)
            lines.append(f"{path} {-1 if is_ood else (classes - 1) * (number % 2)}\n")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(lines))


def run(
    content: dict[str, Any], out: Path, monkeypatch: pytest.MonkeyPatch, *, classes: int
) -> dict[str, Any]:
    """Run a suite with a small random network and three scorers; check that each cell has a number."""
    content |= {
        "models": [{"timm": "test_resnet", "params": {"pretrained": False}}],
        "scorers": ["msp", "gen", "mahalanobis_pp"],
    }
    plan = plan_suite(content, Registry.load(), source=content["name"])
    with monkeypatch.context() as patch:
        build_with(patch, classes=classes)
        result = run_plan(plan, RunOptions(out=out, device="cpu"))

    records = [record for record in read_journal(out) if record["kind"] == "score"]
    assert content["verified"] is False
    assert {record["error"] for record in records} == {None}
    assert len(records) == result.cells == 3 * len(plan.sets)
    assert {record["group"] for record in records} == {"near", "far", "csid"}
    manifest: dict[str, Any] = json.loads((out / "run.json").read_text())
    return manifest


@pytest.mark.parametrize("name", CLASSES)
def test_a_suite_of_hub_mirrors_runs_on_folders_of_their_layout(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = tomllib.loads((SUITES / f"{name}-hub.toml").read_text())
    for entry in content["ood"]:
        entry.get("params", {}).pop("config", None)  # a local folder has one configuration
    lay_out(content, tmp_path / "data", CLASSES[name])
    monkeypatch.setenv("OOD_HARNESS_DATA", str(tmp_path / "data"))
    manifest = run(content, tmp_path / "out", monkeypatch, classes=CLASSES[name])
    assert manifest["protocol"] is None


@pytest.mark.parametrize("name", CLASSES)
def test_a_suite_of_image_lists_runs_on_openoods_layout(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = tomllib.loads((SUITES / f"{name}.toml").read_text())
    write_lists(content, tmp_path / "data", CLASSES[name])
    monkeypatch.setenv("OOD_HARNESS_DATA", str(tmp_path / "data"))
    manifest = run(content, tmp_path / "out", monkeypatch, classes=CLASSES[name])
    assert manifest["protocol"].startswith(f"own data in the form of {PROTOCOLS[name]}: ")
    assert "is not the original list" in manifest["protocol"]
    assert {facts["lines"] for facts in manifest["data_facts"].values()} == {IMAGES_A_CLASS}

    known = dict(openood.PROTOCOLS[PROTOCOLS[name]])
    for part, published in known.items():
        digest = hashlib.sha256(
            (tmp_path / "data/benchmark_imglist" / published.file).read_bytes()
        ).hexdigest()
        known[part] = replace(published, lines=IMAGES_A_CLASS, sha256=digest)
    monkeypatch.setattr(openood, "PROTOCOLS", {PROTOCOLS[name]: known})
    manifest = run(content, tmp_path / "known", monkeypatch, classes=CLASSES[name])
    assert manifest["protocol"] == f"{PROTOCOLS[name]}, original lists"
    assert f"data: {PROTOCOLS[name]}, original lists" in leaderboard([tmp_path / "known"]).notes


@pytest.mark.parametrize("name", CLASSES)
def test_a_suite_names_every_list_of_its_protocol_in_its_group(name: str) -> None:
    content = tomllib.loads((SUITES / f"{name}.toml").read_text())
    read = {f"id.{part}": content["id"][part].get("dataset") for part in ("train", "validation")}
    read["id.test"] = content["id"]["dataset"]
    tested = [entry for entry in content["ood"] if entry.get("role") != "validation"]
    read |= {f"{entry['group']}/{entry['name']}": entry["dataset"] for entry in tested}
    read |= {f"csid/{entry['name']}": entry["dataset"] for entry in content["shift"]}
    known = openood.PROTOCOLS[PROTOCOLS[name]]
    assert read == {part: f"imglist:benchmark_imglist/{of.file}" for part, of in known.items()}


@pytest.mark.parametrize("name", [*CLASSES, *(f"{name}-hub" for name in CLASSES)])
def test_validation_was_not_trained_on(name: str) -> None:
    """The models came trained on train, so that thresholds of a hold-out of train would be flattered."""
    validation = tomllib.loads((SUITES / f"{name}.toml").read_text())["id"]["validation"]
    assert validation.get("of") == "test" or "/val_" in validation["dataset"]


def test_a_list_is_the_original_one_by_its_lines_and_not_by_its_name(tmp_path: Path) -> None:
    lines = [("cifar10/a.png", 3), ("cifar10/b c.png", -1)]
    digest = hashlib.sha256(b"cifar10/a.png 3\ncifar10/b c.png -1\n").hexdigest()
    parts = {
        "id.test": openood.Known("d/test.txt", 2, digest),
        "id.train": openood.Known("d/train.txt", 2, None),
    }
    paths, labels = zip(*lines, strict=True)

    def stated(file: str, count: int = 2) -> tuple[object, object] | None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(openood, "PROTOCOLS", {"P": parts})
            found = openood.protocol_of(Path(file), paths[:count], labels[:count])
        return None if found is None else (found["part"], found["original"])

    assert stated("/x/d/test.txt") == stated("/x/renamed.txt") == ("id.test", True)
    assert stated("/x/d/test.txt", 1) == ("id.test", False)
    assert stated("/x/d/train.txt", 1) == ("id.train", False)  # no digest is known: name and count decide
    assert stated("/x/train.txt", 1) is None


def build_with(monkeypatch: pytest.MonkeyPatch, *, classes: int) -> None:
    """Give timm's networks the suite's number of classes, which pretrained ones have by themselves."""
    import timm

    original = timm.create_model
    monkeypatch.setattr(
        timm, "create_model", lambda name, **keywords: original(name, num_classes=classes, **keywords)
    )
