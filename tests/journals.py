"""The one reader of journals in the tests: plain JSON, so that no expected value comes through the code under test."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def read_journal(folder: Path) -> list[dict[str, Any]]:
    """Read a finished run's records."""
    return [json.loads(line) for line in (folder / "records.jsonl").read_text().splitlines()]


def records_of(folder: Path, kind: str = "score") -> dict[tuple[str, str], dict[str, Any]]:
    """Read the records of one kind by scorer and set."""
    return {(r["scorer"], r["ood"]): r for r in read_journal(folder) if r["kind"] == kind}
