"""A cache of arrays on disk. The key of an entry is a digest of everything that its arrays depend on.

An entry is written under a temporary name, synced to disk and renamed, so it is either complete or absent. Checksums
are verified on read; a damaged entry is removed and counts as absent. Several runs may share a cache: the first writer
of an entry wins.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import math
import os
import re
import secrets
import shutil
import time
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.base.errors import InputError, reason
from harness.base.holding import Mark, held_since

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy as np
    from numpy.typing import NDArray

logger = logging.getLogger("ood_harness")

FEATURES = "features"
MODELS = "models"
_META = "meta.json"
_USERS = "users"  # marks of the processes that use the cache
_DAY = 86400.0
_TEMPORARY = re.compile(r"\..+\.\d+\.[0-9a-f]{8,16}")  # names that `beside` makes
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def default_root() -> Path:
    """Return the folder OOD_HARNESS_CACHE if it is set, else the user's cache folder."""
    import platformdirs

    named = os.environ.get("OOD_HARNESS_CACHE")
    return Path(named) if named else Path(platformdirs.user_cache_dir("ood-harness"))


@dataclass(frozen=True)
class Entry:
    """One entry of the cache, as `ood-harness cache` lists it."""

    kind: str
    name: str
    path: Path
    bytes: int
    last_used: float  # seconds since the epoch


@dataclass(frozen=True)
class Pruned:
    """What was due to be removed from a cache."""

    removed: list[Entry]
    in_use: list[Entry]  # they are kept: a process that runs may use them
    stuck: list[Entry]  # they cannot be removed


class Cache:
    """Named arrays, stored by key in one folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        try:
            self.models.mkdir(parents=True, exist_ok=True)
            (root / FEATURES).mkdir(exist_ok=True)
        except (OSError, ValueError) as error:
            raise InputError(
                f"the cache folder {str(root)!r} cannot be written: {reason(error)}. Name another with --cache"
            ) from None

    @contextlib.contextmanager
    def in_use(self) -> Iterator[None]:
        """Keep what is used within the block from being pruned, by whatever process."""
        try:
            mark = Mark(self.root / _USERS)
        except OSError:  # nobody can prune what cannot be written
            yield
            return
        try:
            yield
        finally:
            mark.remove()

    @property
    def models(self) -> Path:
        """The folder where trained models are kept."""
        return self.root / MODELS

    def load(self, key: str) -> dict[str, NDArray[Any]] | None:
        """Return an entry's arrays, memory-mapped; None if it is absent or damaged."""
        import numpy as np

        folder = self._folder(key)
        if not folder.exists():
            return None
        try:
            checksums = json.loads((folder / _META).read_text())["crc32"]
            for name, expected in checksums.items():
                if _crc32(folder / name) != expected:
                    raise ValueError(f"checksum of {name} differs")
            arrays: dict[str, NDArray[Any]] = {
                name.removesuffix(".npy").replace("%2F", "/"): np.load(
                    folder / name, mmap_mode="r", allow_pickle=False
                )
                for name in checksums
            }
        except PermissionError as error:
            raise InputError(
                f"the cache entry {str(folder)!r} cannot be read ({error.strerror}). Ask its owner for the right to "
                "read it, or name another cache with --cache"
            ) from None
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            logger.warning("cache entry %s is damaged (%s): it is computed again", key, error)
            if not removed(folder):
                raise InputError(
                    f"the cache entry {str(folder)!r} is damaged and cannot be removed. Remove it, or name another "
                    "cache with --cache"
                ) from None
            return None
        with contextlib.suppress(OSError):  # another run may have removed it, or another user may own it
            os.utime(folder)
        return arrays

    @contextlib.contextmanager
    def writer(self, key: str) -> Iterator[EntryWriter]:
        """Open a new entry for writing; it is published when the block ends without an error."""
        temporary = self.root / FEATURES / f".{key}-{secrets.token_hex(8)}"
        try:
            temporary.mkdir()  # with the rights that the user's umask gives, so that a shared cache can be shared
        except OSError as error:
            raise InputError(
                f"the cache {str(self.root)!r} cannot be written: {reason(error)}. Name another with --cache"
            ) from None
        try:
            writer = EntryWriter(temporary)
            yield writer
            writer.close()
            _publish(temporary, self._folder(key))
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def entries(self) -> list[Entry]:
        """List all entries, the least recently used first."""
        found = []
        for kind in (FEATURES, MODELS):
            for path in (self.root / kind).iterdir():
                with contextlib.suppress(FileNotFoundError):  # another run may publish or prune meanwhile
                    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
                    entry = Entry(kind, path.name, path, size, path.stat().st_mtime)
                    # A recent entry with a temporary name is still being written.
                    if not path.name.startswith(".") or entry.last_used < time.time() - _DAY:
                        found.append(entry)
        return sorted(found, key=lambda entry: (entry.last_used, entry.name))

    def prune(self, *, days: float = math.inf, room: float = math.inf, also: Sequence[Entry] = ()) -> Pruned:
        """Remove what was not used for so many days, and then the least recently used until `room` bytes suffice.

        Entries that are kept elsewhere may be pruned `also`. What was used since the first of the processes that use
        the cache began is kept; of those elsewhere nobody notes the use, so as long as a process runs, all are kept.
        """
        entries = sorted([*self.entries(), *also], key=lambda entry: (entry.last_used, entry.name))
        held = held_since(self.root / _USERS)
        limit, size = time.time() - days * _DAY, sum(entry.bytes for entry in entries)
        found = Pruned([], [], [])
        for entry in entries:
            if entry.last_used > limit and size <= room:
                break
            if entry.last_used >= held or (entry in also and math.isfinite(held)):
                found.in_use.append(entry)
            elif removed(entry.path):
                found.removed.append(entry)
                size -= entry.bytes
            else:
                found.stuck.append(entry)
        return found

    def _folder(self, key: str) -> Path:
        return self.root / FEATURES / key


class EntryWriter:
    """Writes the arrays of one entry piece by piece, through memory maps."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._arrays: dict[str, np.memmap[Any, Any]] = {}

    def array(self, name: str, shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
        """Create an array of the entry; the caller fills it."""
        import numpy as np

        path = self._folder / f"{name.replace('/', '%2F')}.npy"
        array = np.lib.format.open_memmap(path, mode="w+", dtype=np.dtype(dtype), shape=shape)
        _allocate(path)
        self._arrays[path.name] = array
        return array

    def close(self) -> None:
        """Write all arrays and their checksums to disk."""
        checksums = {}
        for name, array in self._arrays.items():
            array.flush()
            checksums[name] = _crc32(self._folder / name)
        self._arrays.clear()
        meta = self._folder / _META
        meta.write_text(json.dumps({"crc32": checksums}, sort_keys=True))
        for path in (*self._folder.iterdir(), self._folder):
            sync(path)


def beside(path: Path) -> Path:
    """Return a new temporary name beside a path, unique across processes and machines."""
    return path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(8)}")


def removed(folder: Path) -> bool:
    """Remove a folder; return whether it is gone. Nobody sees half of it, since it is renamed first."""
    aside = beside(folder)
    with contextlib.suppress(OSError):
        folder.rename(aside)
        shutil.rmtree(aside, ignore_errors=True)
    return not folder.exists()


def write_atomically(path: Path, content: str | bytes) -> None:
    """Replace a file's content: a reader sees the old or the new content, never a part."""
    with replacing(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield the path of a temporary file, which replaces the file when the block ends without an error."""
    temporary = beside(path)
    try:
        yield temporary
        sync(temporary)
        temporary.replace(path)
    except OSError as error:
        error.filename = error.filename or str(path)  # a failed write names none
        raise
    finally:
        with contextlib.suppress(OSError):  # the error above says more
            temporary.unlink(missing_ok=True)


def remove_leftovers(folder: Path) -> None:
    """Remove what `replacing` left behind in processes that were killed. Nobody may be writing to the folder."""
    for path in folder.iterdir():
        if _TEMPORARY.fullmatch(path.name):
            path.unlink(missing_ok=True)


def _allocate(path: Path) -> None:
    """Give a file its blocks on the disk: a write to a map without them would end the process if the disk is full.

    Raises InputError if the disk has no room.
    """
    if not hasattr(os, "posix_fallocate"):  # macOS, Windows
        return
    size = path.stat().st_size
    try:
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, size)
    except OSError as error:
        if error.errno not in FULL:  # a file system that cannot allocate, such as some networks'
            return
        free = shutil.disk_usage(path.parent).free
        raise InputError(
            f"the cache {str(path.parents[2])!r} needs {size / 1e6:.1f} MB, and its disk has {free / 1e6:.1f} MB "
            f"left ({error.strerror}). Free some, or name another with --cache"
        ) from None


def sync(path: Path) -> None:
    """Flush a file or a folder to disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _publish(temporary: Path, target: Path) -> None:
    try:
        temporary.rename(target)
    except OSError:
        if not target.exists():  # otherwise another run wrote the same entry first
            raise
    sync(target.parent)


def _crc32(path: Path) -> int:
    checksum = 0
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            checksum = zlib.crc32(block, checksum)
    return checksum
