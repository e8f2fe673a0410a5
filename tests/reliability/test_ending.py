"""Whatever ends a command early, the exit code and one line say so."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import typer
from journals import records_of
from toys import TOY_PLUGIN, as_toml

from harness.base.errors import InputError, Terminated
from harness.cli import ending

SLOW = """
import time
from pathlib import Path
import harness

class Slow:
    def score(self, features):
        Path("begun").touch()
        while Path("slow").exists():
            time.sleep(0.1)
        return features.logits[:, 0]

@harness.hookimpl
def harness_scorers():
    yield harness.ScorerSpec("slow", Slow)
"""

LISTENING = """
import signal
from harness.cli.commands import main

signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background of a shell ignores Ctrl-C
main()
"""


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (InputError("no suite named 'x'"), 2, "no suite named 'x'"),
        (SystemExit(0), 1, "a plugin called sys.exit(0)"),
        (typer.Abort(), 130, "interrupted"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (Terminated(), 143, "terminated"),
    ],
)
def test_an_expected_end_is_one_line(
    error: BaseException, code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ending.explain(error) == code
    printed = capsys.readouterr().err
    assert printed.startswith(f"ood-harness: {said}")
    assert printed.count("\n") == 1


def test_a_defect_of_our_own_has_its_traceback_and_its_code(capsys: pytest.CaptureFixture[str]) -> None:
    try:
        _ = 1 / 0
    except ZeroDivisionError as error:
        assert ending.explain(error) == 70
    printed = capsys.readouterr().err
    assert "Traceback" in printed
    assert "please report the lines above" in printed.splitlines()[-1]


def test_a_reader_that_closes_its_pipe_is_no_fault() -> None:
    command = [sys.executable, "-m", "harness.cli", "plugins"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None and running.stderr is not None
        running.stdout.close()
        said = running.stderr.read()
    assert said == ""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_run_says_where_it_stands_and_goes_on(
    number: signal.Signals, code: int, toy_suite: dict[str, Any], tmp_path: Path
) -> None:
    plugin, suite, out = tmp_path / "slow.py", tmp_path / "toy.toml", tmp_path / "out"
    plugin.write_text(SLOW)
    suite.write_text(as_toml(toy_suite | {"scorers": ["level", "slow"]}))
    command = [sys.executable, "-c", LISTENING, "run", str(suite), "--out", str(out)]
    command += ["--plugin", str(TOY_PLUGIN), "--plugin", str(plugin)]
    (tmp_path / "slow").touch()
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as running:
        try:
            wait_for(tmp_path / "begun")
            running.send_signal(number)
            _, said = running.communicate(timeout=180)
        finally:
            running.kill()
    assert running.returncode == code, said
    assert "Traceback" not in said
    assert f"are kept in {out}. The same command goes on" in said

    (tmp_path / "slow").unlink()
    again = subprocess.run(command, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    assert not any(record["error"] for record in records_of(out).values())
    assert len(records_of(out)) == 2 * len(toy_suite["ood"])


def wait_for(sign: Path) -> None:
    """Wait until a file is there."""
    for _ in range(1800):
        if sign.exists():
            return
        time.sleep(0.1)
    raise AssertionError(f"{sign} is not there after three minutes")
