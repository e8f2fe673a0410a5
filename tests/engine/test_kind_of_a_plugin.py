"""A kind of evaluation from a plugin: one file, and no change to the core."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from journals import read_journal
from toys import TESTS, TOY_PLUGIN, as_toml, lose_images_of, run_suite, toy_module
from typer.testing import CliRunner

from harness.base.errors import InputError, PluginError
from harness.cli import app
from harness.engine.loading import Loader

TOY_KIND = TESTS / "toy_kind.py"
BOTH = (TOY_PLUGIN, TOY_KIND)


def gauged(folder: Path) -> dict[tuple[str, str], dict[str, Any]]:
    records = [r for r in read_journal(folder) if r["kind"] == "gauge"]
    return {(r["gauge"], r["ood"] or "id"): r for r in records}


def test_its_cells_are_measured_in_the_same_pass_and_not_twice(
    toy_suite: dict[str, Any], toys: Any, tmp_path: Path
) -> None:
    suite = toy_suite | {"gauges": [0.0, 2.0]}
    first = run_suite(suite, tmp_path / "out", plugins=BOTH)
    assert set(toy_module().FORWARDED.values()) == {1}
    again = run_suite(suite, tmp_path / "out", plugins=BOTH)
    found = gauged(tmp_path / "out")
    assert (first.cells, first.measured, again.measured) == (9 + 8, 9 + 8, 0)
    assert {on for _, on in found} == {"id", "bright", "close", "closer"}
    level = (toy_module().Levels(40, 3, 3, 0, 4)._images.mean(axis=(1, 2)) - 40) / 30
    centres = np.arange(3)
    expected = (4 * level[:, None] * centres - 2 * centres**2).sum(axis=1).mean()
    assert found["2.0", "id"]["metrics"]["mean"]["value"] == pytest.approx(expected + 2, rel=1e-5)
    assert (tmp_path / "out/gauges.csv").read_text().count("\n") == 8


def test_it_fails_and_heals(
    toy_suite: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    suite = toy_suite | {"gauges": [0.0]}
    run_suite(suite, tmp_path / "healthy", plugins=BOTH)

    def lose_models(patched: pytest.MonkeyPatch) -> None:
        def refuse(*_: Any, **__: Any) -> None:
            raise OSError("the drive has died")

        patched.setattr(Loader, "load", refuse)

    for lose in (lose_models, partial(lose_images_of, "close")):
        with monkeypatch.context() as patched:
            lose(patched)
            assert not run_suite(suite, tmp_path / "out", plugins=BOTH).succeeded
        assert any(r["error"] and "has died" in r["error"] for r in gauged(tmp_path / "out").values())
    assert run_suite(suite, tmp_path / "out", plugins=BOTH).succeeded
    assert gauged(tmp_path / "out") == gauged(tmp_path / "healthy")


def test_what_does_not_apply_stands_in_the_manifest(toy_suite: dict[str, Any], tmp_path: Path) -> None:
    toy_suite["models"][0]["params"] = {"classes": 0}  # an encoder
    result = run_suite(toy_suite | {"gauges": [0.0], "scorers": ["level"]}, tmp_path / "out", plugins=BOTH)
    manifest = json.loads((tmp_path / "out/run.json").read_text())
    assert result.succeeded
    assert {"model": "network(classes=0)", "seed": 0, "gauge": "0.0", "missing": ["logits"]} in manifest[
        "not_applicable"
    ]
    assert gauged(tmp_path / "out") == {}


def test_its_part_of_a_suite_is_checked(toy_suite: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gauges has -1\.0\. Give numbers from 0 up"):
        run_suite(toy_suite | {"gauges": [-1.0]}, tmp_path / "out", plugins=BOTH)
    with pytest.raises(InputError, match=r"toy\.toml: at gauges\.0: Input should be a number, not .x."):
        run_suite(toy_suite | {"gauges": ["x"]}, tmp_path / "out", plugins=BOTH)
    with pytest.raises(InputError, match="no key named 'gauges'"):
        run_suite(toy_suite | {"gauges": [0.0]}, tmp_path / "out")


def test_its_report_is_printed(toy_suite: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "toy.toml").write_text(as_toml(toy_suite | {"gauges": [0.0]}))
    arguments = ["run", str(tmp_path / "toy.toml"), "--out", str(tmp_path / "out")]
    printed = CliRunner().invoke(app, [*arguments, *(f"--plugin={path}" for path in BOTH)])
    assert printed.exit_code == 0
    assert "gauge 0.0 on close:" in printed.stdout


def test_a_number_without_a_key_is_a_failure_since_it_would_be_kept_for_ever(
    toy_suite: dict[str, Any], tmp_path: Path
) -> None:
    careless = tmp_path / "careless_kind.py"
    source = TOY_KIND.read_text()
    careless.write_text(source.replace('return f"gauge 1 ', 'raise KeyError("worker"); return f"gauge 1 '))
    plugins = (TOY_PLUGIN, careless)
    result = run_suite(toy_suite | {"gauges": [0.0]}, tmp_path / "out", plugins=plugins)
    assert result.failed == 4
    assert {r["error"] for r in gauged(tmp_path / "out").values()} == {"its key: KeyError: 'worker'"}
    assert run_suite(toy_suite | {"gauges": [0.0]}, tmp_path / "out", plugins=plugins).measured == 4


def test_two_cells_of_one_place_are_refused_before_anything_runs(
    toy_suite: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(PluginError, match="the evaluation gauge has two cells of one place, on id"):
        run_suite(toy_suite | {"gauges": [1.0, 1.0]}, tmp_path / "out", plugins=BOTH)
