"""Every key of the harness: what a stored number depends on, and nothing else.

docs/cache.md holds the table of what invalidates what; tests/test_digests.py turns it into checks.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
import inspect
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.base.deferred import Deferred

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from numpy.typing import NDArray
    from torch import nn

EXTRACTION_VERSION = 1  # bump when extraction changes a feature
SCORING_VERSION = 2  # bump when a metric or an interval changes


def digest(*parts: object) -> str:
    """Hash JSON-like values in canonical form: 32 hexadecimal digits."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), default=str, allow_nan=False)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def array_digest(array: NDArray[Any]) -> str:
    """Hash an array's type, shape and bytes."""
    import numpy as np

    hasher = hashlib.blake2b(f"{array.dtype.str}{array.shape}".encode(), digest_size=16)
    hasher.update(np.ascontiguousarray(array).data)
    return hasher.hexdigest()


def model_digest(classifier: nn.Module, builder_source: str) -> str:
    """Hash a model's weights, buffers, architecture and the code that built it."""
    hasher = hashlib.blake2b(f"{classifier!r}{builder_source}".encode(), digest_size=16)
    for name, tensor in sorted(classifier.state_dict().items()):
        hasher.update(f"{name}{tensor.dtype}{tuple(tensor.shape)}".encode())
        hasher.update(tensor.detach().cpu().contiguous().flatten().view(_torch_uint8()).numpy().data)
    return hasher.hexdigest()


def features_key(
    *,
    model: str,
    preprocessing: Mapping[str, object],
    stream: str,
    adapter: Mapping[str, object],
    dtype: str,
    fields: Iterable[str],
    libraries: Mapping[str, str],
) -> str:
    """Name the features of one stream under one model."""
    return digest(
        "features",
        EXTRACTION_VERSION,
        model,
        preprocessing,
        stream,
        adapter,
        dtype,
        sorted(fields),
        libraries,
    )


def cell_id(
    *, suite: str, model: str, seed: int, adapter: str, protocol: str, scorer: str, id_name: str, ood: str
) -> str:
    """Name a cell's place on the leaderboard. Whatever is measured there again replaces it."""
    return digest("cell", suite, model, seed, adapter, protocol, scorer, id_name, ood)


def code_id(
    *,
    id_features: str,
    ood_features: str,
    fit: Mapping[str, str],
    scorer: str,
    params: Mapping[str, object],
    source: str,
    version: str,
    libraries: Mapping[str, str],
) -> str:
    """Name all that a cell's numbers depend on: features, fit selection, scorer, parameters and its code."""
    return digest(
        "score", SCORING_VERSION, id_features, ood_features, fit, scorer, params, source, version, libraries
    )


def probe_code_id(
    *,
    features: str,
    fit: Mapping[str, str],
    probe: str,
    params: Mapping[str, object],
    source: str,
    version: str,
    libraries: Mapping[str, str],
) -> str:
    """Name all that a probe's number depends on."""
    return digest("probe", SCORING_VERSION, features, fit, probe, params, source, version, libraries)


def estimate_code_id(
    *,
    features: str,
    fit: Mapping[str, str],
    peer: str | None,
    estimator: str,
    params: Mapping[str, object],
    seed: int,
    source: str,
    version: str,
    libraries: Mapping[str, str],
) -> str:
    """Name all that an estimate depends on."""
    return digest(
        "estimate", SCORING_VERSION, features, fit, peer, estimator, params, seed, source, version, libraries
    )


def adaptation_code_id(
    *,
    streams: Iterable[str],
    fit: Mapping[str, str],
    adapter: str,
    params: Mapping[str, object],
    protocol: str,
    after: bool,
    source: str,
    version: str,
) -> str:
    """Name all that the numbers of an adapter depend on: the source's features of the streams that it met, in order."""
    return digest(
        "adaptation", SCORING_VERSION, list(streams), fit, adapter, params, protocol, after, source, version
    )


def file_digest(path: Path) -> str:
    """Hash a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def source_digest(builder: Callable[..., Any]) -> str:
    """Hash the code behind a builder: its module and every module of the same package that this one imports.

    The imports are read, not run, so that an edited file counts even before it is loaded. Code of other
    distributions counts by its version instead.
    """
    target = builder
    while isinstance(target, functools.partial | Deferred):
        target = target.target if isinstance(target, Deferred) else target.func
    module = inspect.getmodule(target) or inspect.getmodule(type(target))
    origin = getattr(module, "__file__", None)
    if module is None or origin is None:
        return digest("no source", repr(target))
    files = _package_files(module.__name__, Path(origin))
    # The module's own name is left out: a plugin file may be loaded under another.
    return digest(
        {name if name != module.__name__ else "": file_digest(path) for name, path in files.items()}
    )


def _package_files(module: str, path: Path) -> dict[str, Path]:
    """Follow imports from a module within its top-level package: {module name: file}."""
    found = {module: path}
    waiting = [module]
    top = module.partition(".")[0]
    while waiting:
        current = waiting.pop()
        if found[current].suffix != ".py":
            continue
        for name in _imported_names(current, found[current]):
            if name.partition(".")[0] == top and name not in found:
                file = _module_file(name)
                if file is not None:
                    found[name] = file
                    waiting.append(name)
    return found


def _imported_names(module: str, path: Path) -> set[str]:
    names: set[str] = set()
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")
                parents = parents[: len(parents) - node.level + 1]
                base = ".".join([*parents, base] if base else parents)
            names |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
    return names


def _module_file(name: str) -> Path | None:
    """Find a module's file by its package's folders. `find_spec` would import the packages on the way."""
    top, *rest = name.split(".")
    spec = sys.modules[top].__spec__ if top in sys.modules else importlib.util.find_spec(top)
    if spec is None:
        return None
    if not rest:
        return Path(spec.origin) if spec.has_location and spec.origin else None
    for folder in spec.submodule_search_locations or ():
        path = Path(folder, *rest)
        for file in (path.with_name(f"{path.name}.py"), path / "__init__.py"):
            if file.is_file():
                return file
    return None


def _torch_uint8() -> Any:
    import torch

    return torch.uint8
