"""One life for every kind: what fails is a record, and what heals leaves no trace of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from every_kind import every_kind
from journals import read_journal
from toys import TOY_PLUGIN, as_toml, lose_images_of, run_suite

import harness
from harness.base.errors import DatasetError, InputError
from harness.engine.loading import Loader
from harness.evaluations import KINDS

KINDS_OF_RECORDS = {"score", "model", "probe", "curve", "adaptation", "estimate"}


def journal(folder: Path) -> bytes:
    return (folder / "records.jsonl").read_bytes()


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("healthy")
    run_suite(every_kind(), folder / "out", cache=folder / "cache")
    return folder


def test_the_suite_has_records_of_every_kind(healthy: Path) -> None:
    records = read_journal(healthy / "out")
    assert {r["kind"] for r in records} == KINDS_OF_RECORDS
    assert any("mixture" in r and r["scorer"] == "from_train (refit)" for r in records)
    assert any("transductive" in r["flags"] for r in records)
    assert len({kind.name for kind in KINDS}) == len(KINDS) == 8


def test_a_model_that_fails_and_then_heals_leaves_no_error_behind(
    healthy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError("the disk is away")

    with monkeypatch.context() as patched:
        patched.setattr(Loader, "load", refuse)
        failed = run_suite(every_kind(), tmp_path / "out", cache=healthy / "cache")
    errors = read_journal(tmp_path / "out")
    assert failed.failed == failed.cells == len(errors)
    assert {r["kind"] for r in errors} == KINDS_OF_RECORDS - {"model"}
    assert {r["error"] for r in errors} == {"model: OSError: the disk is away"}

    run_suite(every_kind(), tmp_path / "out", cache=healthy / "cache")
    assert journal(tmp_path / "out") == journal(healthy / "out")


def test_a_set_that_cannot_be_opened_ends_the_run_before_a_model_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(Loader, "load", refuse)
    suite = every_kind()
    suite["ood"].append({"name": "gone", "dataset": "gone", "group": "far"})
    with pytest.raises(DatasetError, match="set gone: the drive of 'gone' has died"):
        run_suite(suite, tmp_path / "out")


@pytest.mark.parametrize("broken", ["close", "fog-1"])
def test_a_set_that_fails_and_then_heals_leaves_no_error_behind(
    broken: str, healthy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        lose_images_of(broken, patched)
        failed = run_suite(every_kind(), tmp_path / "out", cache=healthy / "cache")
    whole = {r["cell_id"]: r for r in read_journal(healthy / "out")}
    found = {r["cell_id"]: r for r in read_journal(tmp_path / "out")}
    on_it = {place for place, r in found.items() if r["error"] and "the drive has died" in r["error"]}
    assert not failed.succeeded
    missing = {place for place in whole.keys() - found.keys() if whole[place]["kind"] != "model"}
    assert missing == set()  # what was not measured says so
    kinds = {found[place]["kind"] for place in on_it}
    assert kinds >= ({"adaptation", "estimate", "probe"} if broken == "fog-1" else {"score", "probe"})

    run_suite(every_kind(), tmp_path / "out", cache=healthy / "cache")
    assert journal(tmp_path / "out") == journal(healthy / "out")


def test_a_number_is_kept_while_its_model_is_away(
    healthy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError("the disk is away")

    run_suite(every_kind(), tmp_path / "out", cache=healthy / "cache")
    monkeypatch.setattr(Loader, "load", refuse)
    again = run_suite(every_kind(), tmp_path / "out", cache=healthy / "cache")
    assert again.failed == again.cells
    kept = {r["cell_id"]: r for r in read_journal(tmp_path / "out")}
    for record in read_journal(healthy / "out"):
        assert record["error"] or kept[record["cell_id"]] == record


def test_a_second_run_measures_only_what_failed(healthy: Path) -> None:
    failed = sum(bool(r["error"]) for r in read_journal(healthy / "out"))
    before = journal(healthy / "out")
    again = run_suite(every_kind(), healthy / "out", cache=healthy / "cache")
    assert again.measured == again.failed == failed > 0
    assert journal(healthy / "out") == before


def test_a_shift_of_validation_data_that_cannot_be_made_ends_the_run_before_it_starts(tmp_path: Path) -> None:
    suite = every_kind() | {"estimation": {"corrupt": ["contrast"], "severity": [2, 9]}}
    with pytest.raises(InputError, match=r"severity = 9 of 'corrupt:contrast' is not valid. Give 1, 2"):
        run_suite(suite, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("kept", "column"), [("adapters", "error"), ("estimators", "accuracy"), ("probes", "value")]
)
def test_a_suite_without_scorers_returns_its_table(kept: str, column: str, tmp_path: Path) -> None:
    suite = every_kind() | {"scorers": [], "ood": []}
    del suite["adaptation"], suite["curves"]
    for key in {"adapters", "estimators", "probes"} - {kept}:
        del suite[key]
    suite["adapters" if kept == "adapters" else kept] = {
        "adapters": [{"name": "slide", "protocol": "episodic"}],
        "estimators": ["confident"],
        "probes": ["mean"],
    }[kept]
    models, shift = suite.pop("models"), suite.pop("shift")
    text = as_toml(suite)
    text += "".join(f"\n[[models]]\n{as_toml(entry)}" for entry in models)
    text += "".join(f"\n[[shift]]\n{as_toml(entry)}" for entry in shift)
    (tmp_path / "toy.toml").write_text(text)
    frame = harness.run(str(tmp_path / "toy.toml"), out=tmp_path / "out", plugins=[TOY_PLUGIN], device="cpu")
    assert len(frame) > 0
    assert frame[column].notna().all()


def test_each_reason_is_logged_once_per_model_and_method(
    healthy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    lose_images_of("close", monkeypatch)
    run_suite(every_kind(), tmp_path / "out", cache=healthy / "cache")
    lines = [record.getMessage() for record in caplog.records]
    about = [line for line in lines if "the drive has died" in line]
    assert any(line == "network(size=8) (seed 0), level on close: the drive has died" for line in about)
    assert len(lines) == len(set(lines))
    assert any("unruly(how=raises) on id: ZeroDivisionError: by design" in line for line in lines)
    assert any(line.startswith("distance (seed 0), slide (") for line in lines)


def test_ranks_that_are_lost_are_reported(
    tmp_path: Path,
    toy_suite: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    run_suite(toy_suite, tmp_path / "out")
    for kept in (*(tmp_path / "out/scores").iterdir(), tmp_path / "out/paired.json"):
        kept.unlink()

    def refuse(*_: Any) -> Any:
        raise OSError("the disk is away")

    monkeypatch.setattr("harness.engine.workbench.Workbench.extract", refuse)
    assert run_suite(toy_suite, tmp_path / "out").failed == 0
    assert "no ranks, since its scores are gone: " in caplog.text


def test_an_estimate_that_fails_keeps_the_data_of_its_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> Any:
        raise OSError("no accuracy")

    monkeypatch.setattr("harness.evaluations.measures.model_accuracy", refuse)
    suite = every_kind() | {"scorers": [], "probes": [], "adapters": [], "ood": []}
    del suite["curves"]
    run_suite(suite, tmp_path / "out")
    found = [r for r in read_journal(tmp_path / "out") if r["kind"] == "estimate"]
    assert found
    assert all(r["error"] and r["n_ood"] and r["data"]["ood"] for r in found)
