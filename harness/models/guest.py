"""A copy of a model for plugins that forward images by themselves, so that none can change the model for others."""

from __future__ import annotations

import copy
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from harness.base.errors import InputError, shortened

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor, nn

    from harness.contract.protocols import Classifier


class Guest:
    """Lends a copy of a model. A copy that comes back changed is replaced, and whoever changed it is told.

    The original is never lent, so neither the cache nor another plugin can see such a change.
    """

    def __init__(self, module: nn.Module) -> None:
        self._original = module
        self._copy: nn.Module | None = None
        self._form: tuple[object, ...] = ()

    @contextmanager
    def lent(self) -> Iterator[Classifier]:
        """Lend the copy, in evaluation mode and without gradients. Raises InputError if it comes back changed."""
        lent: Any = self._made()
        lent.zero_grad(set_to_none=True)
        try:
            yield lent
        except BaseException:
            if self._changes():
                self._copy = None
            raise
        if changes := self._changes():
            self._copy = None
            raise InputError(
                f"changed the model ({shortened(changes)}), which other scorers read too. Change a copy: "
                "copy.deepcopy(model)"
            )

    def _made(self) -> nn.Module:
        if self._copy is None:
            self._copy = copy.deepcopy(self._original).eval()
            self._form = _form(self._copy)
        return self._copy

    def _changes(self) -> list[str]:
        """List what differs from the original: weights and buffers by name, else the module's form."""
        import torch

        if self._copy is None:
            return []
        own, lent = self._original.state_dict(), self._copy.state_dict()
        if own.keys() != lent.keys():
            return sorted(own.keys() ^ lent.keys())
        changed = [name for name, tensor in own.items() if not _is_same(tensor, lent[name], torch)]
        return changed or ([] if _form(self._copy) == self._form else ["its modes, hooks or attributes"])


def _is_same(own: Tensor, lent: Tensor, torch: Any) -> bool:
    """Compare exactly; NaN equals NaN."""
    if own.shape != lent.shape or own.dtype != lent.dtype or own.device != lent.device:
        return False
    if torch.equal(own, lent):
        return True
    return own.is_floating_point() and bool(((own == lent) | (own.isnan() & lent.isnan())).all())


def _form(module: nn.Module) -> tuple[object, ...]:
    """Describe what decides on a forward pass beside the weights: modes, gradients, hooks, replaced methods.

    Plain attributes are left out: a model may keep a cache in them.
    """
    gradients = tuple(parameter.requires_grad for parameter in module.parameters())
    return repr(module), gradients, tuple(_of_one(part) for part in module.modules())


def _of_one(module: nn.Module) -> tuple[object, ...]:
    methods = {
        name: id(value)
        for name, value in vars(module).items()
        if callable(value) and hasattr(type(module), name)
    }
    hooks = {
        name: tuple(map(id, value.values()))
        for name, value in vars(module).items()
        if name.endswith("hooks") and isinstance(value, dict)
    }
    return module.training, tuple(sorted(methods.items())), tuple(sorted(hooks.items()))
