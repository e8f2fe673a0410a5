"""The cache gives back what was put in, whole, or nothing."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.base.cache import Cache
from harness.base.errors import InputError


def put(cache: Cache, key: str, value: float = 1.0) -> None:
    with cache.writer(key) as writer:
        writer.array("logits", (4, 2), "<f4")[:] = value
        writer.array("layers/stage.1", (4, 3), "<f4")[:] = 2 * value


def test_arrays_come_back_memory_mapped_and_equal(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    put(cache, "k")
    arrays = cache.load("k")

    assert arrays is not None
    assert set(arrays) == {"logits", "layers/stage.1"}
    assert isinstance(arrays["logits"], np.memmap)
    np.testing.assert_array_equal(arrays["layers/stage.1"], np.full((4, 3), 2.0))


def test_an_absent_entry_is_none(tmp_path: Path) -> None:
    assert Cache(tmp_path).load("k") is None


def test_a_write_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    with pytest.raises(KeyboardInterrupt), cache.writer("k") as writer:
        writer.array("logits", (4, 2), "<f4")[:2] = 1
        raise KeyboardInterrupt
    assert cache.load("k") is None
    assert list((tmp_path / "features").iterdir()) == []


@pytest.mark.parametrize("damage", ["flip", "truncate", "remove", "meta", "list"])
def test_a_damaged_entry_is_removed_with_a_warning(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    cache = Cache(tmp_path)
    put(cache, "k")
    file = tmp_path / "features/k/logits.npy"
    content = file.read_bytes()
    if damage == "flip":
        file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif damage == "truncate":
        file.write_bytes(content[:-8])
    elif damage == "remove":
        file.unlink()
    else:
        (tmp_path / "features/k/meta.json").write_text("{" if damage == "meta" else "[]")

    assert cache.load("k") is None
    assert "cache entry k is damaged" in caplog.text
    put(cache, "k", 3.0)
    again = cache.load("k")
    assert again is not None
    assert again["logits"][0, 0] == 3.0


def test_the_first_of_two_writers_wins_and_neither_fails(tmp_path: Path) -> None:
    one, two = Cache(tmp_path), Cache(tmp_path)
    with one.writer("k") as first:
        first.array("logits", (1,), "<f4")[:] = 1
        with two.writer("k") as second:
            second.array("logits", (1,), "<f4")[:] = 2
    arrays = one.load("k")
    assert arrays is not None
    assert arrays["logits"][0] == 2  # the inner writer was done first
    assert [path.name for path in (tmp_path / "features").iterdir()] == ["k"]


def test_pruning_removes_what_was_not_used_lately(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    put(cache, "old")
    put(cache, "read")
    (cache.models / "trained").mkdir()
    long_ago = time.time() - 40 * 86400
    for entry in cache.entries():
        os.utime(entry.path, (long_ago, long_ago))
    cache.load("read")

    assert {entry.name for entry in cache.prune(days=30).removed} == {"old", "trained"}
    assert [entry.name for entry in cache.entries()] == ["read"]
    assert [entry.name for entry in cache.prune(days=0).removed] == ["read"]


def filled(root: Path, names: str) -> Cache:
    """Fill a cache with entries of equal size, used one day after the other, the first the longest ago."""
    cache, size = Cache(root), len(names)
    for number, name in enumerate(names):
        put(cache, name)
        used = time.time() - (size - number) * 86400
        os.utime(root / "features" / name, (used, used))
    return cache


def test_pruning_to_a_size_removes_the_least_recently_used(tmp_path: Path) -> None:
    cache = filled(tmp_path, "abcd")
    (size,) = {entry.bytes for entry in cache.entries()}
    assert cache.prune(room=4 * size).removed == []
    assert [entry.name for entry in cache.prune(room=2.5 * size).removed] == ["a", "b"]
    assert [entry.name for entry in cache.prune(days=1.5, room=2 * size).removed] == ["c"]
    assert [entry.name for entry in cache.prune(room=0).removed] == ["d"]


def test_what_a_process_uses_is_not_pruned(tmp_path: Path) -> None:
    cache = filled(tmp_path, "abc")
    with cache.in_use():
        time.sleep(0.02)  # the clock of some file systems is coarse
        cache.load("a")
        put(cache, "new")
        found = cache.prune(days=0)
        assert {entry.name for entry in found.removed} == {"b", "c"}
        assert {entry.name for entry in found.in_use} == {"a", "new"}
    assert {entry.name for entry in cache.prune(days=0).removed} == {"a", "new"}
    assert list((tmp_path / "users").iterdir()) == []


def test_the_mark_of_a_killed_process_holds_nothing(tmp_path: Path) -> None:
    code = (
        "import os, sys, pathlib; from harness.base.cache import Cache\n"
        "with Cache(pathlib.Path(sys.argv[1])).in_use(): os.kill(os.getpid(), 9)"
    )
    ended = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert ended.returncode == -9
    assert len(list((tmp_path / "users").iterdir())) == 1
    cache = filled(tmp_path, "a")
    os.utime(tmp_path / "features" / "a")
    assert [entry.name for entry in cache.prune(days=0).removed] == ["a"]
    assert list((tmp_path / "users").iterdir()) == []


def test_what_cannot_be_removed_is_not_counted_as_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = filled(tmp_path, "ab")
    rename = Path.rename

    def refused(path: Path, target: Path) -> Path:
        if path.name == "a":
            raise PermissionError(13, "Permission denied", str(path))
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", refused)
    found = cache.prune(days=0)
    assert [entry.name for entry in found.removed] == ["b"]
    assert [entry.name for entry in found.stuck] == ["a"]
    (tmp_path / "features" / "a" / "logits.npy").write_bytes(b"damaged")
    with pytest.raises(InputError, match=r"a' is damaged and cannot be removed\. Remove it, or name another"):
        cache.load("a")


def test_an_entry_of_another_user_is_read_without_writing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = filled(tmp_path, "a")

    def refused(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "utime", refused)
    monkeypatch.setattr(Path, "mkdir", refused)
    with cache.in_use():
        arrays = cache.load("a")
    assert arrays is not None
    assert arrays["logits"].tolist() == [[1, 1]] * 4
    with pytest.raises(
        InputError, match=r"the cache '.*' cannot be written: Permission denied\. Name another"
    ):
        put(cache, "b")
    monkeypatch.setattr(Path, "read_text", refused)
    with pytest.raises(InputError, match=r"a' cannot be read \(Permission denied\)\. Ask its owner"):
        cache.load("a")


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"the cache folder '.*file/c' cannot be written: .*--cache"):
        Cache(tmp_path / "file/c")
