"""A training that is killed at any instant ends, when it is called again, with the bits of one that was not."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

RECIPE = """
schema = 1
name = "killed"
model = "cnn"
model_params = {{ width = 8, dropout = 0.3 }}
objective = "{objective}"
optimizer = "{optimizer}"
lr = 0.005
weight_decay = 0.001
schedule = "cosine"
schedule_params = {{ warmup_epochs = 1 }}
epochs = 30
batch_size = 32
select = "best"

[preprocessing]
input_size = [1, 8, 8]

[augmentation]
crop_padding = 1
hflip = 0.5
re_prob = 0.2
{auxiliary}

[data]
dataset = "digits"
train = {{ split = "train", limit = 320 }}
validation = {{ split = "validation" }}
test = {{ split = "test" }}
"""
AUXILIARY = '[auxiliary]\ndataset = "uniform"\nbatch_size = 16'
CASES = {
    "isomaxplus-sgd": RECIPE.format(objective="isomaxplus", optimizer="sgd", auxiliary=""),
    "outlier-exposure-adamw": RECIPE.format(
        objective="outlier_exposure", optimizer="adamw", auxiliary=AUXILIARY
    ),
}
# Saves after every step, so that a kill may fall into any part of one.
TRAIN = """
import sys
from pathlib import Path
import timm, torchvision  # slow: the clock starts afterwards
import harness
from harness.models.training import loop
from harness.models.training import store
from harness_plugins.models import networks
loop.SECONDS_BETWEEN_SAVES = 0.0
print("ready", flush=True)
harness.train(sys.argv[1], out=Path(sys.argv[2]), device="cpu")
"""
KILLS = 4


def train(recipe: Path, out: Path, *, kill_after: float | None = None) -> float:
    """Train in a process of its own to its end, or kill it some seconds after its first save; return its seconds."""
    command = [sys.executable, "-c", TRAIN, str(recipe), str(out)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        began = time.monotonic()
        while kill_after is not None and process.poll() is None and not states(out):
            time.sleep(0.01)
        try:
            assert process.wait(timeout=kill_after) == 0
        except subprocess.TimeoutExpired:
            process.kill()
        return time.monotonic() - began


def states(out: Path) -> list[Path]:
    return list(out.glob(".killed-s0-*.training/state.safetensors"))


def finished(out: Path) -> list[Path]:
    return [
        path for path in out.glob("killed-s0-*/model.safetensors") if not path.parent.name.startswith(".")
    ]


@pytest.mark.parametrize("case", CASES)
def test_killed_at_random_instants_it_ends_with_the_same_weights(tmp_path: Path, case: str) -> None:
    recipe, out = tmp_path / "killed.toml", tmp_path / "disturbed"
    recipe.write_text(CASES[case])
    length = train(recipe, tmp_path / "undisturbed")
    (expected,) = finished(tmp_path / "undisturbed")

    rng, resumed = random.Random(case), 0
    for _ in range(KILLS):
        if not finished(out):
            train(recipe, out, kill_after=rng.uniform(0, 0.5) * length)
            resumed += bool(states(out))
    assert resumed >= 1, "no kill left a state behind, so this shows nothing"
    train(recipe, out)

    (found,) = finished(out)
    assert found.parent.name == expected.parent.name
    ours, theirs = load_file(found), load_file(expected)
    assert {k: v.numpy().tobytes() for k, v in ours.items()} == {
        k: v.numpy().tobytes() for k, v in theirs.items()
    }
    assert found.with_name("config.json").read_bytes() == expected.with_name("config.json").read_bytes()
    assert not list(out.glob(".*.training")), "the state was left behind"
