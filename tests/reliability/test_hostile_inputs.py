"""Hostile inputs: one clear line and exit code 2, or a failed cell; never a traceback."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import torch
from journals import read_journal, records_of
from PIL import Image
from torch import Tensor
from toys import TOY_PLUGIN, as_toml, run_suite

from harness.base.errors import InputError
from harness.cli import commands
from harness.contract.registry import Registry
from harness.contract.scores import as_scores
from harness_plugins.datasets.decoding import FORMATS, decode

pytestmark = pytest.mark.trials("inputs")


def call(*arguments: str) -> int:
    """Call the command line in this process, and return its exit code."""
    with pytest.MonkeyPatch.context() as patched, pytest.raises(SystemExit) as left:
        patched.setattr("sys.argv", ["ood-harness", *arguments])
        patched.setattr("signal.signal", lambda *_: None)
        commands.main()
    return int(left.value.code or 0)


# Scores -------------------------------------------------------------------------------------------------------------


def quantised(count: int) -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch is about to remove them
        return torch.quantize_per_tensor(torch.ones(count), 0.1, 0, torch.qint8)


ODD: dict[str, tuple[Callable[[int], Any], str]] = {
    "sparse": (lambda n: torch.ones(n).to_sparse(), "scores are sparse"),
    "meta": (lambda n: torch.ones(n, device="meta"), "scores are without values"),
    "quantised": (quantised, "scores are quantised"),
    "complex": (lambda n: torch.ones(n) * 1j, "scores are complex"),
    "a list": (lambda n: [0.0] * n, "scores are a list"),
    "NumPy's": (lambda n: torch.ones(n).numpy(), "scores are a ndarray"),
    "None": (lambda n: None, "scores are a NoneType"),
    "one column": (lambda n: torch.ones(n, 1), "scores have shape"),
    "a number": (lambda n: torch.tensor(1.0), r"scores have shape \(\)"),
    "one too few": (lambda n: torch.ones(n - 1), "scores have shape"),
}
FINE: dict[str, Callable[[int], Tensor]] = {
    "bool": lambda n: torch.arange(n) > 2,
    "int64": torch.arange,
    "half": lambda n: torch.arange(n).half(),
    "bfloat16": lambda n: torch.arange(n).bfloat16(),
    "with gradients": lambda n: torch.arange(n).float().requires_grad_(),
    "a view": lambda n: torch.arange(2.0 * n)[::2],
    "expanded": lambda n: torch.ones(1).expand(n),
    "infinite": lambda n: torch.full((n,), torch.inf),
}


@pytest.mark.parametrize("kind", ODD)
def test_what_is_no_score_is_named(kind: str) -> None:
    make, message = ODD[kind]
    with pytest.raises(InputError, match=message):
        as_scores(make(5), 5, device="cpu")


@pytest.mark.parametrize("kind", FINE)
def test_every_real_number_is_a_score(kind: str) -> None:
    given = FINE[kind](5)
    found = as_scores(given, 5, device="cpu")
    assert found.tolist() == given.detach().double().tolist()
    assert found.dtype == torch.float64
    assert not found.requires_grad


def test_an_odd_score_costs_its_own_cells_alone(toy_suite: dict[str, Any], tmp_path: Path) -> None:
    plugin = tmp_path / "odd.py"
    plugin.write_text(
        "import harness\n"
        "class Odd:\n"
        "    def score(self, features): return features.logits[:, 0].to_sparse()\n"
        "class Empty:\n"
        "    def score(self, features): return features.logits[:, 0].to('meta')\n"
        "@harness.hookimpl\n"
        "def harness_scorers():\n"
        "    yield harness.ScorerSpec('odd', Odd)\n"
        "    yield harness.ScorerSpec('empty', Empty)\n"
    )
    toy_suite["scorers"] = ["odd", "level", "empty"]
    run_suite(toy_suite, tmp_path / "out", plugins=(TOY_PLUGIN, plugin))
    errors = {s: r["error"] for (s, _), r in records_of(tmp_path / "out").items()}
    assert errors == {
        "odd": "scores are sparse. Give a dense tensor of numbers",
        "empty": "scores are without values. Give a dense tensor of numbers",
        "level": None,
    }


# Suites -------------------------------------------------------------------------------------------------------------

SUITES = {
    "deep brackets": ("x = " + "[" * 20_000, "not valid TOML"),
    "a number of too many digits": ("batch_size = " + "9" * 5_000, "not valid TOML"),
    "a huge number": ("[limits]\nseconds = 1e400", "inf is not a finite number"),
    "nan": ("batch_size = nan", "nan is not a finite number"),
    "inf": ("[limits]\nseconds = inf", "inf is not a finite number"),
    "no time": ("[limits]\nseconds = 0", "toy.toml: at limits.seconds"),
    "negative memory": ("[limits]\nmegabytes = -1", "toy.toml: at limits.megabytes"),
    "unknown isolation": ('[limits]\nisolate = "some"', "toy.toml: at limits.isolate"),
    "misspelt limit": ("[limits]\nsecond = 1", "Did you mean 'seconds'"),
    "a negative seed": ('[[models]]\nname = "network"\nseeds = [-1]', "toy.toml: at models.0.seeds.0"),
    "a seed of 2^63": (f'[[models]]\nname = "network"\nseeds = [{2**63}]', "toy.toml: at models.0.seeds.0"),
    "a million seeds": (
        f'[[models]]\nname = "network"\nseeds = {list(range(1_000_000))}',
        "toy.toml: at models.0.seeds: List should have at most 1000 items",
    ),
    "seeds that are a number": ('[[models]]\nname = "network"\nseeds = 1000000', "Input should be a list"),
    "zero bytes": ('name = "a\0b"', "not valid TOML"),
    "no UTF-8": (b'name = "\xff"', "not valid TOML"),
    "a list of tables": ("[[limits]]", "Input should be a table"),
}


@pytest.mark.parametrize("kind", SUITES)
def test_a_hostile_suite_is_one_line(
    kind: str, toy_suite: dict[str, Any], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    text, message = SUITES[kind]
    hostile = text if isinstance(text, bytes) else text.encode()
    given = (
        hostile.splitlines()[0].strip(b"[]").split(b" ")[0]
    )  # the key that it gives in place of the toys' own
    rest = {key: value for key, value in toy_suite.items() if key.encode() != given}
    (tmp_path / "toy.toml").write_bytes(as_toml(rest).encode() + b"\n" + hostile + b"\n")
    assert call("run", str(tmp_path / "toy.toml"), "--plugin", str(TOY_PLUGIN)) == 2
    refused_in_one_line(capfd, message)


def refused_in_one_line(capfd: pytest.CaptureFixture[str], message: str) -> None:
    output = capfd.readouterr()
    assert output.out == ""
    assert len(output.err.splitlines()) == 1, output.err
    assert message in output.err


# Places -------------------------------------------------------------------------------------------------------------

PLACES = {
    "a very long name": "a" * 300,
    "a very long path": "/".join(["a" * 200] * 30),
    "below a file": "file/out",
    "a file": "file",
    "a device": "/dev/null",
    "below a device": "/dev/full/out",
}


@pytest.mark.parametrize("option", ["--out", "--cache"])
@pytest.mark.parametrize("kind", PLACES)
def test_a_place_that_cannot_be_written_is_one_line(
    kind: str,
    option: str,
    toy_suite: dict[str, Any],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "toy.toml").write_text(as_toml(toy_suite))
    (tmp_path / "file").touch()
    assert call("run", "toy.toml", "--plugin", str(TOY_PLUGIN), option, PLACES[kind]) == 2
    refused_in_one_line(capfd, "cannot be written")


@pytest.mark.parametrize("command", ["leaderboard", "curves", "probes", "estimates", "adaptation"])
@pytest.mark.parametrize("kind", PLACES)
def test_a_folder_that_holds_no_run_is_one_line(
    kind: str, command: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert call(command, PLACES[kind]) == 2
    refused_in_one_line(capfd, "Give a folder that `run` wrote")


@pytest.mark.parametrize("arguments", [("run", "toy.toml", "--out"), ("leaderboard",), ("cache", "--cache")])
def test_a_zero_byte_is_one_line(
    arguments: tuple[str, ...], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert call(*arguments, "a\0b") == 2
    refused_in_one_line(capfd, "null byte, not 'a\\x00b'")


# Records of others --------------------------------------------------------------------------------------------------

WRONG: dict[str, Any] = {
    "model": 3,
    "metrics": 5,
    "seeds": {},
    "scorer": ["msp"],
    "data": None,
    "scores": "all",
    "n_id": "many",
    "flags": 7,
    "group": None,
    "error": 0,
    "schema": "new",
    "by_stream": [],
}


@pytest.mark.parametrize("key", WRONG)
def test_a_record_with_a_value_of_another_type_is_damaged(
    key: str, toy_suite: dict[str, Any], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = run_suite(toy_suite | {"scorers": ["level"]}, tmp_path / "out").folder
    first, *others = read_journal(out)
    lines = [json.dumps(record) for record in (first | {key: WRONG[key]}, *others)]
    (out / "records.jsonl").write_text("\n".join(lines) + "\n")
    capfd.readouterr()
    assert call("leaderboard", str(out)) == 2
    refused_in_one_line(capfd, "records.jsonl: line 1 is damaged")


@pytest.mark.parametrize("text", ["3", "[3]", '{"a": 1}', '[{"a": 1}]', "[", "null", "[" * 20_000])
def test_covariances_of_another_form_are_damaged(
    text: str, toy_suite: dict[str, Any], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = run_suite(toy_suite | {"scorers": ["level"]}, tmp_path / "out").folder
    (out / "paired.json").write_text(text)
    capfd.readouterr()
    assert call("leaderboard", str(out)) == 2
    refused_in_one_line(capfd, "paired.json is damaged")


# Plugins ------------------------------------------------------------------------------------------------------------


def test_a_plugin_that_changes_the_folder_at_import_moves_no_relative_path(
    toy_suite: dict[str, Any], tmp_path: Path
) -> None:
    plugin = tmp_path / "mover.py"
    plugin.write_text("import os\nos.chdir('/')\n")
    Registry.load([plugin])
    assert Path.cwd() == tmp_path


@pytest.mark.parametrize("content", [b"\xff\xfe[x]\n", b"[harness]\nno value\n"])
def test_a_damaged_distribution_is_named_and_the_others_are_found(
    content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    info = tmp_path / "broken-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (info / "entry_points.txt").write_bytes(content)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert "gen" in Registry.load().names("scorer")
    assert any("broken-1.0.dist-info" in line for line in caplog.messages)


def test_a_models_check_that_raises_is_one_line(
    toy_suite: dict[str, Any], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    plugin = tmp_path / "checker.py"
    plugin.write_text(
        "import harness\n"
        "def check(request): raise KeyError('mean')\n"
        "@harness.hookimpl\n"
        "def harness_models(): yield harness.ModelSpec('checked', lambda request: None, check=check)\n"
    )
    toy_suite["models"] = [{"name": "checked"}]
    (tmp_path / "toy.toml").write_text(as_toml(toy_suite))
    assert call("run", "toy.toml", "--plugin", str(TOY_PLUGIN), "--plugin", str(plugin)) == 2
    refused_in_one_line(capfd, "the model 'checked': its plugin's check raised KeyError: 'mean'")


# Images -------------------------------------------------------------------------------------------------------------


def encoded(kind: str) -> bytes:
    buffer = BytesIO()
    Image.new("RGB", (4, 4)).save(buffer, format=kind)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["EPS", "PCX", "SGI", "ICO"])
def test_a_format_that_is_not_on_the_list_is_refused(kind: str) -> None:
    assert kind not in FORMATS
    with pytest.raises(Image.UnidentifiedImageError):
        decode(encoded(kind))


@pytest.mark.parametrize("kind", ["BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP"])
def test_a_format_on_the_list_is_decoded(kind: str) -> None:
    assert decode(encoded(kind)).shape in ((4, 4, 3), (4, 4))


def test_a_bomb_of_pixels_is_an_error_and_no_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 4)
    with pytest.raises((Image.DecompressionBombError, Image.DecompressionBombWarning)):
        decode(encoded("PNG"))
