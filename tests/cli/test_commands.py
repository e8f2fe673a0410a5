"""The command line: what it prints, where, and how it exits."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from toys import TOY_PLUGIN, as_toml
from typer.testing import CliRunner

from harness import cli


@pytest.fixture
def suite_file(toy_suite: dict[str, Any], tmp_path: Path) -> Path:
    path = tmp_path / "toy.toml"
    path.write_text(as_toml(toy_suite))
    return path


def call(*arguments: object, monkeypatch: pytest.MonkeyPatch) -> int:
    """Run the command line in this process and return its exit status."""
    monkeypatch.setattr(sys, "argv", ["ood-harness", *map(str, arguments)])
    with pytest.raises(SystemExit) as exit_:
        cli.main()
        raise SystemExit(0)
    return int(exit_.value.code or 0)


def test_a_run_prints_the_board_and_exits_0(
    suite_file: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    status = call("run", suite_file, "--plugin", TOY_PLUGIN, "--device", "cpu", monkeypatch=monkeypatch)
    output = capfd.readouterr()
    assert status == 0
    assert "toy: group means" in output.out
    assert "from_train" in output.out
    assert "9 cells, 9 measured now, 0 failed; 200 images decoded, 200 forwarded" in output.err
    expected = {"run.json", "records.jsonl", "timings.jsonl", "scores", "scores.parquet", "paired.json"}
    expected |= {f"leaderboard.{ending}" for ending in ("csv", "md", "parquet")}
    assert {path.name for path in Path("results/toy").iterdir()} == expected


def test_failed_cells_exit_1_after_the_others_are_done(
    toy_suite: dict[str, Any],
    suite_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    toy_suite["scorers"].append("raises")
    suite_file.write_text(as_toml(toy_suite))
    assert call("run", suite_file, "--plugin", TOY_PLUGIN, monkeypatch=monkeypatch) == 1
    output = capfd.readouterr()
    assert "12 cells, 9 measured now, 3 failed" in output.err
    told = " ".join(output.out.split())  # the terminal breaks lines
    assert "3 cells failed: ZeroDivisionError: by design (raises on bright with network (seed 0), " in told


def test_a_plugin_with_a_problem_exits_1_though_every_cell_has_a_number(
    suite_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "broken.py"
    broken.write_text(
        "import harness\n@harness.hookimpl\ndef harness_scorers():\n    raise OSError('by design')\n"
    )
    status = call("run", suite_file, "--plugin", TOY_PLUGIN, "--plugin", broken, monkeypatch=monkeypatch)
    assert status == 1
    assert "plugin file:broken.py: harness_scorers raised OSError: by design" in capfd.readouterr().err
    assert json.loads(Path("results/toy/run.json").read_text())["problems"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "digts"], "no suite named 'digts'. Did you mean 'digits'?"),
        (["run", "digits", "--limit", "0"], "--limit 0 leaves no samples. Give 1 or more"),
        (["run", "digits", "--device", "cuda:99"], "the device 'cuda:99' is not there. Valid: auto, cpu"),
        (["run", "digits", "--plugin", "absent.py"], "the plugin file 'absent.py' does not exist"),
        (["leaderboard", "absent"], "'absent' is no run's folder"),
        (["plugins", "--kind", "scorers"], "no kind named 'scorers'. Did you mean 'scorer'?"),
    ],
)
def test_bad_input_is_one_line_and_exits_2(
    arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert call(*arguments, monkeypatch=monkeypatch) == 2
    error = capfd.readouterr().err
    assert message in error
    assert len(error.strip().splitlines()) == 1


def test_a_dry_run_says_what_would_run_and_writes_nothing(
    suite_file: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert call("run", suite_file, "--plugin", TOY_PLUGIN, "--dry-run", monkeypatch=monkeypatch) == 0
    assert "suite toy: 1 models × 3 scorers × 3 sets" in capfd.readouterr().out
    assert not Path("results").exists()


def dry_run(
    suite: dict[str, Any], path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> tuple[int, str, str]:
    path.write_text(as_toml(suite))
    status = call(
        "run", path, "--plugin", TOY_PLUGIN, "--dry-run", "--device", "cpu", monkeypatch=monkeypatch
    )
    output = capfd.readouterr()
    return status, output.out, output.err


def test_a_dry_run_counts_images_passes_and_the_memory_of_features(
    toy_suite: dict[str, Any],
    suite_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    toy_suite["id"] = {
        "dataset": "digits",
        "classes": [0, 1, 2, 3, 4],
        "test": {"split": "test", "limit": 50},
    }
    toy_suite["id"] |= {"train": {"split": "train", "limit": 100}}
    toy_suite["ood"] = [{"name": "noise", "dataset": "uniform", "group": "far", "limit": 40}]
    toy_suite["models"] = [{"recipe": "digits-mlp"}]
    toy_suite["scorers"] = ["msp", "knn", "gradient", "whole"]
    status, out, _ = dry_run(toy_suite, suite_file, monkeypatch, capfd)
    assert status == 0
    assert "ID images: test 50, train 100" in out
    assert "noise (far, 40 images)" in out
    # knn reads train: 50 + 40 + 100. One stream per seed of five, half and half: 40 + 40 images.
    assert "digits-mlp (seed 0): 190 images, 1 pass over all images" in out
    assert "gradient (gradients) forwards 90 more" in out
    assert "whole (adapts) forwards 400 more" in out
    columns = 5 + 64  # classes and the penultimate layer's width
    assert f"190 rows × {columns} columns × 4 bytes = {190 * columns * 4 / 1000:.3g} kB" in out
    assert "ms per image" in out
    assert "without training, scoring, and less" in out
    assert not Path("results").exists()
    assert not list((Path.cwd() / "cache").glob("models/*")), "something was trained"


def test_a_dry_run_measures_a_checkpoint_and_says_what_it_cannot_measure(
    toy_suite: dict[str, Any],
    suite_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    status, out, _ = dry_run(toy_suite, suite_file, monkeypatch, capfd)
    assert status == 0
    assert "features and time: not measured, since the model may be trained when it is built" in out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"models": [{"checkpoint": "absent"}]}, "absent"),
        ({"ood": [{"name": "gone", "dataset": "hf:no-such-folder", "group": "far"}]}, "no-such-folder"),
    ],
)
def test_a_dry_run_of_what_is_not_there_is_one_line_and_exits_2(
    change: dict[str, Any],
    message: str,
    toy_suite: dict[str, Any],
    suite_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    status, _, err = dry_run(toy_suite | change, suite_file, monkeypatch, capfd)
    assert status == 2
    assert message in err
    assert len(err.strip().splitlines()) == 1


def test_a_limited_run_has_a_folder_of_its_own(
    suite_file: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert call("run", suite_file, "--plugin", TOY_PLUGIN, "--limit", 10, monkeypatch=monkeypatch) == 0
    assert "50 images decoded" in capfd.readouterr().err
    assert [path.name for path in Path("results").iterdir()] == ["toy-limit-10"]


@pytest.mark.parametrize("form", ["table", "md", "csv", "json", "latex"])
def test_the_board_is_printed_in_every_format(
    form: str, suite_file: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    call("run", suite_file, "--plugin", TOY_PLUGIN, monkeypatch=monkeypatch)
    capfd.readouterr()
    assert call("leaderboard", "results/toy", "--format", form, monkeypatch=monkeypatch) == 0
    output = capfd.readouterr().out
    assert "from" + ("\\_" if form == "latex" else "_") + "train" in output
    assert form != "json" or len(json.loads(output)["rows"]) == 3


def test_plugins_lists_what_is_offered_with_its_origin(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert call("plugins", "--kind", "scorer", "--json", monkeypatch=monkeypatch) == 0
    listed = {row["name"]: row for row in json.loads(capfd.readouterr().out)["plugins"]}
    assert listed["knn"]["plugin"] == "ood-harness:knn"
    assert listed["knn"]["needs"] == ["penultimate", "train"]
    assert call("plugins", monkeypatch=monkeypatch) == 0
    assert "hf:" in capfd.readouterr().out


def test_the_cache_is_shown_and_pruned(
    suite_file: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    call("run", suite_file, "--plugin", TOY_PLUGIN, monkeypatch=monkeypatch)
    capfd.readouterr()
    assert call("cache", monkeypatch=monkeypatch) == 0
    assert "features: 5 entries" in capfd.readouterr().out
    assert call("cache", "--prune", "--limit", "1GB", monkeypatch=monkeypatch) == 0
    assert "removed 0 entries, 0 B" in capfd.readouterr().out
    for wrong, message in (
        (
            ("--prune", "--limit", "much"),
            "'much' is no size. Write a number and B, kB, MB, GB or TB, as in 50GB",
        ),
        (("--limit", "1GB"), "--days and --limit say what to remove. Give --prune too"),
    ):
        assert call("cache", *wrong, monkeypatch=monkeypatch) == 2
        assert capfd.readouterr().err == f"ood-harness: {message}\n"
    assert call("cache", "--prune", "--limit", "0 B", monkeypatch=monkeypatch) == 0
    assert "removed 5 entries" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import harness", {"torch", "timm", "datasets", "sklearn", "pandas"}),
        ("from harness.cli import main; main()", {"torch", "timm", "datasets", "sklearn", "pandas"}),
        (
            "from harness.contract.registry import Registry; assert Registry.load().names('scorer')",
            {"torch", "timm", "sklearn"},
        ),
        ("from harness.cli import main; sys.argv = ['it', 'plugins']; main()", {"torch", "timm", "sklearn"}),
        (
            "import harness.reports.leaderboard, harness.reports.board_text",
            {"torch", "timm", "datasets", "sklearn"},
        ),
    ],
)
def test_light_commands_import_nothing_heavy(statement: str, absent: set[str]) -> None:
    """`import harness`, `--help`, listing plugins and the board pay for no network library."""
    code = (
        "import atexit, sys\n"
        "sys.argv = ['ood-harness', '--help']\n"
        f"atexit.register(lambda: print('LOADED', sorted({absent!r} & set(sys.modules))))\n"
        f"{statement}\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "LOADED []"


def test_the_leaderboard_of_a_finished_run_needs_no_torch(
    suite_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    call("run", suite_file, "--plugin", TOY_PLUGIN, monkeypatch=monkeypatch)
    code = (
        "import sys\nfrom pathlib import Path\nfrom harness.reports.leaderboard import leaderboard\n"
        "board = leaderboard([Path('results/toy')])\n"
        "print(len(board.frame), 'torch' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert done.stdout.split() == ["3", "False"]


def test_help_shows_brackets_as_they_are_written(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert call("train", "--help", monkeypatch=monkeypatch) == 0
    shown = " ".join(capfd.readouterr().out.split())
    assert "Train on this suite's [id]. Default: the recipe's [data]." in shown


def test_the_version_is_that_of_the_package() -> None:
    shown = CliRunner().invoke(cli.app, ["--version"])
    assert (shown.exit_code, shown.stdout) == (0, f"ood-harness {metadata.version('ood-harness')}\n")
