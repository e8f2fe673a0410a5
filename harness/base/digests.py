"""All keys of the harness. A key hashes everything that a stored number depends on, and nothing else.

The table in docs/cache.md shows which change invalidates which key; tests/base/test_digests.py checks it.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray
    from torch import nn

EXTRACTION_VERSION = 2  # bump when extraction changes a feature
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
    """Hash a model's weights, buffers and architecture, and the digest of the code that built it."""
    import torch

    hasher = hashlib.blake2b(f"{classifier!r}{builder_source}".encode(), digest_size=16)
    for name, tensor in sorted(classifier.state_dict().items()):
        hasher.update(f"{name}{tensor.dtype}{tuple(tensor.shape)}".encode())
        hasher.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
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
    """Return the key of the features of one stream, computed by one model."""
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
    """Return the id of a cell on the leaderboard. A newer record with the same id replaces the older one."""
    return digest("cell", suite, model, seed, adapter, protocol, scorer, id_name, ood)
