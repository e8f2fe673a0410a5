from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest
import torch
from timm.optim import create_optimizer_v2

import harness
from harness.models.training.state import StateFile, optimizer_state, restore_optimizer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def convolutional() -> torch.nn.Module:
    layers = torch.nn.Conv2d(1, 6, 3), torch.nn.Conv2d(6, 4, 3), torch.nn.Flatten(), torch.nn.Linear(64, 3)
    return torch.nn.Sequential(*layers).to(memory_format=torch.channels_last)


def linear() -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Linear(64, 6), torch.nn.Tanh(), torch.nn.Linear(6, 3))


def steps(network: torch.nn.Module, optimizer: torch.optim.Optimizer, first: int, count: int) -> None:
    for number in range(first, first + count):
        inputs = torch.randn(8, 1, 8, 8, generator=torch.Generator().manual_seed(number))
        optimizer.zero_grad()
        if isinstance(network[0], torch.nn.Linear):  # type: ignore[index]
            inputs = inputs.flatten(1)
        network(inputs).square().mean().backward()
        optimizer.step()


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "radam", "nadamw", "lamb", "lion", "adafactor"])
@pytest.mark.parametrize("build", [linear, convolutional])
def test_an_optimizer_goes_on_as_if_it_had_never_stopped(
    tmp_path: Path, name: str, build: Callable[[], torch.nn.Module]
) -> None:
    def made() -> tuple[torch.nn.Module, Any]:
        with harness.seeded(0):
            network = build()
        return network, create_optimizer_v2(network, opt=name, lr=0.01, weight_decay=0.01)

    network, optimizer = made()
    steps(network, optimizer, 0, 7)

    half, first = made()
    steps(half, first, 0, 4)
    tensors, values = optimizer_state(first)
    file = StateFile(tmp_path / "folder" / "state")
    file.save({**tensors, **{f"net.{k}": v for k, v in half.state_dict().items()}}, {"optimizer": values})
    loaded = file.load()
    assert loaded is not None
    again, second = made()
    again.load_state_dict({k.removeprefix("net."): v for k, v in loaded[0].items() if k.startswith("net.")})
    restore_optimizer(second, loaded[0], loaded[1]["optimizer"])
    steps(again, second, 4, 3)
    for key, value in network.state_dict().items():
        assert torch.equal(again.state_dict()[key], value), key


def test_a_file_is_replaced_as_a_whole_and_removed_with_its_folder(tmp_path: Path) -> None:
    file = StateFile(tmp_path / "folder" / "state")
    assert file.load() is None
    for number in (1, 2):
        file.save({"a": torch.full((2, 3), float(number))}, {"step": number})
        loaded = file.load()
        assert loaded is not None
        assert loaded[1] == {"step": number}
        assert loaded[0]["a"].tolist() == [[number] * 3] * 2
    assert [path.name for path in file.path.parent.iterdir()] == ["state"]
    file.path.with_name(".state.123.abc").write_bytes(b"of a writer that was killed")
    file.remove()
    assert not file.path.parent.exists()


def test_tensors_that_share_memory_are_stored_each_by_itself(tmp_path: Path) -> None:
    one = torch.arange(6.0)
    file = StateFile(tmp_path / "state")
    file.save({"a": one, "b": one, "c": one.view(2, 3)}, {})
    loaded = file.load()
    assert loaded is not None
    assert {name: tensor.flatten().tolist() for name, tensor in loaded[0].items()} == dict.fromkeys(
        "abc", one.tolist()
    )
    assert loaded[0]["c"].shape == (2, 3)


@pytest.mark.parametrize("damage", ["flipped", "truncated", "a pickle"])
def test_a_damaged_file_is_named_and_passed_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    file = StateFile(tmp_path / "state")
    file.save({"a": torch.arange(100.0)}, {"step": 1})
    content = bytearray(file.path.read_bytes())
    content[-20] ^= 0x40
    damaged = {"flipped": content, "truncated": content[:60], "a pickle": b"\x80\x04K\x01."}
    file.path.write_bytes(damaged[damage])
    with caplog.at_level(logging.WARNING, logger="ood_harness"):
        assert file.load() is None
    assert "training starts over" in caplog.text


def test_an_optimizer_that_keeps_objects_is_refused() -> None:
    parameter = torch.nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.SGD([parameter], lr=0.1)
    optimizer.state[parameter]["closure"] = object()
    with pytest.raises(harness.InputError, match=r"SGD keeps a object \(closure\), which cannot be stored"):
        optimizer_state(optimizer)
