"""Weights with which nothing can be computed are refused by name; a model that sees its whole batch is told."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from journals import read_journal
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from toys import TOY_PLUGIN, toy_module

import harness
from harness.contract.registry import Registry
from harness.engine.runner import RunOptions, RunResult
from harness.evaluations.run import plan_suite, run_plan
from harness.models.soundness import require_sound
from harness_plugins.models.timm_factory import create

pytestmark = pytest.mark.trials("inputs")


def weight(values: Any) -> Callable[[Any], None]:
    """Replace the weight of the head."""

    def change(model: Any) -> None:
        tensor = values(model.fc.weight.detach())
        model.fc.weight = nn.Parameter(tensor, requires_grad=False)

    return change


def one(value: float) -> Callable[[Any], None]:
    return weight(lambda w: torch.where(torch.arange(w.numel()).view_as(w) == 3, value, w))


def buffer(value: Any) -> Callable[[Any], None]:
    return lambda model: model.register_buffer("extra", value())


def quantised(model: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch is about to remove them
        tensor = torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)
    model.register_buffer("extra", tensor)


class Extra(nn.Identity):
    def get_extra_state(self) -> dict[str, int]:
        return {}

    def set_extra_state(self, state: object) -> None: ...


def with_extra_state(model: Any) -> None:
    model.body = Extra()


UNSOUND: dict[str, tuple[Callable[[Any], None], str]] = {
    "NaN": (one(torch.nan), "'fc.weight' has 1 of 6 values that are NaN or infinite"),
    "infinite": (one(torch.inf), "'fc.weight' has 1 of 6 values that are NaN or infinite"),
    "minus infinite": (one(-torch.inf), "'fc.weight' has 1 of 6 values that are NaN or infinite"),
    "integer": (weight(lambda w: w.long()), "'fc.weight' is of type torch.int64"),
    "8-bit integer": (weight(lambda w: w.to(torch.int8)), "'fc.weight' is of type torch.int8"),
    "bool": (weight(lambda w: w > 0), "'fc.weight' is of type torch.bool"),
    "complex": (weight(lambda w: w + 0j), "'fc.weight' is of type torch.complex64"),
    "sparse": (weight(lambda w: w.to_sparse()), "'fc.weight' is sparse"),
    "meta": (weight(lambda w: w.to("meta")), "'fc.weight' is on the device \"meta\""),
    "NaN in a buffer": (buffer(lambda: torch.tensor([torch.nan])), "'extra' has 1 of 1 values that are NaN"),
    "infinite buffer": (buffer(lambda: torch.tensor([torch.inf])), "'extra' has 1 of 1 values that are NaN"),
    "quantised": (quantised, "'extra' is quantised, torch.qint8"),
    "no tensor": (with_extra_state, "'body._extra_state' is a dict, no tensor"),
}
SOUND: dict[str, Callable[[Any], None]] = {
    "a mask": buffer(lambda: torch.full((3, 3), -torch.inf).triu(1)),
    "an index": buffer(lambda: torch.arange(3)),
    "bools": buffer(lambda: torch.zeros(3, dtype=torch.bool)),
    "complex buffer": buffer(lambda: torch.ones(3, dtype=torch.complex64)),
    "half precision": buffer(lambda: torch.ones(3, dtype=torch.float16)),
    "numbers of one byte": buffer(lambda: torch.ones(3).to(torch.float8_e4m3fn)),
    "nothing": lambda _: None,
}


def run_with(change: Callable[[Any], None], suite: dict[str, Any], out: Path) -> RunResult:
    """Run the toy suite with one model more, the toy network after a change."""
    plugin = out.parent / "extra.py"
    plugin.write_text(
        "import harness\n\nBUILD = None\n\n@harness.hookimpl\ndef harness_models():\n"
        '    yield harness.ModelSpec("extra", lambda request: BUILD(request))\n'
    )
    registry = Registry.load((TOY_PLUGIN, plugin))

    def build(request: harness.ModelRequest) -> harness.Model:
        model: harness.Model = toy_module().network(request)
        change(model.classifier)
        return model

    registry.get("model", "extra").spec.build.__globals__["BUILD"] = build
    suite["scorers"] = ["level"]
    suite["models"].append({"name": "extra", "label": "odd"})
    return run_plan(plan_suite(suite, registry, source="toy.toml"), RunOptions(out=out, device="cpu"))


@pytest.mark.parametrize("kind", UNSOUND)
def test_unsound_weights_fail_their_model_by_name_and_are_not_cached(
    kind: str, toy_suite: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    change, fault = UNSOUND[kind]
    result = run_with(change, toy_suite, tmp_path / "out")
    told = [message for message in caplog.messages if fault in message]
    assert told and "odd" in told[0] and "\n" not in told[0]
    assert result.failed > 0
    records = [record for record in read_journal(tmp_path / "out") if record["kind"] == "score"]
    assert {r["error"] for r in records if r["model"] == "network"} == {None}
    assert all(fault in r["error"] for r in records if r["model"] == "odd")
    assert len(list((tmp_path / "cache" / "features").iterdir())) == 4  # of the other model


@pytest.mark.parametrize("kind", SOUND)
def test_sound_weights_are_taken(kind: str) -> None:
    network = nn.Module()
    network.fc = nn.Linear(2, 3)
    SOUND[kind](network)
    require_sound(network)
    one(torch.nan)(network)
    with pytest.raises(harness.InputError, match=r"'fc.weight' has 1 of 6 values that are NaN"):
        require_sound(network)


CONVERTED: dict[str, Callable[[Tensor], Tensor]] = {
    "int64": lambda w: w.long(),
    "complex64": lambda w: w + 0j,
    "bool": lambda w: w > 0,
    "int8": lambda w: w.to(torch.int8),
}


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    network: Any = create("test_resnet", {"pretrained": False, "num_classes": 3}).classifier
    save_file(network.state_dict(), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"architecture": "test_resnet", "num_classes": 3}))
    return folder


def rewritten(stored: Path, folder: Path, change: Callable[[Tensor], Tensor]) -> Path:
    """Copy a model's folder with a changed weight of its head."""
    weights = load_file(stored / "model.safetensors")
    weights["fc.weight"] = change(weights["fc.weight"]).contiguous()
    folder.mkdir()
    save_file(weights, folder / "model.safetensors")
    (folder / "config.json").write_bytes((stored / "config.json").read_bytes())
    return folder


@pytest.mark.parametrize("kind", CONVERTED)
def test_a_file_of_other_numbers_is_not_converted_without_a_word(
    kind: str, stored: Path, tmp_path: Path
) -> None:
    folder = rewritten(stored, tmp_path / "model", CONVERTED[kind])
    with pytest.raises(
        harness.InputError, match=rf"1 of another type \(fc.weight torch.{kind} for torch.float32"
    ):
        open_folder(folder)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_a_file_of_values_that_are_not_finite_is_refused(value: float, stored: Path, tmp_path: Path) -> None:
    folder = rewritten(stored, tmp_path / "model", lambda w: torch.full_like(w, value))
    with pytest.raises(harness.InputError, match=r"the checkpoint .*: its weight 'fc.weight' has \d+ of \d+"):
        open_folder(folder)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_a_file_of_another_precision_is_read(dtype: torch.dtype, stored: Path, tmp_path: Path) -> None:
    folder = rewritten(stored, tmp_path / "model", lambda w: w.to(dtype))
    assert open_folder(folder).num_classes == 3


def open_folder(folder: Path) -> harness.Model:
    registry = Registry.load(blocked=())
    request = harness.ModelRequest(f"checkpoint:{folder}", str(folder), catalogue=registry)
    built: harness.Model = registry.get("model", request.name).spec.build(request)
    return built


class Batched(nn.Module):
    """Subtracts the mean of the batch, as a normalisation with the batch's own statistics does."""

    def forward(self, images: Tensor) -> Tensor:
        return images - 0.1 * images.mean(dim=0, keepdim=True)


def normalises_the_batch(model: Any) -> None:
    model.body = nn.BatchNorm2d(1, affine=False, track_running_stats=False)  # so also in evaluation mode


def subtracts_the_mean(model: Any) -> None:
    model.body = Batched()


@pytest.mark.parametrize("change", [normalises_the_batch, subtracts_the_mean, lambda _: None])
def test_a_model_whose_output_depends_on_its_batch_is_warned_of_by_name(
    change: Callable[[Any], None], toy_suite: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        run_with(change, toy_suite, tmp_path / "out")
    told = [text for text in caplog.messages if "depends on the other images of the batch" in text]
    assert [text.split(":")[0] for text in told] == (
        ["odd (seed 0)"] if change.__name__ != "<lambda>" else []
    )
