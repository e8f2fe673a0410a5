"""The label column of a table: integers or booleans of any width, strings, or classes with names."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np

import harness

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Labels = tuple[NDArray[np.int64], tuple[str, ...] | None]  # (N,), -1 for none, and the names by label

LABEL_COLUMNS = ("label", "labels", "fine_label", "coarse_label")
STRINGS = ("string", "large_string", "string_view")

logger = logging.getLogger("ood_harness")


def read_labels(request: harness.DatasetRequest, table: Any, wanted: str | None) -> Labels:
    """Read the labels of a `datasets.Dataset`, and the names of their classes, if the column has any.

    Args:
        request: the request, for messages; if it asks for labels, a table without a label column is warned of.
        table: the dataset.
        wanted: the column; None: the first of LABEL_COLUMNS that holds classes.

    Raises UnknownNameError for a column that is not there, and DatasetError for one that holds no classes.

    """
    column = wanted if wanted is not None else _default(request, table.features)
    if column is None:
        return np.full(len(table), -1, dtype=np.int64), None
    if column not in table.features:
        raise harness.unknown_name(
            f"column of {request.name!r}", column, table.features, valid_label="Columns"
        )
    feature = table.features[column]
    if not _holds_classes(feature):
        raise harness.DatasetError(
            f"the column {column!r} of {request.name!r} holds {_type_of(feature)}, which is no class. Columns: "
            f"{_described(table.features)}. Name one of integers, booleans or strings with label_column"
        )
    stored = table.select_columns([column]).with_format("arrow")[:][column]
    if _type_of(feature) in STRINGS:
        return _encoded(stored)
    names = getattr(feature, "names", None)
    return _integers(request, column, stored), tuple(names) if names is not None else None


def _default(request: harness.DatasetRequest, features: Any) -> str | None:
    """Choose the column by its name. A request that asks for labels is told if there is none."""
    named = [name for name in LABEL_COLUMNS if name in features]
    holding = [name for name in named if _holds_classes(features[name])]
    if request.labelled and not holding:
        logger.warning(
            "%s counts as unlabelled: no column of classes is called %s. Columns: %s. Name one with label_column",
            request.name,
            ", ".join(LABEL_COLUMNS),
            _described(features),
        )
    return holding[0] if holding else None


def _holds_classes(feature: Any) -> bool:
    kind = _type_of(feature)
    return kind in (*STRINGS, "bool") or kind.startswith(("int", "uint"))


def _type_of(feature: Any) -> str:
    return str(getattr(feature, "dtype", type(feature).__name__))


def _described(features: Any) -> str:
    return ", ".join(f"{name} ({_type_of(feature)})" for name, feature in features.items())


def _encoded(stored: Any) -> Labels:
    """Give strings their numbers in sorted order."""
    import pyarrow

    names = sorted(name for name in stored.unique().to_pylist() if name is not None)
    numbers = pyarrow.compute.index_in(stored, pyarrow.array(names, type=stored.type))
    return np.asarray(numbers.fill_null(-1).to_numpy(), dtype=np.int64), tuple(names)


def _integers(request: harness.DatasetRequest, column: str, stored: Any) -> NDArray[np.int64]:
    import pyarrow

    try:
        numbers = np.asarray(stored.cast(pyarrow.int64()).fill_null(-1).to_numpy(), dtype=np.int64)
    except pyarrow.ArrowInvalid:
        numbers = None
    if numbers is None or numbers.min(initial=0) < -1:
        raise harness.DatasetError(
            f"the column {column!r} of {request.name!r} has labels that are no classes: below -1, or above 2^63. "
            "Give classes from 0 upwards, and -1 or nothing for an image without one"
        )
    return numbers
