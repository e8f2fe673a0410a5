"""Selections are what they say, disjoint where they must be, and their faults are named."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from toys import TOY_PLUGIN

from harness.base.errors import DatasetError
from harness.contract.registry import Registry
from harness.contract.selection import Selection
from harness.data.opening import open_id, open_set
from harness.data.sets import set_entries
from harness.evaluations.run import read_suite


class Bare:
    """Labels alone, for what needs no images."""

    def __init__(self, labels: list[int]) -> None:
        self.labels = np.array(labels, dtype=np.int64)
        self.digest = str(labels)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> np.ndarray:
        return np.full((1, 1), index, dtype=np.uint8)

    def identity(self, index: int) -> bytes:
        return bytes([index])


def of(labels: list[int]) -> Selection:
    return Selection.all_of("bare", Bare(labels))


def test_classes_are_kept_and_renumbered_in_the_order_given() -> None:
    chosen = of([5, 6, 7, 5, 7]).with_classes([7, 5])
    assert chosen.indices.tolist() == [0, 2, 3, 4]
    assert chosen.labels.tolist() == [1, 0, 1, 0]
    assert chosen.num_classes == 2


def test_an_absent_class_is_named_with_those_present() -> None:
    with pytest.raises(DatasetError, match=r"no samples of classes 3\. Classes present: 0, 1"):
        of([0, 1]).with_classes([1, 3])


@given(st.lists(st.integers(0, 3), min_size=1, max_size=60), st.floats(0.05, 0.95), st.integers(0, 5))
def test_a_split_is_disjoint_whole_and_takes_its_share_of_each_class(
    labels: list[int], share: float, seed: int
) -> None:
    rest, held = of(labels).split(share, seed=seed)
    assert sorted([*rest.indices, *held.indices]) == list(range(len(labels)))
    for label in set(labels):
        assert (held.labels == label).sum() == round(share * labels.count(label))


def test_a_split_and_a_limit_follow_their_seed() -> None:
    whole = of([0] * 50)
    assert whole.split(0.5, seed=1)[1].digest == whole.split(0.5, seed=1)[1].digest
    assert whole.split(0.5, seed=1)[1].digest != whole.split(0.5, seed=2)[1].digest
    assert whole.limited(9, seed=1).digest != whole.limited(9, seed=2).digest
    assert len(whole.limited(9)) == 9
    assert whole.limited(99) is whole


def opened(suite: dict[str, Any]) -> Any:
    registry = Registry.load([TOY_PLUGIN])
    return open_id(read_suite(suite, registry, source="toy.toml").id, registry)


def test_a_holdout_is_disjoint_from_train_by_content(toy_suite: dict[str, Any]) -> None:
    toy_suite["id"]["validation"] = {"holdout": 0.25, "seed": 3}
    data = opened(toy_suite)
    assert (len(data.train), len(data.validation)) == (30, 10)  # of 14, 13 and 13 samples, 4, 3 and 3
    assert data.check_disjoint() == {"train and validation": 0, "train and test": 0, "validation and test": 0}


def test_parts_that_share_images_are_refused_with_the_count(toy_suite: dict[str, Any]) -> None:
    toy_suite["id"]["validation"] = {"split": "train"}
    with pytest.raises(DatasetError, match=r"ID train and validation share 40 images, the smaller has 40"):
        opened(toy_suite).check_disjoint()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"params": {"classes": 1}}, "'levels' has one class only"),
        ({"params": {"count": 0}}, "is empty"),
        ({"classes": [0, 9]}, r"no samples of classes 9"),
        (
            {"params": {"classes": 2, "count": 4}, "validation": {"holdout": 0.9}, "train": {"limit": 2}},
            "train of dataset 'levels' is empty",
        ),
        ({"test": {"split": "tset"}}, "levels has no split 'tset'. Valid: train, validation, test"),
    ],
)
def test_faulty_id_data_is_named(toy_suite: dict[str, Any], change: dict[str, Any], message: str) -> None:
    toy_suite["id"] |= change
    with pytest.raises(DatasetError, match=message):
        opened(toy_suite)


def test_a_shifted_set_without_ids_labels_is_refused(toy_suite: dict[str, Any]) -> None:
    toy_suite["shift"] = [{"name": "other", "dataset": "levels", "params": {"classes": 5}}]
    registry = Registry.load([TOY_PLUGIN])
    suite = read_suite(toy_suite, registry, source="toy.toml")
    entry = next(entry for entry in set_entries(suite.ood, suite.shift, registry) if entry.name == "other")
    with pytest.raises(DatasetError, match="shifted set 'other' has labels from 0 to 4 where ID has 0 to 2"):
        open_set(entry, open_id(suite.id, registry), registry)
