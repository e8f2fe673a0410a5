"""A run's folder, as a run writes it.

A record is one line, appended and flushed to disk, so a crash loses at most the cell in progress. The last line of a
cell counts. Times are in a file of their own, so a repeated run writes the same records. What was damaged since the
last run is named, left out, and measured or derived again.
"""

from __future__ import annotations

import datetime
import io
import json
import logging
import os
import shlex
import socket
import sys
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from harness.base import checksums
from harness.base.cache import remove_leftovers, sync, write_atomically
from harness.base.digests import array_digest
from harness.base.errors import InputError, RecordsError, reason, shortened
from harness.reports.record import SCORE, Record
from harness.reports.records import (
    JOURNAL,
    MANIFEST,
    PAIRED,
    SCORES,
    TIMINGS,
    json_of,
    read_manifest,
    read_scores,
    scan,
    scan_paired,
    whole_lines,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    import numpy as np
    from filelock import FileLock
    from numpy.typing import NDArray

logger = logging.getLogger("ood_harness")

_LOCK = ".lock"
_HOLDER = ".holder"  # says who holds the lock; the kernel releases the lock of a process that has ended
_MOST_NAMED = 3  # damaged lines in one message
_TIMINGS_KEPT = 10  # the last lines of each piece of work


def require_place(path: Path, suite: str, digest: str) -> None:
    """Raise InputError for a folder that a run of the suite cannot write to. Nothing is written."""
    try:
        path.stat()
        nearest = path
    except (FileNotFoundError, NotADirectoryError):
        nearest = next(place for place in path.absolute().parents if place.exists())
    except (OSError, ValueError) as error:
        raise InputError(
            f"the run's folder {str(path)!r} cannot be written: {reason(error)}. Name another with --out"
        ) from None
    if not nearest.is_dir() or not os.access(nearest, os.W_OK):
        why = "no permission" if nearest.is_dir() else f"{nearest} is a file"
        raise InputError(f"the run's folder {str(path)!r} cannot be written: {why}. Name another with --out")
    if (path / JOURNAL).exists():
        _require_suite(path, scan(path)[0], suite, digest)


def _require_suite(path: Path, records: Iterable[Record], suite: str, digest: str) -> None:
    for record in records:
        if (record.suite, record.suite_digest) != (suite, digest):
            raise InputError(
                f"the folder {str(path)!r} holds records of suite {record.suite} ({record.suite_digest[:8]}), "
                f"this run is {suite} ({digest[:8]}). Name another with --out"
            )


class RunFolder:
    """The folder of one run, opened for writing. Its content is kept."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            (path / SCORES).mkdir(parents=True, exist_ok=True)
            with (path / JOURNAL).open("ab"):
                pass
        except OSError as error:
            raise InputError(
                f"the run's folder {str(path)!r} cannot be written: {error.strerror}. Name another with --out"
            ) from None
        self._lock = self._locked()
        self._forgotten: set[str] = set()
        self._intact: dict[str, bool] = {}  # kept scores, by their digest
        try:
            write_atomically(path / _HOLDER, json.dumps(_this_process()))
            for place in (path, path / SCORES):
                remove_leftovers(place)
            self._keeps_scores = any((path / SCORES).glob("*.npy"))
            self.records = {record.cell_id: record for record in self._healed_journal()}
            self._heal_paired()
            self._heal_manifest()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let other runs into the folder."""
        try:
            (self.path / _HOLDER).unlink(missing_ok=True)
            (self.path / _LOCK).unlink(missing_ok=True)
        finally:
            self._lock.release()

    def _locked(self) -> FileLock:
        """Keep other runs out, until `close` or the end of the process: two at once would lose each other's ranks."""
        from filelock import FileLock, Timeout

        lock = FileLock(self.path / _LOCK, timeout=0)
        try:
            lock.acquire()
        except Timeout:
            raise InputError(
                f"another run{_holder(self.path)} is writing to {str(self.path)!r}. Wait until it ends, or name "
                "another with --out"
            ) from None
        except NotImplementedError:  # a file system without locks
            pass
        return lock

    def require_suite(self, name: str, digest: str) -> None:
        """Raise InputError if the folder holds records of another suite, which must not share a board."""
        _require_suite(self.path, self.records.values(), name, digest)

    def is_done(self, cell_id: str, code_id: str) -> bool:
        """Return whether the cell was measured without an error by the same code on the same input.

        A cell whose kept scores are damaged or lost is not done; a folder that keeps none, such as a committed one, is.
        """
        record = self.records.get(cell_id)
        is_same = record is not None and record.error is None and record.code_id == code_id
        return is_same and all([self._is_kept(name) for name in _kept_scores(self.records[cell_id])])

    def _is_kept(self, name: str) -> bool:
        """Return whether kept scores are as they were written. If not, this is logged, once."""
        if name not in self._intact:
            self._intact[name] = not self._keeps_scores or read_scores(self.path, name) is not None
            if not self._intact[name]:
                path = self.path / SCORES / f"{name}.npy"
                what = "damaged" if path.exists() else "gone"
                logger.warning("the scores %s are %s: their cells are measured again", path, what)
                path.unlink(missing_ok=True)
        return self._intact[name]

    def append(self, record: Record) -> None:
        """Write a record to the journal; it is on the disk when this returns."""
        with (self.path / JOURNAL).open("a", encoding="utf-8") as file:
            file.write(record.line())
            file.flush()
            os.fsync(file.fileno())
        self.records[record.cell_id] = record

    def forget_error(self, cell_id: str) -> None:
        """Leave a cell's error out of the sorted journal, because the cell does not apply."""
        if cell_id in self.records and self.records[cell_id].error is not None:
            self._forgotten.add(cell_id)
            del self.records[cell_id]

    def append_timings(self, timings: Iterable[Mapping[str, object]]) -> None:
        """Add lines to the times of this run."""
        with (self.path / TIMINGS).open("a", encoding="utf-8") as file:
            file.writelines(_line(checksums.seal(timing)) for timing in timings)

    def save_scores(self, scores: NDArray[np.float64]) -> str:
        """Store per-sample scores under the digest of their content, and return the digest."""
        import numpy as np

        name = array_digest(scores)
        target = self.path / SCORES / f"{name}.npy"
        if not target.exists():
            buffer = io.BytesIO()
            np.save(buffer, scores, allow_pickle=False)
            write_atomically(target, buffer.getvalue())
        return name

    def write_manifest(self, manifest: Mapping[str, object]) -> None:
        """Write run.json."""
        write_atomically(self.path / MANIFEST, json.dumps(checksums.seal(manifest), indent=2) + "\n")

    def write_paired(self, blocks: list[dict[str, Any]]) -> None:
        """Write blocks to paired.json; they replace those of the same model, seed, adapter, protocol and group."""
        kept, _ = scan_paired(self.path)
        merged = {_block_place(block): block for block in (*kept, *blocks)}
        lines = ",\n".join(json.dumps(checksums.seal(merged[place])) for place in sorted(merged))
        write_atomically(self.path / PAIRED, f"[\n{lines}\n]\n")

    def finish(self) -> None:
        """Rewrite the journal with one line per cell, sorted, so that equal runs have equal bytes; then tidy up."""
        read, _ = scan(self.path)
        self.records = {
            record.cell_id: record
            for record in read
            if record.error is None or record.cell_id not in self._forgotten
        }
        ordered = sorted(self.records.values(), key=lambda record: record.order)
        write_atomically(self.path / JOURNAL, "".join(record.line() for record in ordered))
        sync(self.path)
        self._remove_unnamed_scores()
        self._shorten_timings()

    def _remove_unnamed_scores(self) -> None:
        """Remove the scores that no record names: of code, data or cells that changed since."""
        named = {name for record in self.records.values() for name in (record.scores or {}).values()}
        for path in (self.path / SCORES).glob("*.npy"):
            if path.stem not in named:
                path.unlink(missing_ok=True)

    def _shorten_timings(self) -> None:
        """Keep the last lines of each piece of work: a run every night would else add to the file without end."""
        path = self.path / TIMINGS
        content = path.read_bytes() if path.exists() else b""
        by_work: dict[tuple[object, ...], list[bytes]] = {}
        for line in whole_lines(content):
            try:
                timing = json_of(line)
            except ValueError as error:
                logger.warning("%s: a line is damaged (%s) and is left out", path, error)
                continue
            work = tuple(timing.get(key) for key in ("model", "seed", "stage", "scorer", "set"))
            by_work.setdefault(work, []).append(line + b"\n")
        kept = b"".join(line for lines in by_work.values() for line in lines[-_TIMINGS_KEPT:])
        if len(kept) < len(content):
            write_atomically(path, kept)

    def _healed_journal(self) -> list[Record]:
        """Read the journal; take damaged lines and a torn last one out of the file."""
        path = self.path / JOURNAL
        records, damaged = scan(self.path)
        content = path.read_bytes()
        if damaged and not records and checksums.KEY.encode() not in content:
            raise RecordsError(f"{path} is no journal of a run: {damaged[0]}. Name another folder with --out")
        if damaged:
            logger.warning("%s: %s: measured again", path, shortened(damaged, _MOST_NAMED))
        is_torn = not content.endswith(b"\n")
        if damaged or (content and is_torn):
            write_atomically(path, "".join(record.line() for record in records))
        return records

    def _heal_paired(self) -> None:
        """Take damaged covariances out of the file; they are derived again from the scores."""
        _, damage = scan_paired(self.path)
        if damage:
            logger.warning("%s is damaged (%s): it is derived again", self.path / PAIRED, damage)
            self.write_paired([])

    def _heal_manifest(self) -> None:
        """Remove a damaged manifest; the run writes another."""
        try:
            read_manifest(self.path)
        except RecordsError:
            path = self.path / MANIFEST
            logger.warning("%s is damaged: it is written again, without what this run does not know", path)
            path.unlink()


def _this_process() -> dict[str, object]:
    since = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    command = shlex.join([PurePath(sys.argv[0]).name, *sys.argv[1:]])
    return {"process": os.getpid(), "host": socket.gethostname(), "since": since, "command": command}


def _holder(folder: Path) -> str:
    """Describe the process that holds a folder's lock; "" if it does not say, since it has only just come."""
    try:
        said = json.loads((folder / _HOLDER).read_text(encoding="utf-8"))
        return f" (process {said['process']} on {said['host']}, since {said['since']}: {said['command']})"
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _kept_scores(record: Record) -> Iterable[str]:
    """Return the names of a record's scores in the folder. Of streams there are none."""
    is_kept = record.kind == SCORE and record.scores and not record.by_stream
    return record.scores.values() if record.scores and is_kept else ()


def _block_place(block: Mapping[str, Any]) -> tuple[str, int, str, str, str]:
    return block["model"], block["seed"], block["adapter"], block["protocol"], block["group"]


def _line(value: Mapping[str, object]) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False) + "\n"
