"""A changed digit in a run's folder is noticed, named, and measured or derived again by the same command."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from typing import Any

import pytest
from journals import read_journal
from toys import TOY_PLUGIN, run_suite

from harness.base.checksums import seal, unsealed
from harness.base.errors import RecordsError
from harness.reports.records import read_manifest, read_paired, read_records, read_scores

pytestmark = pytest.mark.trials("faults")

SEED = 15


def with_another_digit(path: Path, at: int) -> None:
    """Change one digit of a file: a number stays a number."""
    text = bytearray(path.read_bytes())
    text[at] = ord("1") + (text[at] - ord("0")) % 9
    path.write_bytes(text)


def digits(path: Path) -> list[int]:
    """List the places of digits that belong to numbers and names, and follow another digit or a point."""
    return [found.start() for found in re.finditer(rb"(?<=[0-9.])[0-9]", path.read_bytes())]


@pytest.fixture
def ran(toy_suite: dict[str, Any], tmp_path: Path) -> Path:
    run_suite(toy_suite, tmp_path / "out")
    return tmp_path / "out"


def test_every_changed_digit_is_noticed(ran: Path) -> None:
    readers = {"records.jsonl": read_records, "paired.json": read_paired, "run.json": read_manifest}
    draw = random.Random(SEED)
    for name, read in readers.items():
        path = ran / name
        whole = path.read_bytes()
        for at in draw.sample(digits(path), 40):
            with_another_digit(path, at)
            if path.read_bytes() != whole:
                with pytest.raises(RecordsError, match=name):
                    read(ran)
            path.write_bytes(whole)
        read(ran)


def test_a_changed_record_is_measured_again(
    ran: Path, toy_suite: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    path = ran / "records.jsonl"
    whole = path.read_bytes()
    with_another_digit(path, whole.rindex(b'"value":0.') + len(b'"value":0.') + 2)
    again = run_suite(toy_suite, ran)
    assert again.measured == 1
    assert path.read_bytes() == whole
    assert [line for line in caplog.messages if "is damaged (its checksum differs): measured again" in line]


def test_covariances_are_derived_again(
    ran: Path, toy_suite: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    path = ran / "paired.json"
    whole = path.read_bytes()
    for damage in (
        lambda: with_another_digit(path, digits(path)[-1]),
        lambda: path.write_text("["),
        path.unlink,
    ):
        damage()
        assert run_suite(toy_suite, ran).measured == 0
        assert path.read_bytes() == whole
    assert sum("paired.json is damaged" in line for line in caplog.messages) == 2


def test_changed_scores_are_measured_again(ran: Path, toy_suite: dict[str, Any]) -> None:
    before = {path.name: path.read_bytes() for path in (ran / "scores").glob("*.npy")}
    journal = (ran / "records.jsonl").read_bytes()
    for name, whole in before.items():
        (ran / "scores" / name).write_bytes(whole[:-3] + b"\0\1\2")
        assert read_scores(ran, name.removesuffix(".npy")) is None
        assert run_suite(toy_suite, ran).measured > 0
        assert {path.name: path.read_bytes() for path in (ran / "scores").glob("*.npy")} == before
    assert (ran / "records.jsonl").read_bytes() == journal


def test_changed_rows_of_images_are_written_again(ran: Path, toy_suite: dict[str, Any]) -> None:
    (part,) = (ran / "scores").glob("*.parquet")
    whole, table = part.read_bytes(), (ran / "scores.parquet").read_bytes()
    for at in (100, len(whole) // 3, len(whole) // 2):
        part.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        assert run_suite(toy_suite, ran).measured == 0
        assert part.read_bytes() == whole
        assert (ran / "scores.parquet").read_bytes() == table


def test_a_damaged_manifest_is_written_again(ran: Path, toy_suite: dict[str, Any]) -> None:
    for text in ("{", "[]", '{"suite": "toy", "checksum": "0"}'):
        (ran / "run.json").write_text(text)
        with pytest.raises(RecordsError, match=r"run.json is damaged"):
            read_manifest(ran)
        assert run_suite(toy_suite, ran).measured == 0
        assert read_manifest(ran)["suite"] == "toy"


def test_folders_of_older_versions_have_no_checksums_and_are_read(
    ran: Path, toy_suite: dict[str, Any]
) -> None:
    journal, whole = ran / "records.jsonl", (ran / "records.jsonl").read_bytes()
    plain = read_journal(ran)
    journal.write_text("".join(json.dumps(record) + "\n" for record in plain))
    assert len(read_records(ran)) == len(plain)
    assert run_suite(toy_suite, ran).measured == 0
    assert journal.read_bytes() == whole


def test_a_line_without_its_checksum_among_others_is_damaged(ran: Path) -> None:
    lines = (ran / "records.jsonl").read_text().splitlines()
    (ran / "records.jsonl").write_text("\n".join([*lines[:-1], json.dumps(read_journal(ran)[-1])]) + "\n")
    with pytest.raises(RecordsError, match=rf"line {len(lines)} is damaged \(its checksum is gone\)"):
        read_records(ran)


def test_the_layout_of_a_file_does_not_matter_and_its_numbers_do() -> None:
    text = json.dumps(seal({"b": 0.5, "a": [1, "x"]}))
    assert unsealed(json.dumps(json.loads(text), indent=4, sort_keys=True)) == {"b": 0.5, "a": [1, "x"]}
    for changed in (text.replace("0.5", "0.50"), text.replace("1,", '"1",'), text.replace('"b"', '"c"')):
        with pytest.raises(ValueError, match="its checksum differs"):
            unsealed(changed)


def test_what_changes_every_night_does_not_grow_a_folder(toy_suite: dict[str, Any], tmp_path: Path) -> None:
    plugin = tmp_path / "nightly.py"
    for night in range(14):
        plugin.write_text(
            "import harness\n"
            "class Nightly:\n"
            f"    def score(self, features): return features.logits[:, 0] + {night}\n"
            "@harness.hookimpl\n"
            "def harness_scorers(): yield harness.ScorerSpec('nightly', Nightly)\n"
        )
        suite = toy_suite | {"scorers": ["level", "nightly"]}
        assert run_suite(suite, tmp_path / "out", plugins=(TOY_PLUGIN, plugin)).succeeded
    named = {name for record in read_journal(tmp_path / "out") for name in (record["scores"] or {}).values()}
    assert {path.stem for path in (tmp_path / "out/scores").glob("*.npy")} == named
    times = [json.loads(line) for line in (tmp_path / "out/timings.jsonl").read_text().splitlines()]
    nightly = [
        t for t in times if (t.get("scorer"), t["stage"], t.get("set")) == ("nightly", "score", "bright")
    ]
    assert len(nightly) == 10
