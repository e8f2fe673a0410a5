"""A plugin that does what no plugin may do costs its own cells at most: all other numbers stay the same bytes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import zoo
from journals import read_journal, records_of
from surroundings_noted import state_of_the_process
from toys import TOY_PLUGIN, as_toml, run_suite

from harness.contract.registry import Registry

pytestmark = pytest.mark.trials("plugins")

ZOO = Path(zoo.__file__)
OTHERS = ["level", "margin", "from_train", "needs_linear", "gradient"]
ANIMALS = [
    offered.spec.name
    for offered in Registry.load([ZOO], blocked=()).offers("scorer")
    if offered.plugin.endswith("zoo.py") and "stream" not in offered.spec.needs
]
FAIL = ("exits", "raises", "recurses", *zoo.TO_THE_MODEL)  # by the beginning of the name; the others may not


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The others' records without any animal."""
    from toys import TOY_SUITE

    folder = tmp_path_factory.mktemp("alone")
    run_suite(TOY_SUITE | {"scorers": OTHERS}, folder / "out", cache=folder / "cache")
    return numbers(folder / "out")


def numbers(out: Path) -> dict[str, Any]:
    """Read what the others measured, and the models' own records."""
    found = {
        f"{scorer} {name}": (record["metrics"], record["scores"], record["error"])
        for (scorer, name), record in records_of(out).items()
        if scorer in OTHERS
    }
    of_model = [(r["metrics"], r["error"]) for r in read_journal(out) if r["kind"] == "model"]
    return found | {"model": of_model}


def test_the_zoo_is_whole() -> None:
    assert len(ANIMALS) == 3 * len(zoo.TO_THE_PROCESS) + len(zoo.TO_FEATURES) + len(zoo.TO_THE_MODEL) + 3


@pytest.mark.parametrize("animal", ANIMALS)
def test_no_other_number_moves_beside_an_animal_or_after_it(
    animal: str, alone: dict[str, Any], toy_suite: dict[str, Any], tmp_path: Path
) -> None:
    before = state_of_the_process()
    try:
        run_suite(toy_suite | {"scorers": [animal, *OTHERS]}, tmp_path / "out", plugins=(TOY_PLUGIN, ZOO))
        assert state_of_the_process() == before
        beside = numbers(tmp_path / "out")
        own = {record["error"] for key, record in records_of(tmp_path / "out").items() if key[0] == animal}
        after = run_suite(toy_suite | {"scorers": OTHERS}, tmp_path / "after")  # from the same cache
    finally:
        os.chdir(tmp_path)
    assert beside == alone
    assert numbers(tmp_path / "after") == alone
    assert after.counts.forwarded == 0
    if animal.startswith(FAIL):
        assert len(own) == 1 and None not in own, own
        assert "\n" not in min(own)
    else:
        assert own == {None}


def test_scores_that_reuse_a_tensor_are_those_of_each_set(toy_suite: dict[str, Any], tmp_path: Path) -> None:
    toy_suite["scorers"] = ["reuses_its_tensor", "level"]  # of the same order
    run_suite(toy_suite, tmp_path / "out", plugins=(TOY_PLUGIN, ZOO))
    records = records_of(tmp_path / "out")
    for name in ("bright", "close", "closer"):
        assert records["reuses_its_tensor", name]["metrics"] == records["level", name]["metrics"]


def test_a_scorer_that_draws_from_global_generators_draws_the_same_in_every_run(
    toy_suite: dict[str, Any], tmp_path: Path
) -> None:
    for name in ("one", "two"):
        torch.manual_seed(hash(name))
        run_suite(
            toy_suite | {"scorers": ["draws"]},
            tmp_path / name,
            plugins=(TOY_PLUGIN, ZOO),
            cache=tmp_path / f"cache of {name}",
        )
    one, two = (records_of(tmp_path / name) for name in ("one", "two"))
    assert {key: r["scores"] for key, r in one.items()} == {key: r["scores"] for key, r in two.items()}


def test_errors_hold_no_addresses(toy_suite: dict[str, Any], tmp_path: Path) -> None:
    scorers = ["raises_address_in_score"]
    run_suite(toy_suite | {"scorers": scorers}, tmp_path / "out", plugins=(TOY_PLUGIN, ZOO))
    errors = {record["error"] for record in records_of(tmp_path / "out").values()}
    assert errors == {"ValueError: in <object object at 0x…>"}


HOOKS = {
    "import": "import sys; sys.exit(0)",
    "record": """
import sys
import harness

@harness.hookimpl
def harness_record(record):
    sys.exit(0)
""",
    "scorers": """
import sys
import harness

@harness.hookimpl
def harness_scorers():
    sys.exit(0)
""",
    "dataset": """
import sys
import harness

def leave(request):
    sys.exit(0)

@harness.hookimpl
def harness_datasets():
    yield harness.DatasetSpec("leaves", leave)
""",
    "image": """
import sys
import numpy as np
import harness

class Leaves:
    labels = np.zeros(3, dtype=int)
    digest = "leaves"
    def __len__(self):
        return 3
    def __getitem__(self, index):
        sys.exit(0)
    def identity(self, index):
        return b"leaves %d" % index

@harness.hookimpl
def harness_datasets():
    yield harness.DatasetSpec("leaves", lambda request: Leaves())
""",
    "model": """
import sys
import harness

def leave(request):
    sys.exit(0)

@harness.hookimpl
def harness_models():
    yield harness.ModelSpec("leaves", leave)
""",
}


@pytest.mark.parametrize("where", HOOKS)
def test_sys_exit_is_never_success_without_a_board(
    where: str, toy_suite: dict[str, Any], tmp_path: Path
) -> None:
    plugin = tmp_path / "leaver.py"
    plugin.write_text(HOOKS[where])
    toy_suite["scorers"] = ["level"]
    if where in ("dataset", "image"):
        toy_suite["ood"].append({"name": "leaves", "dataset": "leaves", "group": "near"})
    if where == "model":
        toy_suite["models"].append({"name": "leaves"})
    suite = tmp_path / "toy.toml"
    suite.write_text(as_toml(toy_suite))
    command = [sys.executable, "-m", "harness.cli", "run", str(suite), "--out", str(tmp_path / "out")]
    ran = subprocess.run(
        [*command, "--plugin", str(TOY_PLUGIN), "--plugin", str(plugin)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in ran.stderr
    assert "sys.exit(0)" in ran.stderr
    if where in ("record", "scorers"):  # nothing of the board was asked of it
        assert "near" in ran.stdout
    else:
        assert ran.returncode in (1, 2)


def test_the_other_sets_have_their_numbers_beside_one_whose_images_exit(
    toy_suite: dict[str, Any], tmp_path: Path
) -> None:
    plugin = tmp_path / "leaver.py"
    plugin.write_text(HOOKS["image"])
    toy_suite["ood"].append({"name": "leaves", "dataset": "leaves", "group": "near"})
    result = run_suite(toy_suite, tmp_path / "out", plugins=(TOY_PLUGIN, plugin))
    records = records_of(tmp_path / "out")
    failed = {name for (_, name), record in records.items() if record["error"]}
    assert failed == {"leaves"}
    assert result.failed == len(toy_suite["scorers"])
    assert json.dumps(result.problems, default=str)
