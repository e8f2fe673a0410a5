"""The state of a training on disk. Writes are atomic, so a training that is killed at any time can resume."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from harness.base.cache import sync, write_atomically
from harness.base.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch.optim import Optimizer

    Tensors = dict[str, torch.Tensor]

logger = logging.getLogger("ood_harness")

_TRIES = 3
_ENTRY, _GROUP = "optimizer", "optimizer_group"  # prefixes: per parameter, per group


@dataclass
class Progress:
    """Counters of a training. Seeds of steps and epochs follow from them, so no generator's state is saved."""

    step: int = 0  # steps taken
    loss_sum: float = 0.0  # over the steps of this epoch
    history: list[dict[str, float | int | None]] = field(default_factory=list)  # one entry per epoch
    good_epoch: int = 0  # the last epoch that ended with finite weights
    threads: int = 0  # of the CPU; 0 before they are chosen


@dataclass(frozen=True)
class StateFile:
    """One safetensors file, replaced atomically; its digest is verified on reading."""

    path: Path

    def save(self, tensors: Tensors, content: Mapping[str, Any]) -> None:
        """Replace the content by tensors and JSON values."""
        from safetensors.torch import save

        plain = storable(tensors)
        text = json.dumps(content, sort_keys=True)
        data = save(plain, metadata={"content": text, "digest": _digest(plain, text)})
        for _ in range(_TRIES):  # another process that finishes the same training removes the folder
            with contextlib.suppress(FileNotFoundError):
                self.path.parent.mkdir(parents=True, exist_ok=True)
                write_atomically(self.path, data)
                sync(self.path.parent)
                return

    def load(self) -> tuple[Tensors, dict[str, Any]] | None:
        """Return the saved tensors and values; None if there are none or the file is damaged."""
        from safetensors import SafetensorError, safe_open

        if not self.path.is_file():
            return None
        try:
            with safe_open(self.path, framework="pt") as file:
                metadata = file.metadata()
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            if _digest(tensors, metadata["content"]) != metadata["digest"]:
                raise ValueError("its digest differs")
            content: dict[str, Any] = json.loads(metadata["content"])
        except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
            logger.warning("the training state %s is damaged (%s): training starts over", self.path, error)
            return None
        return tensors, content

    def remove(self) -> None:
        """Remove the file, temporary files of killed writers, and then the folder if it is empty."""
        for path in (self.path, *self.path.parent.glob(f".{self.path.name}.*")):
            path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self.path.parent.rmdir()


def storable(tensors: Mapping[str, torch.Tensor]) -> Tensors:
    """Copy tensors to the CPU, contiguous and without shared memory, as safetensors requires."""
    plain: Tensors = {}
    taken: set[int] = set()
    for name, tensor in tensors.items():
        own = tensor.detach().cpu().contiguous()
        plain[name] = own.clone() if own.data_ptr() in taken else own
        taken.add(own.data_ptr())
    return plain


def optimizer_state(optimizer: Optimizer) -> tuple[Tensors, dict[str, Any]]:
    """Split an optimiser's state into tensors and JSON values. Raises InputError for any other value in it."""
    state = optimizer.state_dict()
    groups = [{k: v for k, v in group.items() if _changes(v)} for group in state["param_groups"]]
    tensors: Tensors = {}
    values: dict[str, Any] = {}
    for kind, entries in ((_ENTRY, state["state"].items()), (_GROUP, enumerate(groups))):
        for index, content in entries:
            for name, value in content.items():
                key = f"{kind}.{index}.{name}"
                if isinstance(value, torch.Tensor):
                    tensors[key] = value
                elif value is None or isinstance(value, bool | int | float):
                    values[key] = value
                else:
                    raise InputError(
                        f"the optimizer {type(optimizer).__name__} keeps a {type(value).__name__} ({name}), which "
                        "cannot be stored safely. Choose another, for example sgd, adam or adamw"
                    )
    return tensors, values


def restore_optimizer(optimizer: Optimizer, tensors: Tensors, values: Mapping[str, Any]) -> None:
    """Restore an optimiser from the parts that `optimizer_state` returned; other tensors are ignored."""
    found: dict[str, dict[int, dict[str, Any]]] = {_ENTRY: {}, _GROUP: {}}
    for key, value in {**tensors, **values}.items():
        kind, _, rest = key.partition(".")
        if kind in found:
            index, _, name = rest.partition(".")
            found[kind].setdefault(int(index), {})[name] = value
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for number, entries in found[_ENTRY].items():
        found[_ENTRY][number] = {
            name: _laid_out(value, parameters[number]) for name, value in entries.items()
        }
    groups = [
        {**group, **found[_GROUP].get(number, {})}
        for number, group in enumerate(optimizer.state_dict()["param_groups"])
    ]
    optimizer.load_state_dict({"state": found[_ENTRY], "param_groups": groups})


def with_prefix(tensors: Tensors, prefix: str) -> Tensors:
    """Return the tensors whose names begin with a prefix, without it."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _laid_out(value: Any, parameter: torch.Tensor) -> Any:
    """Give a moment its parameter's memory layout, because sums in another order would change the bits."""
    if not isinstance(value, torch.Tensor) or value.shape != parameter.shape:
        return value
    return torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def _changes(value: object) -> bool:
    """Return whether a setting of a parameter group may change during training: a rate or a count."""
    return isinstance(value, torch.Tensor) or (isinstance(value, int | float) and not isinstance(value, bool))


def _digest(tensors: Tensors, text: str) -> str:
    hasher = hashlib.blake2b(text.encode(), digest_size=16)
    for name, tensor in sorted(tensors.items()):
        hasher.update(f"{name}{tensor.dtype}{tuple(tensor.shape)}".encode())
        hasher.update(tensor.flatten().view(torch.uint8).numpy().data)
    return hasher.hexdigest()
