"""Scorers of strangers in worker processes: one that ends, blocks or exhausts its process loses its own cells alone."""

from __future__ import annotations

import gc
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import beasts
import pytest
import torch
import zoo
from every_kind import every_kind
from journals import all_records, records_of
from toys import TOY_PLUGIN, TOY_SUITE, as_toml, run_suite
from trials import Trials, groups

from harness.base.errors import InputError
from harness.base.worker import Limits, Worker, WorkerError

BEASTS, ZOO = Path(beasts.__file__), Path(zoo.__file__)
TOYS = ["level", "margin", "from_train", "needs_linear", "gradient"]

pytestmark = pytest.mark.trials("plugins")

FIRST_PARTY = ["msp", "energy", "gen", "mahalanobis"]  # they run in the harness's own process
PATIENT = {"isolate": "foreign", "seconds": 300, "megabytes": 300}
IMPATIENT = PATIENT | {"seconds": 1}
REASONS = {
    "exits": "its process ended with exit code 0",
    "exits_with_an_error": "its process ended with exit code 3",
    "crashes": "its process was killed by SIGSEGV",
    "kills_itself": "its process was killed by SIGKILL",
    "takes_all_memory": "can't allocate memory",
    "closes_everything": "its process ended with exit code",
    "reads_its_input": "EOFError",
    "leaves_a_thread": None,
    "leaves_a_process": None,
    "comes_back_twice": None,
}
ENDING = ["exits", "exits_with_an_error", "crashes", "kills_itself", "closes_everything"]
ENDLESS = ("never_returns", "never_lets_go")
ANIMALS = [f"{act}_in_score" for act in zoo.TO_THE_PROCESS]
ANIMALS += [*zoo.TO_FEATURES, *zoo.TO_THE_MODEL, "wrecks_the_head"]
PLACES = ("in_build", "in_fit", "in_score", "at_images")


def numbers(out: Path, scorers: list[str]) -> dict[str, Any]:
    """Read what some scorers measured."""
    found = records_of(out).items()
    return {
        f"{s} on {name}": (r["metrics"], r["scores"], r["error"]) for (s, name), r in found if s in scorers
    }


@pytest.fixture(scope="module")
def in_process(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run without strangers and without workers."""
    folder = tmp_path_factory.mktemp("alone")
    run_suite(TOY_SUITE | {"scorers": TOYS + FIRST_PARTY}, folder / "out", cache=folder / "cache")
    return folder / "out"


def test_every_beast_is_tried() -> None:
    assert beasts.ACTS.keys() == REASONS.keys() | set(ENDLESS)


@pytest.mark.parametrize(("whose", "scorers"), [("foreign", TOYS), ("all", FIRST_PARTY)])
def test_scores_are_the_same_bytes_in_a_worker(
    whose: str, scorers: list[str], in_process: Path, toy_suite: dict[str, Any], tmp_path: Path
) -> None:
    suite = toy_suite | {"scorers": scorers, "limits": PATIENT | {"isolate": whose}}
    run_suite(suite, tmp_path / "out")
    found = numbers(tmp_path / "out", scorers)
    assert found == numbers(in_process, scorers)
    assert len(found) == 3 * len(scorers)
    assert {error for _, _, error in found.values()} == {None}


def test_numbers_of_every_kind_are_the_same_in_workers(tmp_path: Path) -> None:
    suite = every_kind()
    suite["models"], suite["scorers"] = (
        [suite["models"][0] | {"seeds": [0, 1]}],
        ["level", "gradient", "whole"],
    )
    suite["adaptation"] |= {"seeds": [0], "shares": [[0.5, 0, 0.5]]}
    for whose in ("none", "foreign"):
        run_suite(suite | {"limits": PATIENT | {"isolate": whose}}, tmp_path / whose)
    alone, isolated = (all_records(tmp_path / whose) for whose in ("none", "foreign"))
    assert {record["kind"] for record in alone.values()} >= {
        "score",
        "probe",
        "curve",
        "adaptation",
        "estimate",
    }
    assert isolated == alone


@pytest.mark.parametrize("acts", groups(list(REASONS)))
@pytest.mark.parametrize("place", PLACES)
def test_whoever_ends_its_process_loses_its_own_cells_alone(
    place: str,
    acts: list[str],
    in_process: Path,
    toy_suite: dict[str, Any],
    trials: Trials,
    tmp_path: Path,
) -> None:
    scorers = [*FIRST_PARTY, *(f"{name}_{place}" for name in acts)]
    run_suite(
        toy_suite | {"scorers": scorers, "limits": PATIENT}, tmp_path / "out", plugins=(TOY_PLUGIN, BEASTS)
    )
    assert numbers(tmp_path / "out", FIRST_PARTY) == numbers(in_process, FIRST_PARTY)
    errors = {(s, name): r["error"] for (s, name), r in records_of(tmp_path / "out").items()}
    for name in acts:
        reason = REASONS[name]
        for of_set in ("bright", "close", "closer"):
            error = errors[f"{name}_{place}", of_set]
            assert (error is None) if reason is None else (reason in error and "\n" not in error), (
                name,
                error,
            )
    gc.collect()
    left = [int(path.stem) for path in Path.cwd().glob("*.left")]
    assert bool(left) == ("leaves_a_process" in acts)
    assert not [pid for pid in left if is_running(pid)]
    trials.add(len(acts))


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"  # ended, and not yet collected by whoever adopted it


@pytest.mark.parametrize("acts", groups(ENDLESS))
@pytest.mark.parametrize("place", PLACES)
def test_whoever_never_returns_is_ended_after_its_limit(
    place: str,
    acts: list[str],
    in_process: Path,
    toy_suite: dict[str, Any],
    trials: Trials,
    tmp_path: Path,
) -> None:
    scorers = [*FIRST_PARTY, *(f"{name}_{place}" for name in acts)]
    run_suite(
        toy_suite | {"scorers": scorers, "limits": IMPATIENT}, tmp_path / "out", plugins=(TOY_PLUGIN, BEASTS)
    )
    assert numbers(tmp_path / "out", FIRST_PARTY) == numbers(in_process, FIRST_PARTY)
    errors = {r["error"] for (s, _), r in records_of(tmp_path / "out").items() if s not in FIRST_PARTY}
    assert {error.removeprefix("fit: ") for error in errors} == {"took longer than its limit of 1 s"}
    trials.add(len(acts))


@pytest.mark.parametrize("acts", [*groups(ENDING), pytest.param(["never_returns"], id="never_returns")])
def test_probes_adapters_estimators_and_stream_scorers_lose_their_own_cells_alone(
    acts: list[str], trials: Trials, tmp_path: Path
) -> None:
    suite = every_kind()
    kept = {"scorers": ["level", "whole"], "probes": ["mean"], "estimators": ["confident"], "adapters": []}
    suite |= {"models": [suite["models"][0] | {"seeds": [0]}], "curves": {"probes": ["mean"]}, **kept}
    suite["shift"], suite["estimation"] = (
        [{"corrupt": ["fog"], "severity": [1]}],
        {"corrupt": ["snow"], "severity": [2]},
    )
    suite["adaptation"] = {"seeds": [0], "batch_size": 8}
    suite["adapters"] = [{"name": "slide", "protocol": "episodic"}]
    run_suite(suite, tmp_path / "alone", cache=tmp_path / "cache")
    for act in acts:
        suite["scorers"] = [*suite["scorers"], f"{act}_on_streams"]
        suite["probes"], suite["estimators"] = [*suite["probes"], act], [*suite["estimators"], act]
        suite["adapters"] = [
            *suite["adapters"],
            {"name": act, "protocol": ["episodic", "mixed"]},
            {"name": f"{act}_in_prepare", "protocol": "episodic"},
        ]
    limits = (PATIENT if acts[0] in ENDING else IMPATIENT) | {"isolate": "foreign"}
    run_suite(
        suite | {"limits": limits}, tmp_path / "out", plugins=(TOY_PLUGIN, BEASTS), cache=tmp_path / "cache"
    )
    alone, found = all_records(tmp_path / "alone"), all_records(tmp_path / "out")
    assert {cell: found[cell] for cell in alone} == alone
    failed = {cell: record for cell, record in found.items() if cell not in alone}
    assert {record["kind"] for record in failed.values()} == {"score", "probe", "adaptation", "estimate"}
    reasons = "its process (ended with exit code|was killed by)|took longer than its limit of 1 s"
    for record in failed.values():
        assert re.search(reasons, record["error"]), record
    # As a stream scorer, a probe, an estimator, an adapter, and when it is prepared.
    trials.add(5 * len(acts))


def test_a_worker_that_ended_is_replaced_for_the_next_set(toy_suite: dict[str, Any], tmp_path: Path) -> None:
    suite = toy_suite | {"scorers": ["mortal"], "limits": PATIENT}
    run_suite(suite, tmp_path / "out", plugins=(TOY_PLUGIN, BEASTS))
    errors = {name: record["error"] for (_, name), record in records_of(tmp_path / "out").items()}
    assert errors == {"bright": "its process ended with exit code 4", "close": None, "closer": None}


def test_a_parameter_is_tried_in_a_worker(toy_suite: dict[str, Any], tmp_path: Path) -> None:
    suite = toy_suite | {"scorers": [{"name": "built_with", "act": "exits"}], "limits": PATIENT}
    with pytest.raises(InputError, match=r"does not take act='exits': its process ended with exit code 0"):
        run_suite(suite, tmp_path / "out", plugins=(TOY_PLUGIN, BEASTS))


@pytest.mark.parametrize("animals", groups(ANIMALS))
def test_the_zoo_does_nothing_to_others_from_a_worker(
    animals: list[str], in_process: Path, toy_suite: dict[str, Any], trials: Trials, tmp_path: Path
) -> None:
    suite = toy_suite | {"scorers": [*animals, *FIRST_PARTY], "limits": PATIENT}
    run_suite(suite, tmp_path / "out", plugins=(TOY_PLUGIN, ZOO))
    assert numbers(tmp_path / "out", FIRST_PARTY) == numbers(in_process, FIRST_PARTY)
    errors = {scorer: r["error"] for (scorer, _), r in records_of(tmp_path / "out").items()}
    for animal in animals:
        if animal in zoo.TO_THE_MODEL:
            assert "changed the model" in errors[animal]
        if animal == "exits_in_score":
            assert errors[animal] == "called sys.exit(0)"
    trials.add(len(animals))


def double(state: dict[str, Any], value: Any) -> Any:
    state["calls"] = state.get("calls", 0) + 1
    return 2 * value


def change(_state: dict[str, Any], value: Any) -> None:
    value[:] = 7


def asks(_state: dict[str, Any], function: Any) -> Any:
    return function(3) + 1


def raises(_state: dict[str, Any]) -> None:
    raise ValueError("two\nlines")


def test_a_worker_gets_copies_and_asks_for_what_stays() -> None:
    worker = Worker(Limits())
    tensor = torch.arange(3.0)
    assert torch.equal(worker.call(double, tensor), 2 * tensor)
    worker.call(change, tensor)
    assert torch.equal(tensor, torch.arange(3.0))
    asked = []

    def here(value: int) -> int:
        asked.append(value)
        return 10 * value

    assert worker.call(asks, here) == 31
    assert asked == [3]
    with pytest.raises(WorkerError, match=r"^ValueError: two lines$"):
        worker.call(raises)
    assert worker.call(double, 4) == 8  # it goes on after an error


@pytest.mark.parametrize("error", [SystemExit(0), OSError("no such image")])
def test_what_a_function_raises_that_a_worker_asks_reaches_its_caller(error: BaseException) -> None:
    def fails(_value: int) -> None:
        raise error

    worker = Worker(Limits())
    with pytest.raises(WorkerError, match=r"called sys.exit\(0\)|no such image"):
        worker.call(asks, fails)
    assert worker.call(double, 4) == 8


def test_a_call_that_is_broken_off_leaves_no_answer_for_the_next_one() -> None:
    def stops(_value: int) -> None:
        raise KeyboardInterrupt

    worker = Worker(Limits())
    with pytest.raises(KeyboardInterrupt):
        worker.call(asks, stops)
    with pytest.raises(WorkerError, match="its call was broken off by KeyboardInterrupt"):
        worker.call(double, 4)


def test_a_script_without_a_guard_is_not_run_again(toy_suite: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "toy.toml").write_text(as_toml(toy_suite | {"limits": {"isolate": "foreign"}}))
    script = tmp_path / "script.py"
    script.write_text(
        "import harness\n"
        "print('here')\n"
        f"result = harness.run('toy.toml', out='out', plugins=[{str(TOY_PLUGIN)!r}], device='cpu')\n"
        "print(len(result) > 0)\n"
    )
    ran = subprocess.run(
        [sys.executable, script.name], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert ran.stdout.split() == ["here", "True"], ran.stderr
