"""A run that is killed at any operation on files ends right when it is started again, to the byte."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import pytest
from faults import FileOperations, Stopped
from toys import run_suite

POINTS = 12  # spread over all operations of the run


def content(folder: Path) -> dict[str, bytes]:
    """Read the files that must not depend on when a run was killed."""
    named = ("records.jsonl", "paired.json", "leaderboard.csv", "leaderboard.md")
    scores = (f"scores/{path.name}" for path in sorted((folder / "scores").iterdir()))
    return {name: (folder / name).read_bytes() for name in (*named, *scores)}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, bytes], int]:
    """The files of a run that nothing disturbs, and the number of its operations."""
    from toys import TOY_SUITE

    folder = tmp_path_factory.mktemp("undisturbed")
    with pytest.MonkeyPatch.context() as patched:
        operations = FileOperations(patched)
        run_suite(TOY_SUITE, folder / "out", cache=folder / "cache")
    assert operations.count > 3 * POINTS
    return content(folder / "out"), operations.count


@pytest.mark.parametrize("point", range(POINTS))
def test_a_killed_run_ends_as_if_nothing_had_happened(
    point: int, undisturbed: tuple[dict[str, bytes], int], toy_suite: dict[str, Any], tmp_path: Path
) -> None:
    expected, count = undisturbed
    out, cache = tmp_path / "out", tmp_path / "own-cache"
    with pytest.MonkeyPatch.context() as patched:
        FileOperations(patched, stop_at=1 + point * (count - 1) // POINTS)
        with pytest.raises(Stopped):
            run_suite(toy_suite, out, cache=cache)
    gc.collect()  # releases the lock, as the end of the process would
    assert run_suite(toy_suite, out, cache=cache).succeeded
    assert content(out) == expected
    left = {path.name for path in out.iterdir() if path.name.startswith(".")}
    assert left <= {".lock", ".holder"}
