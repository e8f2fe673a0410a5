"""Values on their way between two processes: copies, but for files that are mapped and functions that stay."""

from __future__ import annotations

import io
import mmap
import pickle
import types
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.base.errors import describe
from harness.base.strangers import RAISED

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    Ask = Callable[[int, tuple[Any, ...]], Any]


class Sender:
    """Packs values, and answers for the local functions among them, which cannot travel."""

    def __init__(self) -> None:
        self._staying: list[Callable[..., Any]] = []

    def packed(self, value: Any) -> bytes:
        """Return a value's bytes. Raises anything for a value that cannot be copied."""
        buffer = io.BytesIO()
        _Pickler(buffer, self._staying).dump(value)
        return buffer.getvalue()

    def answer(self, number: int, arguments: tuple[Any, ...]) -> bytes:
        """Call a function that stayed, and return the bytes of (True, its result) or (False, its error)."""
        try:
            return self.packed((True, self._staying[number](*arguments)))
        except RAISED as error:
            return self.packed((False, describe(error)))


@dataclass(frozen=True)
class Asked:
    """Rows that are asked for when they are indexed; give it a local function, which stays where the rows are."""

    length: int
    rows: Callable[[slice | NDArray[np.int64]], Any]

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: slice | NDArray[np.int64]) -> Any:
        return self.rows(index)


def received(message: bytes, ask: Ask | None = None) -> Any:
    """Return the value of some bytes; `ask` calls a function that stayed with the sender."""
    return _Unpickler(io.BytesIO(message), ask).load()


class _Pickler(pickle.Pickler):
    def __init__(self, file: io.BytesIO, staying: list[Callable[..., Any]]) -> None:
        super().__init__(file, protocol=5)
        self._staying = staying

    def persistent_id(self, obj: Any) -> int | None:
        """Return the number of a local function, which stays."""
        if isinstance(obj, types.FunctionType) and "<locals>" in obj.__qualname__:
            self._staying.append(obj)
            return len(self._staying) - 1
        return None

    def reducer_override(self, obj: Any) -> Any:
        """Send an array that is a whole mapped file by the file's name, and a tensor as NumPy's bytes."""
        import numpy as np

        if type(obj) is np.memmap and isinstance(obj.base, mmap.mmap) and obj.filename is not None:
            order = "C" if obj.flags.c_contiguous else "F"
            return np.memmap, (str(obj.filename), obj.dtype, "r", obj.offset, obj.shape, order)
        if _is_plain_tensor(obj):
            return _tensor, (obj.numpy(),)
        return NotImplemented


def _is_plain_tensor(obj: Any) -> bool:
    """Return whether NumPy's bytes are all that there is to a tensor."""
    import numpy as np
    import torch

    if type(obj) is not torch.Tensor or obj.device.type != "cpu" or obj.layout is not torch.strided:
        return False
    return not (obj.requires_grad or obj.is_quantized or obj.is_conj() or obj.is_neg()) and _has_numpy(
        obj, np
    )


def _has_numpy(tensor: Any, numpy: Any) -> bool:
    try:
        return isinstance(tensor.numpy(), numpy.ndarray)
    except (TypeError, RuntimeError):  # bfloat16, and numbers of one byte
        return False


def _tensor(array: Any) -> Any:
    import torch

    return torch.from_numpy(array)


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, ask: Ask | None) -> None:
        super().__init__(file)
        self._ask = ask

    def persistent_load(self, number: int) -> Any:
        """Return a function that asks the sender."""

        def call(*arguments: Any) -> Any:
            if self._ask is None:
                raise pickle.UnpicklingError("a local function cannot be sent back")
            return self._ask(number, arguments)

        return call
