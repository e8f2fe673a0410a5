"""A full disk, leftovers of killed processes, and caches that several users share."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
from journals import records_of
from toys import run_suite

from harness.base import cache as of_cache
from harness.base.cache import Cache, replacing, write_atomically
from harness.base.errors import InputError
from harness.cli import ending
from harness.reports.records import JOURNAL
from harness.reports.run_folder import RunFolder

pytestmark = pytest.mark.trials("faults")


def full(*_arguments: object) -> NoReturn:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_an_entry_has_its_blocks_before_it_is_mapped(tmp_path: Path) -> None:
    with Cache(tmp_path).writer("k") as writer:
        writer.array("logits", (1000, 100), "<f4")
        (file,) = tmp_path.glob("features/.k-*/logits.npy")
        assert 512 * file.stat().st_blocks >= 400_000  # a sparse file has none


def test_a_full_disk_under_the_cache_is_one_line_with_the_need(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(of_cache.os, "posix_fallocate", full)
    with (
        pytest.raises(InputError, match=r"needs 400\.[0-9] MB, and its disk has .* MB left \(No space left"),
        Cache(tmp_path).writer("k") as writer,
    ):
        writer.array("logits", (1_000_000, 100), "<f4")
    assert list((tmp_path / "features").iterdir()) == []


def test_a_run_whose_cache_is_full_goes_on_where_it_stopped(
    toy_suite: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(of_cache.os, "posix_fallocate", full)
        result = run_suite(toy_suite, tmp_path / "out")
        assert result.failed == result.cells == 9
        assert {"No space left on device" in r["error"] for r in records_of(tmp_path / "out").values()} == {
            True
        }
    again = run_suite(toy_suite, tmp_path / "out")
    assert again.failed == 0
    assert again.measured == 9


def test_a_full_disk_under_the_output_keeps_the_old_file_and_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "leaderboard.csv"
    target.write_text("old")
    with monkeypatch.context() as patched:
        patched.setattr(of_cache.os, "fsync", full)
        with pytest.raises(OSError, match="No space left") as raised:
            write_atomically(target, "new")
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]
    assert ending.explain(raised.value) == ending.USAGE
    said = capsys.readouterr().err
    assert str(target) in said
    assert said.count("\n") == 1


def test_a_run_removes_what_a_killed_one_left(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "scores"):
        folder.mkdir(exist_ok=True)
        with replacing(folder / "table.csv") as temporary:
            temporary.write_text("half")
            os.link(temporary, folder / f"{temporary.name[:-8]}01234567")
        (folder / ".gitignore").write_text("*")
    RunFolder(tmp_path).close()
    found = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert found == {"table.csv", ".gitignore", JOURNAL}


@pytest.mark.parametrize("umask", [0o022, 0o027, 0o002])
def test_entries_have_the_rights_of_the_users_umask(umask: int, tmp_path: Path) -> None:
    before = os.umask(umask)
    try:
        with Cache(tmp_path).writer("k") as writer:
            writer.array("logits", (4, 2), "<f4")[:] = 1
    finally:
        os.umask(before)
    entry = tmp_path / "features/k"
    assert stat.S_IMODE(entry.stat().st_mode) == 0o777 & ~umask
    assert stat.S_IMODE((entry / "logits.npy").stat().st_mode) == 0o666 & ~umask


def test_an_entry_whose_time_cannot_be_set_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_arguments: object) -> NoReturn:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    cache = Cache(tmp_path)
    with cache.writer("k") as writer:
        writer.array("logits", (4, 2), "<f4")[:] = 1
    monkeypatch.setattr(of_cache.os, "utime", refused)
    arrays = cache.load("k")
    assert arrays is not None
    np.testing.assert_array_equal(arrays["logits"], np.ones((4, 2)))
