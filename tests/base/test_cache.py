"""The cache gives back what was put in, whole, or nothing."""

from __future__ import annotations

import os
import time
from pathlib import Path

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

    assert {entry.name for entry in cache.prune(days=30)} == {"old", "trained"}
    assert [entry.name for entry in cache.entries()] == ["read"]
    assert [entry.name for entry in cache.prune(days=0)] == ["read"]


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"the cache folder '.*file/c' cannot be written: .*--cache"):
        Cache(tmp_path / "file/c")
