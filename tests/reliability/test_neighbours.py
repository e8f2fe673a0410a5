"""Runs beside each other: in one cache, and in one folder, at once and one after another."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from children import Ended, in_child
from disturbed import Subject
from journals import records_of
from toys import TOY_SUITE
from trials import Trials, some

pytestmark = pytest.mark.trials("neighbours")

SCORERS = ["level", "margin", "from_train", "needs_linear"]
PARTS = [  # every way to deal the scorers out to two, three or four runs
    list(parts)
    for count in (2, 3, 4)
    for owners in itertools.product(range(count), repeat=len(SCORERS))
    if sorted(set(owners)) == list(range(count)) and owners[0] == 0
    if (
        parts := [
            [s for s, owner in zip(SCORERS, owners, strict=True) if owner == part] for part in range(count)
        ]
    )
]


def scoring(scorers: list[str]) -> dict[str, Any]:
    return TOY_SUITE | {"scorers": scorers}


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    """All scorers in one run."""
    subject = Subject(tmp_path_factory.mktemp("together"), scoring(SCORERS))
    assert subject.run() == 0
    return subject


def at_once(works: list[Callable[[], int]]) -> list[Ended]:
    """Return how runs end that begin at once, each in a process of its own."""
    with ThreadPoolExecutor(len(works)) as pool:
        return list(pool.map(in_child, works))


@pytest.mark.parametrize("number", some(range(len(PARTS)), 3))
def test_runs_of_disjoint_scorers_share_a_cache_at_once_and_a_folder_one_after_another(
    number: int, together: Subject, tmp_path: Path
) -> None:
    parts = PARTS[number]
    runs = []
    for index, scorers in enumerate(parts):
        (tmp_path / str(index)).mkdir()
        (tmp_path / str(index) / "cache").symlink_to(tmp_path / "shared")
        runs.append(Subject(tmp_path / str(index), scoring(scorers)))
    (tmp_path / "shared").mkdir()

    ended = at_once([run.exit_code for run in runs])
    assert [(one.code, one.said) for one in ended] == [(0, "")] * len(parts)
    of_each = [records_of(run.out) for run in runs]
    assert {key: value for records in of_each for key, value in records.items()} == records_of(together.out)

    joint = replace(runs[0], folder=tmp_path / "joint")
    joint.folder.mkdir()
    for scorers in parts:
        replace(joint, suite=scoring(scorers)).run()
    assert records_of(joint.out) == records_of(together.out)
    assert (joint.out / "leaderboard.csv").read_bytes() == (together.out / "leaderboard.csv").read_bytes()


@pytest.mark.parametrize("count", [2, 3, 4])
def test_of_runs_into_one_folder_at_once_one_goes_on_and_the_others_are_told_whose_it_is(
    count: int, together: Subject, trials: Trials, tmp_path: Path
) -> None:
    for number in some(range(5), 1):
        subject = together.again_in(tmp_path / str(number))
        ended = at_once([subject.exit_code] * count)
        refused = [one for one in ended if one.code]
        assert len(refused) < count
        for one in refused:
            assert one.code == 2
            assert one.said.count("\n") == 1
            assert re.search(
                r"another run (\(process .*\) )?is writing to", one.said
            )  # it may have just begun
        assert subject.numbers() == together.numbers()
        trials.add()
