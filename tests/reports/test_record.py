"""A record: read, written, and refused if it is none or too new."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.base.checksums import unsealed
from harness.base.errors import RecordsError
from harness.reports.record import Record
from harness.reports.records import read_records

ROOT = Path(__file__).parents[2]
LEAST = {
    "kind": "score", "suite": "s", "suite_digest": "d", "model": "m", "id": "digits", "seeds": {"model": 3},
    "data": {"id": None, "ood": None}, "cell_id": "c",
}  # fmt: skip


@pytest.mark.parametrize("folder", sorted(path.parent.name for path in ROOT.glob("results/*/records.jsonl")))
def test_folders_of_the_first_schema_are_read_whole(folder: str) -> None:
    """Every committed record comes out as it went in, but for the schema number that it did not have."""
    lines = (ROOT / "results" / folder / "records.jsonl").read_text().splitlines()
    records = read_records(ROOT / "results" / folder)
    assert len(records) == len({json.loads(line)["cell_id"] for line in lines}) > 0
    for line, record in zip(lines, records, strict=True):
        assert unsealed(record.line()) == unsealed(line) | {"schema": 1}


def test_keys_of_other_kinds_are_kept() -> None:
    record = Record.of({**LEAST, "gauge": "2.0"})
    assert record.extra == {"gauge": "2.0"}
    assert Record.of(json.loads(record.line())).line() == record.line()


def test_what_only_some_kinds_say_is_left_out_by_the_others() -> None:
    content = Record.of(LEAST).content()
    assert not {"probe", "estimator", "mixture", "by_stream", "facts", "needs"} & content.keys()
    assert Record.of({**LEAST, "facts": {}, "needs": []}).content().keys() >= {"facts", "needs"}


def test_a_place_has_the_shares_of_what_is_mixed() -> None:
    mixed = Record.of({**LEAST, "adapter": "tent", "protocol": "mixed", "mixture": {"percent": "0/50/50"}})
    assert mixed.place == ("m", "tent", "mixed 0/50/50")
    assert (mixed.seed, mixed.on, mixed.value("auroc")) == (3, "id", None)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (json.dumps({**LEAST, "schema": 2}), r"its schema is 2, and this version reads up to 1"),
        (json.dumps({"cell_id": "c"}), r"line 1 is damaged .*: the cell is measured again"),
        ("[]", r"line 1 is damaged"),
        ("{", r"line 1 is damaged"),
    ],
)
def test_what_is_no_record_is_named_with_its_line(line: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "records.jsonl").write_text(line + "\n")
    with pytest.raises(RecordsError, match=message):
        read_records(tmp_path)
