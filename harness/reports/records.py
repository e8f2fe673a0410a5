"""A run's folder, as it is read: its manifest, its journal of records, per-sample scores, and covariances for ranks.

What a run writes has checksums: a changed digit is refused, with the command that measures it again. Folders of older
versions have none, and are read as they are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from harness.base import checksums
from harness.base.digests import array_digest
from harness.base.errors import RecordsError, one_line, reason
from harness.reports.record import NewerSchemaError, Record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

MANIFEST = "run.json"
JOURNAL = "records.jsonl"
TIMINGS = "timings.jsonl"
PAIRED = "paired.json"
SCORES = "scores"
_OF_A_BLOCK = {"model", "seed", "adapter", "protocol", "group", "cells"}
_MOST_NAMED = 3  # cells in one message
_SEALED = f'"{checksums.KEY}":'.encode()  # within a string of JSON, the quotes would be escaped


def read_records(folder: Path) -> list[Record]:
    """Read a journal: the last line of each cell, in the order of the cells' first lines.

    A last line without a line break is incomplete after a crash, and is ignored.

    Raises RecordsError if there is no journal, and for a damaged line within it.
    """
    records, damaged = scan(folder)
    if damaged:
        raise RecordsError(
            f"{folder / JOURNAL}: {damaged[0]}. Run the suite again into this folder: the cell is measured again"
        )
    return records


def scan(folder: Path) -> tuple[list[Record], list[str]]:
    """Read a journal as `read_records` does, and list its damaged lines, with what is wrong with each.

    Raises RecordsError if there is no journal, or one of a newer version.
    """
    records: dict[str, Record] = {}
    damaged: list[str] = []
    is_sealed = (
        False  # lines of an older version have no checksum; those after one that has one must have theirs
    )
    for number, line in enumerate(whole_lines(_journal(folder)), start=1):
        try:
            record = Record.of(json_of(line, required=is_sealed))
        except NewerSchemaError as error:
            raise RecordsError(f"{folder / JOURNAL}: line {number}: {error}. Update ood-harness") from None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            why = one_line(error) if isinstance(error, ValueError) else "keys of a record are missing"
            damaged.append(f"line {number} is damaged ({why})")
        else:
            records[record.cell_id] = record
            is_sealed = is_sealed or _SEALED in line
    return list(records.values()), damaged


def _journal(folder: Path) -> bytes:
    path = folder / JOURNAL
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise RecordsError(
            f"{str(folder)!r} is no run's folder: it has no {JOURNAL}. Give a folder that `run` wrote, such as "
            "results/SUITE"
        ) from None
    except OSError as error:
        raise RecordsError(
            f"{path} cannot be read ({reason(error)}). Give a folder that `run` wrote"
        ) from None


def whole_lines(content: bytes) -> list[bytes]:
    """Split a file into its lines, without a last one that has no line break: it is torn."""
    return content.split(b"\n")[:-1]


def json_of(line: bytes, *, required: bool = False) -> dict[str, Any]:
    """Parse an object, and leave its checksum out. Raises ValueError if it is damaged, or lacks a required checksum."""
    try:
        return checksums.unsealed(line.decode(), required=required)
    except RecursionError:
        raise ValueError("it is too deep") from None


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
        return json_of(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise RecordsError(
            f"{path} cannot be read ({reason(error)}). Give a folder that `run` wrote"
        ) from None
    except ValueError as error:
        raise RecordsError(
            f"{path} is damaged ({one_line(error)}). Run the suite again: records are kept"
        ) from None


def read_scores(folder: Path, name: str) -> NDArray[np.float64] | None:
    """Read kept per-sample scores by the digest of their content; None if they are gone or damaged."""
    import numpy as np

    try:
        with (folder / SCORES / f"{name}.npy").open("rb") as file:
            scores: NDArray[np.float64] = np.load(file, allow_pickle=False)
            is_whole = not file.read(1)  # nothing follows
    except (OSError, ValueError, EOFError):
        return None
    return scores if is_whole and array_digest(scores) == name else None


def read_paired(folder: Path) -> list[dict[str, Any]]:
    """Read the scorers' AUROC covariances, by model, adapter, protocol, seed and group; [] if there are none."""
    blocks, damage = scan_paired(folder)
    if damage:
        raise RecordsError(
            f"{folder / PAIRED} is damaged ({damage}). Run the suite again: it is derived from kept scores"
        )
    return blocks


def scan_paired(folder: Path) -> tuple[list[dict[str, Any]], str]:
    """Read the covariances that are intact, and say what is damaged; "" if nothing is."""
    try:
        blocks, damaged = checksums.unsealed_list((folder / PAIRED).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return [], ""
    except (OSError, ValueError, RecursionError) as error:
        return [], one_line(error)
    if not all(block.keys() >= _OF_A_BLOCK for block in blocks):
        return [], "keys of a block are missing"
    return blocks, f"the checksums of {damaged} blocks differ" if damaged else ""
