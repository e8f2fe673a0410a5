"""The suites of the IsoMax papers and of GEN's CIFAR-10 demonstration on counterfeit data of the same layouts."""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from journals import read_journal
from PIL import Image
from published_networks import drawn, head_logits, head_shapes, resnet_features, resnet_shapes

from harness import cli
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


def gen_metrics(folder: str) -> dict[str, Any]:
    (record,) = [r for r in read_journal(Path(folder)) if (r["kind"], r.get("scorer")) == ("score", "gen")]
    assert (record["error"], record["ood"]) == (None, "svhn")
    metrics: dict[str, Any] = record["metrics"]
    return metrics


def test_a_list_of_the_resized_images_takes_the_place_of_their_folder(world: Path) -> None:
    names = sorted(path.name for path in (world / "LSUN_resize/LSUN_resize").iterdir())
    (world / "lsun.txt").write_text("".join(f"LSUN_resize/{name} -1\n" for name in names[:7]))
    one_epoch("cifar10-objectives-resnet110", "cifar10", "resnet110")
    one_model = Path("small.toml").read_text().partition("[[models]]")[0] + (
        'models = [{ recipe = "small-isomaxplus.toml" }]\nscorers = ["min_distance"]\n'
        'ood = [{ name = "lsun_resize", group = "far", dataset = "imglist:lsun.txt", '
        'params = { root = "LSUN_resize" } }]\n'
    )
    Path("small.toml").write_text(one_model)
    run_plan(prepare("small.toml", limit=IMAGES * 10), RunOptions(out=Path("out"), device="cpu"))
    (record,) = [record for record in read_journal(Path("out")) if record["kind"] == "score"]
    assert (record["error"], record["ood"], record["n_ood"]) == (None, "lsun_resize", 7)


@pytest.mark.usefixtures("world")
def test_the_gen_demonstration_runs_from_its_recipe() -> None:
    Path("short.toml").write_text('schema = 1\nname = "short"\nbase = "cifar10-resnet20"\nepochs = 1\n')
    Path("small.toml").write_text(
        'schema = 1\nname = "small"\nbase = "cifar10-svhn"\nmodels = [{ recipe = "short.toml" }]\n'
    )
    run_plan(prepare("small.toml"), RunOptions(out=Path("out"), device="cpu"))
    assert 0 <= gen_metrics("out")["auroc"]["value"] <= 1


def test_the_gen_demonstration_runs_from_a_checkpoint_as_its_document_says(
    world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The AUROC of GEN is computed here from a forward pass that is written from the paper."""
    state = drawn(iter([*resnet_shapes(3), *head_shapes("softmax", 64, 10)]))
    names = {"classifier.weights": "linear.weight", "classifier.bias": "linear.bias"}
    published = {f"module.{names.get(key, key)}": value for key, value in state.items()}
    torch.save({"state_dict": published, "best_prec1": 92.6}, "resnet20-12fca82f.th")
    text = (Path(__file__).parents[2] / "docs/gen-check.md").read_text()
    (commands,) = [block for block in re.findall(r"```\n(.*?)```", text, re.DOTALL) if " import " in block]
    first, second = commands.replace("\\\n", "").strip().splitlines()
    assert second == "ood-harness run cifar10-svhn-pretrained"
    for command in (first, second):
        monkeypatch.setattr(sys, "argv", command.split())
        with pytest.raises(SystemExit) as ended:
            cli.main()
            raise SystemExit(0)
        assert not ended.value.code

    scores = []
    for file in ("cifar10/plain_text", "svhn/cropped_digits"):
        table = pq.read_table(world / file / "test-00000-of-00001.parquet").to_pydict()
        stored = [
            np.array(Image.open(io.BytesIO(row["bytes"]))) for row in table.get("img") or table["image"]
        ]
        images = torch.from_numpy(np.stack(stored)).permute(0, 3, 1, 2).double() / 255
        mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
        images = ((images - mean[:, None, None]) / deviation[:, None, None]).float()
        p = head_logits(state, resnet_features(state, images, 3)).double().softmax(dim=1)
        scores.append((p**0.1 * (1 - p) ** 0.1).sum(dim=1).numpy())
    id_scores, ood_scores = scores
    metrics = gen_metrics("results/cifar10-svhn-pretrained")
    assert metrics["auroc"]["value"] == pytest.approx((ood_scores[:, None] > id_scores).mean(), abs=1e-9)
