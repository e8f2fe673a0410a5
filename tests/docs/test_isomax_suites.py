"""The suites of the IsoMax papers run on counterfeit data of the same layouts: shallow networks, one epoch each."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from journals import read_journal
from PIL import Image

from harness.engine.runner import RunOptions
from harness.evaluations.run import prepare, run_plan

DATA = ("cifar10", "cifar100", "svhn")
OBJECTIVES = ("softmax", "isomax", "isomaxplus")
SHALLOW = {"densenet": "{ depth = 10, growth_rate = 12 }", "resnet110": "{ depth = 8 }"}
IMAGES = 6  # of a class in training, of which one is held out


def pixels(number: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(number).integers(0, 256, (32, 32, 3), dtype=np.uint8)


def encoded(number: int) -> dict[str, Any]:
    buffer = io.BytesIO()
    Image.fromarray(pixels(number)).save(buffer, "PNG")
    return {"bytes": buffer.getvalue(), "path": None}


def write_table(file: Path, column: str, first: int, labels: list[int], classes: dict[str, int]) -> None:
    """Write a split as the hub has it: images, and one or more columns of classes."""
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    columns: dict[str, Any] = {column: pa.array([encoded(first + i) for i in range(len(labels))], image)}
    features: dict[str, Any] = {column: datasets.Image()}
    for name, count in classes.items():
        columns[name] = pa.array([label % count for label in labels], pa.int64())
        features[name] = datasets.ClassLabel(names=[f"{name} {number}" for number in range(count)])
    schema = datasets.Features(features).arrow_schema
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns).cast(schema), file)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Counterfeits: the hub's CIFAR-10, CIFAR-100 and SVHN without their cards, and two folders of resized images."""
    root = tmp_path / "data"
    layouts: tuple[tuple[str, str, dict[str, int]], ...] = (
        ("cifar10/plain_text", "img", {"label": 10}),
        ("cifar100/cifar100", "img", {"fine_label": 100, "coarse_label": 20}),
        ("svhn/cropped_digits", "image", {"label": 10}),
        ("svhn/full_numbers", "image", {"label": 10}),
    )
    number = 0
    for folder, column, classes in layouts:
        for split, count in (("train", IMAGES + 1), ("test", 1)):
            labels = list(range(max(classes.values()))) * count
            write_table(root / folder / f"{split}-00000-of-00001.parquet", column, number, labels, classes)
            number += len(labels)
    for folder in ("Imagenet_resize/test", "LSUN_resize/LSUN_resize"):
        (root / folder).mkdir(parents=True)
        for index in range(12):
            Image.fromarray(pixels(number + index)).save(root / folder / f"{index}.png")
        number += 12
    monkeypatch.setenv("OOD_HARNESS_DATA", str(root))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets-cache")
    return root


def one_epoch(suite: str, data: str, network: str) -> None:
    """Write a suite that is based on the shipped one, with recipes that are based on its own, of one epoch and seed."""
    lines = ["schema = 1", 'name = "small"', f'base = "{suite}"']
    for objective in OBJECTIVES:
        name = f"{data}-{network}-{objective}"
        Path(f"small-{objective}.toml").write_text(
            f'schema = 1\nname = "small-{objective}"\nbase = "{name}"\nepochs = 1\nbatch_size = 50\n'
            f"model_params = {SHALLOW[network]}\n"
        )
        lines += ["[[models]]", f'recipe = "small-{objective}.toml"', f'label = "{objective}"']
    Path("small.toml").write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize("network", ["densenet", "resnet110"])
@pytest.mark.parametrize("data", DATA)
@pytest.mark.usefixtures("world")
def test_a_suite_trains_three_objectives_and_scores_them_on_the_papers_sets(data: str, network: str) -> None:
    suite = f"{data}-objectives" + ("-resnet110" if network == "resnet110" else "")
    one_epoch(suite, data, network)
    plan = prepare("small.toml", limit=IMAGES * (100 if data == "cifar100" else 10))
    assert [model.label for model in plan.suite.models] == list(OBJECTIVES)
    result = run_plan(plan, RunOptions(out=Path("out"), device="cpu"))
    assert result is not None
    records = [record for record in read_journal(Path("out")) if record["kind"] == "score"]
    assert [record["error"] for record in records if record["error"]] == []
    sets = {"imagenet_resize", "lsun_resize", "cifar10" if data == "svhn" else "svhn"}
    for objective in OBJECTIVES:
        mine = [record for record in records if objective == record["model"]]
        assert {(record["scorer"], record["ood"]) for record in mine} == {
            (scorer, name)
            for scorer in (
                "entropic", "min_distance", "msp", "gen", "energy", "knn", "mahalanobis_pp", "dse",
            )
            for name in sets
        }  # fmt: skip
    board = pd.read_csv("out/leaderboard.csv")
    assert set(board["model"]) == set(OBJECTIVES)
