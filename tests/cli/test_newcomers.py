"""Mistakes of newcomers: each is one line with the value, the valid ones and the fix, exit 2, and nothing else happens.

newcomers.txt lists them. Nothing is written, and no model is loaded for a run, trained or fed with an image.
"""

from __future__ import annotations

import json
import re
import shlex
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from toys import TOY_PLUGIN, TOY_SUITE, as_toml

from harness import cli
from harness.base import checksums
from harness.engine import trainer
from harness.engine.loading import Loader
from harness.models.training import training

pytestmark = pytest.mark.trials("inputs")

LISTED = Path(__file__).with_name("newcomers.txt")
IMAGES = {"train": 4, "val": 2, "test": 3}  # of each class, by split
MINE: dict[str, Any] = {
    "schema": 1,
    "name": "mine",
    "id": {"dataset": "photos", "train": {"split": "train"}, "test": {"split": "test"}},
    "models": [{"checkpoint": "net"}],
    "scorers": ["msp"],
    "ood": [{"name": "holiday", "dataset": "holiday", "group": "far"}],
}
RECIPE: dict[str, Any] = {
    "schema": 1,
    "name": "mine",
    "model": "mlp",
    "preprocessing": {"input_size": [1, 8, 8]},
    "lr": 0.1,
    "epochs": 1,
    "batch_size": 4,
    "data": {"dataset": "digits", "classes": [0, 1], "train": {"split": "train"}, "test": {"split": "test"}},
}
MODULES = '''
"""A user's models."""
from torch import nn

def build():
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 2))

net = build()
'''


@dataclass(frozen=True)
class Mistake:
    """A block of newcomers.txt, with its files."""

    name: str
    command: str
    answer: str
    files: dict[str, str]

    @classmethod
    def of(cls, number: int, block: str) -> Mistake:
        """Read a block. SUITE and RECIPE become files of its own number."""
        name, *lines = block.splitlines()
        marked: dict[str, list[str]] = {mark: [] for mark in ("$", ">", "|", "without")}
        changes = []
        for line in lines:
            mark, _, rest = line.partition(" ")
            marked.get(mark, changes).append(rest if mark in marked else line)
        (command,) = marked["$"] or ["run SUITE --device cpu"]
        (answer,) = marked[">"]
        mine = {**MINE, "name": f"mine-{number}"}  # each runs into a folder of its own
        word, base = ("RECIPE", RECIPE) if "RECIPE" in command else ("SUITE", mine)
        content = {**base, **tomllib.loads("\n".join(changes))}
        kept = {key: value for key, value in content.items() if key not in marked["without"]}
        text = as_toml(kept).replace("Infinity", "inf")
        if marked["|"]:
            text = "".join(f"{line}\n" for line in marked["|"])
        file = f"{word.lower()}-{number}.toml"
        typed = command.replace(word, file).replace("PLUGIN", str(TOY_PLUGIN))
        return cls(name, typed, answer, {file: text})


MISTAKES = [
    Mistake.of(number, block)
    for number, block in enumerate(
        re.split(r"^# ", re.sub(r"^## .*", "", LISTED.read_text(encoding="utf-8"), flags=re.M), flags=re.M)[
            2:
        ]
    )
]


def picture(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def pictures(folder: Path, count: int, seed: int) -> None:
    for number in range(count):
        picture(folder / f"{number}.png", 100 * seed + number)


def folders(world: Path) -> None:
    """Draw the images: two classes in three parts, three classes, a holiday."""
    seed = 0
    for name, classes in (("photos", ("cat", "dog")), ("three", ("cat", "dog", "emu"))):
        for split, count in IMAGES.items():
            for of_class in classes:
                seed += 1
                pictures(world / name / split / of_class, count, seed)
    pictures(world / "holiday", 3, seed + 1)
    (world / "empty").mkdir()
    (world / "torn").mkdir()
    (world / "torn" / "0.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (world / "photos.toml").mkdir()
    (world / "image.toml").write_bytes((world / "holiday" / "0.png").read_bytes())
    (world / "notes.txt").write_text("buy milk\n")
    (world / "three.txt").write_text("cat\ndog\nemu\n")
    (world / "map_of_others.txt").write_text("cat,tiger\ndog,wolf\n")
    lists = world / "lists"
    lists.mkdir()
    (lists / "empty.txt").write_text("")
    (lists / "gone.txt").write_text("gone/0.png 0\ngone/1.png 1\n")
    (lists / "unlabelled.txt").write_text("../holiday/0.png -1\n../holiday/1.png 0\n")
    (lists / "words.txt").write_text("photos/test/cat/0.png cat\n")
    (lists / "outside.txt").write_text("../../../../etc/passwd 0\n")
    (world / "my_models.py").write_text(MODULES)
    (world / "broken.py").write_text("def build(:\n")


def checkpoints(world: Path) -> None:
    """Save a network, whole and in every broken form."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network: Any = timm.create_model("test_resnet", num_classes=2).eval()
    weights = network.state_dict()
    torch.save(weights, world / "best.pth")
    torch.save(network, world / "pickle.pth")
    assert call("import", "best.pth", "--arch", "test_resnet", "--size", "8", "-o", "net") == 0
    config = json.dumps(checksums.unsealed((world / "net" / "config.json").read_text()))
    for name, of_config in (
        ("badconfig", "{"),
        ("noarch", "{}"),
        ("badarch", config.replace("test_resnet", "test_resnt")),
    ):
        (world / name).mkdir()
        (world / name / "config.json").write_text(of_config)
        save_file(weights, world / name / "model.safetensors")
    (world / "noconfig").mkdir()
    save_file(weights, world / "noconfig" / "model.safetensors")
    for name in ("noweights", "pickled", "torn_net"):
        (world / name).mkdir()
        (world / name / "config.json").write_text(config)
    torch.save(network, world / "pickled" / "pytorch_model.bin")
    content = (world / "net" / "model.safetensors").read_bytes()
    (world / "torn_net" / "model.safetensors").write_bytes(content[: len(content) // 2])


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A newcomer's folder: images, checkpoints, a finished run, and a file per mistake."""
    world = tmp_path_factory.mktemp("world")
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(world)
        patched.setenv("OOD_HARNESS_CACHE", str(world / "cache"))
        patched.delenv("OOD_HARNESS_DATA", raising=False)
        folders(world)
        checkpoints(world)
        (world / "toy.toml").write_text(as_toml(TOY_SUITE))
        assert call("run", "toy.toml", "--plugin", str(TOY_PLUGIN), "--out", "done", "--device", "cpu") == 0
        (world / "damaged").mkdir()
        (world / "damaged" / "records.jsonl").write_text("{}\n")
        for mistake in MISTAKES:
            for name, text in mistake.files.items():
                (world / name).write_text(text)
        yield world


def test_every_command_has_its_mistakes() -> None:
    commands = {mistake.command.split()[0] for mistake in MISTAKES}
    names = {command.name or command.callback.__name__ for command in cli.app.registered_commands}  # type: ignore[union-attr]
    assert names <= commands
    assert len({mistake.name for mistake in MISTAKES}) == len(MISTAKES) >= 100


def call(*arguments: str) -> int:
    """Run the command line in this process, and return its exit status."""
    with pytest.MonkeyPatch.context() as patched, pytest.raises(SystemExit) as exit_:
        patched.setattr(sys, "argv", ["ood-harness", *arguments])
        cli.main()
        raise SystemExit(0)
    return int(exit_.value.code or 0)


def on_disk(folder: Path) -> dict[str, tuple[int, int]]:
    found = {
        path: path.lstat()
        for path in sorted(folder.rglob("*"))
        if path.suffix != ".pyc" and path.name != "__pycache__"
    }
    return {str(path): (stat.st_mtime_ns, stat.st_size) for path, stat in found.items()}


@pytest.fixture
def worked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was loaded, trained or run: whoever does, ends."""
    found: list[str] = []

    def forbidden(name: str) -> Any:
        def work(*arguments: Any, **keywords: Any) -> None:
            found.append(name)
            raise AssertionError(f"{name}: before the mistake was said")

        return work

    monkeypatch.setattr(Loader, "load", forbidden("a model was loaded"))
    monkeypatch.setattr(training, "train", forbidden("a model was trained"))
    monkeypatch.setattr(trainer, "kept_model", forbidden("a model was trained"))
    return found


@pytest.mark.parametrize("mistake", MISTAKES, ids=[mistake.name.replace(" ", "_") for mistake in MISTAKES])
def test_a_mistake_is_one_line_and_exits_2(
    mistake: Mistake,
    world: Path,
    worked: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(world)
    monkeypatch.setenv("OOD_HARNESS_CACHE", str(world / "cache"))
    monkeypatch.delenv("OOD_HARNESS_DATA", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    before = on_disk(world)
    status = call(*shlex.split(mistake.command))
    output = capfd.readouterr()
    assert worked == []
    assert (status, output.out) == (2, "")
    assert output.err.startswith("ood-harness: ")
    assert len(output.err.splitlines()) == 1, output.err
    assert on_disk(world) == before
    said = ".*".join(map(re.escape, mistake.answer.split("...")))
    assert re.search(said, output.err), output.err
