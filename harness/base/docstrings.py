"""Reads what a builder's source says about it. A deferred builder is not imported for its docstring."""

from __future__ import annotations

import ast
import functools
import importlib.util
import inspect
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.base.deferred import Deferred, unwrapped

if TYPE_CHECKING:
    from collections.abc import Callable

_SENTENCE = re.compile(r"(?<!\bal)\.\s+(?=[A-Z])")  # "et al. Title" goes on


def docstring(builder: Callable[..., Any]) -> str:
    """Return the docstring of a builder's class or function, without its indentation; "" if it has none."""
    while isinstance(builder, functools.partial):
        builder = builder.func
    found = _of_address(builder.address) if isinstance(builder, Deferred) else _of_object(builder)
    return inspect.cleandoc(found or "")


def summary(text: str) -> str:
    """Return the first sentence of a docstring, on one line."""
    first = " ".join(text.partition("\n\n")[0].split())
    return _SENTENCE.split(first, maxsplit=1)[0].removesuffix(".")


def comments(builder: Callable[..., Any]) -> dict[str, str]:
    """Return the comments beside a builder's parameters, by their names. This imports a deferred builder."""
    target = unwrapped(builder)
    found: dict[str, str] = {}
    for part in reversed(inspect.getmro(target)) if inspect.isclass(target) else [target]:
        found |= dict(re.findall(r"^\s+(\w+): [^#\n]*  # (.+)$", _source(part), flags=re.MULTILINE))
    return found


def _of_object(builder: Any) -> str | None:
    """Return an object's own docstring; not that of a base class, nor the signature that a dataclass writes."""
    own: str | None = vars(builder).get("__doc__") if inspect.isclass(builder) else builder.__doc__
    name = getattr(builder, "__name__", "")
    return None if own is None or own.startswith(f"{name}(") else own


def _of_address(address: str) -> str | None:
    """Read the docstring of "package.module:name" in the module's file."""
    module, _, name = address.partition(":")
    try:
        spec = importlib.util.find_spec(module)
        tree = ast.parse(Path(spec.origin or "").read_bytes()) if spec is not None else ast.Module([], [])
    except (ImportError, OSError, SyntaxError, ValueError):
        return None  # its import says what is wrong
    named = ast.ClassDef | ast.FunctionDef
    return next((ast.get_docstring(n) for n in tree.body if isinstance(n, named) and n.name == name), None)


def _source(part: Any) -> str:
    try:
        return inspect.getsource(part)
    except (OSError, TypeError):
        return ""
