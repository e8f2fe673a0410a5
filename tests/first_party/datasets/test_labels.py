"""Label columns of every type that people store, with the names of the classes if there are any."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import datasets
import pyarrow as pa
import pytest

import harness
from harness_plugins.datasets.labels import read_labels

if TYPE_CHECKING:
    from collections.abc import Mapping

REQUEST = harness.DatasetRequest("hf:t", argument="t")


def read(columns: Mapping[str, Any], column: str | None = None, **rest: Any) -> Any:
    table = datasets.Dataset(pa.table(dict(columns)))
    for name, feature in rest.items():
        table = table.cast_column(name, feature)
    return read_labels(REQUEST, table, column)


@pytest.mark.parametrize("width", ["uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64"])
def test_integers_of_any_width(width: str) -> None:
    labels, names = read({"label": pa.array([2, 0, None], type=getattr(pa, width)())})
    assert labels.tolist() == [2, 0, -1]
    assert labels.dtype == "int64"
    assert names is None


def test_booleans_are_two_classes() -> None:
    labels, names = read({"label": pa.array([True, False, None])})
    assert labels.tolist() == [1, 0, -1]
    assert names is None


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()])
def test_strings_are_numbered_in_sorted_order_and_keep_their_names(kind: pa.DataType) -> None:
    labels, names = read({"label": pa.array(["dog", "cat", None, "dog"], type=kind)})
    assert labels.tolist() == [1, 0, -1, 1]
    assert names == ("cat", "dog")


def test_classes_with_names_keep_them() -> None:
    labels, names = read({"label": [1, 0]}, label=datasets.ClassLabel(names=["low", "mid", "high"]))
    assert labels.tolist() == [1, 0]
    assert names == ("low", "mid", "high")


@pytest.mark.parametrize(
    ("values", "kind"), [([0.0, 1.0], "double|float64"), ([[0], [1]], "List|list|Sequence")]
)
def test_a_column_of_no_classes_is_told_with_the_others(values: list[Any], kind: str) -> None:
    with pytest.raises(harness.DatasetError, match=rf"'target' of 'hf:t' holds .*({kind}).*other \(int64\)"):
        read({"target": values, "other": [1, 2]}, "target")


def test_labels_below_minus_one_are_refused() -> None:
    with pytest.raises(harness.DatasetError, match="labels that are no classes"):
        read({"label": [0, -2]})
    with pytest.raises(harness.DatasetError, match="labels that are no classes"):
        read({"label": pa.array([2**63], type=pa.uint64())})


def test_a_column_of_another_name_is_named_with_its_key(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        labels, _ = read({"target": [1, 2], "x": ["a", "b"]})
    assert labels.tolist() == [-1, -1]
    assert "hf:t counts as unlabelled" in caplog.text
    assert "target (int64), x (string). Name one with label_column" in caplog.text
    labels, _ = read({"target": [1, 2]}, "target")
    assert labels.tolist() == [1, 2]
