"""The one reader of journals in the tests: plain JSON, so that no expected value comes through the code under test."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def without_checksum(content: dict[str, Any]) -> dict[str, Any]:
    """Return the content as an older version wrote it: a test may change it and write it again."""
    return {key: value for key, value in content.items() if key != "checksum"}


def read_journal(folder: Path) -> list[dict[str, Any]]:
    """Read a finished run's records, without their checksums."""
    lines = (folder / "records.jsonl").read_text().splitlines()
    return [without_checksum(json.loads(line)) for line in lines]


def records_of(folder: Path, kind: str = "score") -> dict[tuple[str, str], dict[str, Any]]:
    """Read the records of one kind by scorer and set."""
    return {(r["scorer"], r["ood"]): r for r in read_journal(folder) if r["kind"] == kind}


def all_records(out: Path) -> dict[str, Any]:
    """Read what every cell measured, by its ID."""
    said = ("kind", "metrics", "facts", "variants", "scores", "flags", "error", "n_id", "n_ood", "by_stream")
    return {record["cell_id"]: {key: record.get(key) for key in said} for record in read_journal(out)}
