"""A run's folder: its manifest, its journal of records, per-sample scores, and the covariances for ranks.

A record is one line, appended and flushed to disk, so a crash loses at most the cell in progress. The last line of a
cell counts. Times are in a file of their own, so a repeated run writes the same records.
"""

from __future__ import annotations

import io
import json
import os
from typing import TYPE_CHECKING, Any

from harness.base.cache import remove_leftovers, sync, write_atomically
from harness.base.digests import array_digest
from harness.base.errors import InputError, RecordsError, one_line
from harness.reports.record import Record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    import numpy as np
    from filelock import FileLock
    from numpy.typing import NDArray

MANIFEST = "run.json"
JOURNAL = "records.jsonl"
TIMINGS = "timings.jsonl"
PAIRED = "paired.json"
SCORES = "scores"
_LOCK = ".lock"
_MOST_NAMED = 3  # cells in one message


def require_place(path: Path, suite: str, digest: str) -> None:
    """Raise InputError for a folder that a run of the suite cannot write to. Nothing is written."""
    nearest = next(place for place in (path, *path.absolute().parents) if place.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK):
        why = "no permission" if nearest.is_dir() else f"{nearest} is a file"
        raise InputError(f"the run's folder {str(path)!r} cannot be written: {why}. Name another with --out")
    if (path / JOURNAL).exists():
        _require_suite(path, read_records(path), suite, digest)


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
        try:
            for place in (path, path / SCORES):
                remove_leftovers(place)
            self.records = {record.cell_id: record for record in read_records(path)}
            self._drop_torn_line()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let other runs into the folder."""
        (self.path / _LOCK).unlink(missing_ok=True)
        self._lock.release()

    def _locked(self) -> FileLock:
        """Keep other runs out, until `close` or the end of the process: two at once would lose each other's ranks."""
        from filelock import FileLock, Timeout

        lock = FileLock(self.path / _LOCK, timeout=0)
        try:
            lock.acquire()
        except Timeout:
            raise InputError(
                f"another run is writing to {str(self.path)!r}. Wait until it ends, or name another with --out"
            ) from None
        except NotImplementedError:  # a file system without locks
            pass
        return lock

    def require_suite(self, name: str, digest: str) -> None:
        """Raise InputError if the folder holds records of another suite, which must not share a board."""
        _require_suite(self.path, self.records.values(), name, digest)

    def is_done(self, cell_id: str, code_id: str) -> bool:
        """Return whether the cell was measured without an error by the same code on the same input."""
        record = self.records.get(cell_id)
        return record is not None and record.error is None and record.code_id == code_id

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
            file.writelines(_line(timing) for timing in timings)

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
        write_atomically(self.path / MANIFEST, json.dumps(manifest, indent=2) + "\n")

    def write_paired(self, blocks: list[dict[str, Any]]) -> None:
        """Write blocks to paired.json; they replace those of the same model, seed, adapter, protocol and group."""
        merged = {_block_place(block): block for block in (*read_paired(self.path), *blocks)}
        lines = ",\n".join(json.dumps(merged[place]) for place in sorted(merged))
        write_atomically(self.path / PAIRED, f"[\n{lines}\n]\n")

    def finish(self) -> None:
        """Rewrite the journal with one line per cell, sorted, so that equal runs have equal bytes."""
        read = read_records(self.path)  # with those of other runs into the folder
        self.records = {
            record.cell_id: record
            for record in read
            if record.error is None or record.cell_id not in self._forgotten
        }
        ordered = sorted(self.records.values(), key=lambda record: record.order)
        write_atomically(self.path / JOURNAL, "".join(record.line() for record in ordered))
        sync(self.path)

    def _drop_torn_line(self) -> None:
        path = self.path / JOURNAL
        content = path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if whole != content:
            write_atomically(path, whole.decode())


def read_records(folder: Path) -> list[Record]:
    """Read a journal: the last line of each cell, in the order of the cells' first lines.

    A last line without a line break is incomplete after a crash, and is ignored.

    Raises RecordsError if there is no journal, and for a damaged line within it.
    """
    path = folder / JOURNAL
    try:
        content = path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        raise RecordsError(
            f"{str(folder)!r} is no run's folder: it has no {JOURNAL}. Give a folder that `run` wrote, such as "
            "results/SUITE"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise RecordsError(
            f"{path} cannot be read ({one_line(error)}). Give a folder that `run` wrote"
        ) from None
    records: dict[str, Record] = {}
    for number, line in enumerate(content.splitlines(keepends=True), start=1):
        if not line.endswith("\n"):
            break
        try:
            record = Record.of(json.loads(line))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            why = one_line(error) if isinstance(error, ValueError) else "keys of a record are missing"
            raise RecordsError(
                f"{path}: line {number} is damaged ({why}). Remove the line; its cell is run again"
            ) from None
        records[record.cell_id] = record
    return list(records.values())


def gathered(folders: Iterable[Path]) -> list[Record]:
    """Read the records of several runs; of a cell that several hold, the last one's counts.

    Raises RecordsError if two runs hold numbers of one cell that was measured differently, or models of one label and
    seed that differ: one table must not mix them.
    """
    found: dict[str, Record] = {}
    unlike: list[str] = []
    digests: dict[tuple[str, str], str] = {}  # by suite and model
    for folder in folders:
        manifest = read_manifest(folder)
        for title, model in manifest.get("models", {}).items():
            digest = model.get("digest", "")
            if digests.setdefault((manifest.get("suite", ""), title), digest) != digest:
                unlike.append(f"the model {title}")
        for record in read_records(folder):
            known = found.get(record.cell_id)
            if known and not known.error and not record.error and known.code_id != record.code_id:
                unlike.append(record.title)
            found[record.cell_id] = record
    if unlike:
        more = f", and {len(unlike) - _MOST_NAMED} more" if len(unlike) > _MOST_NAMED else ""
        raise RecordsError(
            f"the runs measured differently: {', '.join(unlike[:_MOST_NAMED])}{more}. Give runs of one version of "
            "models, data and code, or run the suite again into one folder"
        )
    return list(found.values())


def records_of(folders: Iterable[Path], kind: str, what: str) -> list[Record]:
    """Read the records of one kind in runs of one suite; if several runs hold a cell, the last one's counts.

    Raises RecordsError for runs of different suites, and without such records; `what` is their key in a suite.
    """
    named = list(folders)
    found = [record for record in gathered(named) if record.kind == kind]
    if not found:
        raise RecordsError(f"no {what} in {', '.join(map(str, named))}. Give the suite `{what}`, and run it")
    require_one_suite(found, what)
    return found


def failures(records: Iterable[Record], name: Callable[[Record], str]) -> list[str]:
    """List the failures among records in one line per model, seed, `name` and error, with the sets."""
    failed: dict[tuple[str, str], list[str]] = {}
    for r in records:
        if r.error:
            failed.setdefault((f"{r.model} (seed {r.seed}), {name(r)}", r.error), []).append(r.on)
    return [
        f"{place} failed on {', '.join(sorted(set(on)))}: {error}" for (place, error), on in failed.items()
    ]


def holds(folder: Path, kind: str) -> bool:
    """Return whether a run's folder holds a record of a kind."""
    return any(record.kind == kind for record in read_records(folder))


def require_one_suite(records: Iterable[Record], what: str) -> None:
    """Raise RecordsError for records of several suites or data, which must not share a table."""
    pairs = {(record.suite, record.suite_digest) for record in records}
    for place, kind in enumerate(("suites", "suite digests")):
        found = sorted({pair[place] for pair in pairs})
        if len(found) > 1:
            raise RecordsError(f"the {what} are of different {kind}: {', '.join(found)}. Give one at a time")


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read run.json; {} if there is none. Raises RecordsError for a damaged one."""
    path = folder / MANIFEST
    try:
        return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}
    except (OSError, ValueError):
        raise RecordsError(f"{path} is damaged. Run the suite again: records are kept") from None


def read_scores(folder: Path, name: str) -> NDArray[np.float64] | None:
    """Read kept per-sample scores by the digest of their content; None if they are gone or damaged."""
    import numpy as np

    try:
        scores: NDArray[np.float64] = np.load(folder / SCORES / f"{name}.npy", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return scores if array_digest(scores) == name else None


def read_paired(folder: Path) -> list[dict[str, Any]]:
    """Read the scorers' AUROC covariances, by model, adapter, protocol, seed and group; [] if there are none."""
    path = folder / PAIRED
    if not path.exists():
        return []
    try:
        blocks: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        raise RecordsError(
            f"{path} is damaged. Remove it and run the suite again: nothing else is lost"
        ) from None
    return blocks


def _block_place(block: Mapping[str, Any]) -> tuple[str, int, str, str, str]:
    return block["model"], block["seed"], block["adapter"], block["protocol"], block["group"]


def _line(value: Mapping[str, object]) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False) + "\n"
