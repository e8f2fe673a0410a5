"""A run that is killed, wherever and whenever, ends right when it is started again, to the byte."""

from __future__ import annotations

import gc
import random
import signal
from pathlib import Path

import pytest
from children import in_child
from disturbed import BLOCKS, SUITES, Subject
from faults import FileOperations, Stopped
from trials import Trials, some

pytestmark = pytest.mark.trials("kills")

DRAWN = 5  # kills by block and suite at random times
SEED = 15


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("suite", SUITES)
def test_a_run_that_is_killed_at_an_operation_on_files_ends_as_if_nothing_had_happened(
    suite: str, block: int, undisturbed: dict[str, Subject], trials: Trials, tmp_path: Path
) -> None:
    expected = undisturbed[suite]
    for at in some(expected.points(block), 1):
        subject = expected.again_in(tmp_path / str(at))
        with pytest.MonkeyPatch.context() as patched:
            FileOperations(patched, subject.folder, stop_at=at)
            with pytest.raises(Stopped):
                subject.run()
        gc.collect()  # releases the lock, as the end of the process would
        subject.run()
        assert subject.numbers() == expected.numbers(), f"killed at operation {at}"
        assert subject.leftovers() == []
        trials.add()


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("suite", SUITES)
def test_a_run_that_is_killed_at_any_time_ends_as_if_nothing_had_happened(
    suite: str, block: int, undisturbed: dict[str, Subject], trials: Trials, tmp_path: Path
) -> None:
    expected = undisturbed[suite]
    draw = random.Random(SEED + block)
    for number in some(range(DRAWN), 1):
        when = draw.uniform(0, expected.seconds)
        subject = killed(expected, when, tmp_path / str(number))
        subject.run()
        assert subject.numbers() == expected.numbers(), f"killed after {when:.3f} s"
        assert subject.leftovers() == []
        trials.add()


def killed(expected: Subject, when: float, folder: Path) -> Subject:
    """Run in a child that is killed after so many seconds, or sooner if it ends before them."""
    subject = expected.again_in(folder)
    if in_child(subject.exit_code, kill_after=when).code == -signal.SIGKILL:
        return subject
    return killed(expected, 0.8 * when, folder / "again")
