"""What the README shows works as it is shown."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from journals import read_journal
from PIL import Image
from safetensors.torch import save_file

import harness
from harness.base.toml import read_toml
from harness.contract.registry import Registry
from harness.data.opening import open_id
from harness.engine.plan import Plan
from harness.engine.runner import RunOptions
from harness.evaluations.run import plan_suite, run_plan

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"


def plan_of(suite: str, registry: Registry) -> Plan:
    path = registry.path("suite", suite)
    return plan_suite(read_toml(path, "suite"), registry, source=path.name)


def block(language: str, containing: str) -> str:
    """Return the README's one code block of a language that contains a text."""
    blocks: list[str] = re.findall(rf"```{language}\n(.*?)```", README.read_text(), flags=re.DOTALL)
    (found,) = [text for text in blocks if containing in text]
    return found


@pytest.fixture
def own_world(tmp_path: Path) -> None:
    """The folders that the README's suite names: photos/, holiday/ and my-model/."""
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        for level, name in enumerate(("cat", "dog")):
            write_images(tmp_path / "photos" / split / name, rng.integers(0, 60, (6, 20, 20, 3)) + 90 * level)
    write_images(tmp_path / "holiday", rng.integers(0, 256, (6, 30, 20, 3)))
    (tmp_path / "my-model").mkdir()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = timm.create_model("test_resnet", pretrained=False, num_classes=2)
    save_file(model.state_dict(), tmp_path / "my-model/model.safetensors")
    (tmp_path / "my-model/config.json").write_text('{"architecture": "test_resnet", "num_classes": 2}')


def write_images(folder: Path, images: np.ndarray) -> None:
    folder.mkdir(parents=True)
    for number, image in enumerate(images):
        Image.fromarray(image.astype(np.uint8)).save(folder / f"{number}.png")


@pytest.mark.usefixtures("own_world")
def test_the_five_lines_of_toml_run(tmp_path: Path) -> None:
    text = block("toml", "my-model")
    assert len(text.strip().splitlines()) == 5
    (tmp_path / "mine.toml").write_text(text)
    registry = Registry.load()
    plan = plan_of("mine.toml", registry)
    result = run_plan(plan, RunOptions(out=tmp_path / "out", device="cpu"))

    records = [r for r in read_journal(tmp_path / "out") if r["kind"] == "score"]
    measured = {r["scorer"] for r in records if r["error"] is None}
    failed = {r["scorer"]: r["error"] for r in records if r["error"]}
    assert {"msp", "gen", "energy", "mahalanobis_pp", "dse"} <= measured
    assert set(failed) == {"knn", "vim"}  # 12 training images are too few, and each says so
    assert "12" in failed["knn"]
    assert result.cells == len(Registry.load().names("scorer")) - 2  # flips adapts, dse_change is unstable


def short_board() -> dict[str, list[str]]:
    """Read the README's eight rows: rank, near AUROC, near FPR95, far AUROC and far FPR95 by scorer."""
    _, *lines = block("text", "near FPR95").splitlines()
    assert len(lines) == 8
    return {name: cells for name, *cells in (re.split(r"  +", line) for line in lines)}


def whole_board() -> dict[tuple[str, str], list[str]]:
    """Read the whole board: cells by model and scorer."""
    model, rows = "", {}
    for line in block("text", "digits: group means").splitlines():
        if heading := re.match(r"(\S+): ID accuracy", line):
            model = heading[1]
        elif model and line.startswith("  "):
            scorer, *cells = re.split(r"  +", line.strip())
            rows[model, scorer] = cells
    return rows


def test_the_whole_board_is_that_of_the_digits_suite() -> None:
    board, registry = whole_board(), Registry.load()
    models = {model.name.rpartition(":")[2] for model in plan_of("digits", registry).suite.models}
    expected = {(model, scorer) for model in models for scorer in registry.names("scorer")}
    expected -= {(model, "dse_change") for model in models}  # unstable, so * leaves it out
    not_applicable = {("digits-mlp", "flips"), ("digits-cnn-isomaxplus", "vim")}
    assert set(board) == expected - not_applicable - {(model, "min_distance") for model in models}
    text = block("text", "digits: group means")
    assert "min_distance gives the scores of max_logit." in text
    assert "Not applicable: vim (digits-cnn-isomaxplus), flips (digits-mlp)." in text
    for name in ("digits-5-9", "letters", "patches-china", "patches-flower", "uniform", "gaussian"):
        assert name in text


def test_the_whole_board_is_one_screen_of_100_columns() -> None:
    lines = block("text", "digits: group means").splitlines()
    assert len(lines) <= 50
    assert max(map(len, lines)) <= 100


def test_every_row_of_the_short_board_is_one_of_the_whole_board() -> None:
    short, board = short_board(), whole_board()
    for scorer, cells in short.items():
        assert cells == board["digits-cnn", scorer][:5], scorer
    rows = [scorer for model, scorer in board if model == "digits-cnn"]
    assert len(rows) == 12
    places = [rows.index(scorer) for scorer in short]
    assert places == sorted(places)


def test_a_run_gives_the_short_board(tmp_path: Path) -> None:
    """The digits suite with the one model that is shown. Another CPU may train a slightly different network."""
    text = (ROOT / "benchmarks/suites/digits.toml").read_text()
    parts = re.split(r"^(?=\[\[)", text, flags=re.MULTILINE)
    kept = [p for p in parts if "recipe" not in p or 'recipe = "digits-cnn"\n' in p]
    kept = [p for p in kept if not p.startswith("[[shift]]")]  # no number of the short board depends on it
    scorers = sorted(short_board())
    suite = "".join(kept).replace('scorers = ["*", "flips"]', f"scorers = {scorers}")
    assert str(scorers) in suite
    (tmp_path / "digits-cnn.toml").write_text(suite)
    registry = Registry.load()
    plan = plan_of("digits-cnn.toml", registry)
    run_plan(plan, RunOptions(out=tmp_path / "out", device="cpu"))

    measured = pd.read_csv(tmp_path / "out/leaderboard.csv").set_index("scorer")
    for scorer, (_, *cells) in short_board().items():
        row = measured.loc[scorer]
        for group, auroc, fpr in (("near", *cells[:2]), ("far", *cells[2:])):
            columns = [f"{group}_auroc", f"{group}_auroc_lo", f"{group}_auroc_hi"]
            shown = [float(number) for number in re.findall(r"[\d.]+", auroc)]
            assert shown == pytest.approx(100 * row[columns].to_numpy(float), abs=1), (scorer, group)
            assert float(fpr) == pytest.approx(100 * row[f"{group}_fpr95_id"], abs=5), (scorer, group)


@pytest.mark.usefixtures("own_world")
def test_the_plugin_is_the_energy_score_and_runs(tmp_path: Path) -> None:
    shown = block("python", "harness_scorers")
    assert len(shown.splitlines()) <= 20
    file = tmp_path / "my_energy.py"
    file.write_text(shown)
    registry = Registry.load([file])
    logits = torch.from_numpy(np.random.default_rng(0).normal(scale=5, size=(7, 4)))
    scorer = registry.get("scorer", "my_energy").spec.build
    for temperature in (1.0, 2.0):
        found = scorer(temperature=temperature).score(harness.Features(logits=logits))
        expected = -temperature * torch.logsumexp(logits / temperature, dim=1)
        torch.testing.assert_close(found, expected)

    (tmp_path / "mine.toml").write_text(block("toml", "my-model"))
    plan = plan_of("mine.toml", registry)
    run_plan(plan, RunOptions(out=tmp_path / "out", device="cpu"))
    records = [r for r in read_journal(tmp_path / "out") if r["kind"] == "score"]
    by_name = {r["scorer"]: r for r in records}
    assert by_name["my_energy"]["error"] is None
    assert by_name["my_energy"]["metrics"] == by_name["energy"]["metrics"]


def test_the_picture_is_there_and_its_command_is_shown() -> None:
    (picture,) = re.findall(r"!\[.*\]\((.*?)\)", README.read_text())
    assert (ROOT / picture).read_bytes()[:5] == b"<?xml"
    assert f"ood-harness plot roc results/digits -o {picture}" in README.read_text()


def test_the_readme_is_short_and_links_to_every_document() -> None:
    text = README.read_text()
    unfolded = re.sub(r"<details>.*?</details>", "", text, flags=re.DOTALL)
    assert len(unfolded.splitlines()) <= 150
    for page in sorted((ROOT / "docs").glob("*.md")):
        assert f"(docs/{page.name})" in text, page.name
    for target in re.findall(r"\]\((.*?)\)", text):
        assert (ROOT / target).exists(), target


@pytest.mark.usefixtures("own_world")
def test_folders_that_number_their_classes_differently_are_matched_by_name(tmp_path: Path) -> None:
    write_images(tmp_path / "photos/train/bird", np.zeros((2, 20, 20, 3)))
    (tmp_path / "mine.toml").write_text(block("toml", "my-model"))
    registry = Registry.load()
    opened = open_id(plan_of("mine.toml", registry).suite.id, registry)
    assert opened.class_names == ("bird", "cat", "dog")
    assert sorted(set(opened.test.labels.tolist())) == [1, 2]
