from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from images_of import all_images
from sklearn.datasets import load_digits

import harness
from harness_plugins.datasets.arrays import ArrayDataset
from harness_plugins.datasets.digits import SPLITS, open_digits


def split(name: str | None) -> ArrayDataset:
    return open_digits(harness.DatasetRequest("digits", split=name))


def test_the_splits_are_disjoint_by_content_and_hold_every_digit_once() -> None:
    identities = Counter(part.identity(i) for part in map(split, SPLITS) for i in range(len(part)))
    expected = Counter(
        np.rint(image * 255 / 16).astype(np.uint8).tobytes() for image in load_digits()["images"]
    )
    assert identities == expected
    assert set(identities.values()) == {1}


def test_every_class_is_divided_sixty_fifteen_twenty_five() -> None:
    sizes = np.bincount(load_digits()["target"])
    for name, share in (("train", 0.6), ("validation", 0.15), ("test", 0.25)):
        np.testing.assert_allclose(np.bincount(split(name).labels), share * sizes, atol=1.01)


def test_pixels_fill_zero_to_255_in_seventeen_steps() -> None:
    values = np.unique(all_images(split("train")))
    assert values.tolist() == [round(x * 255 / 16) for x in range(17)]


def test_images_carry_their_own_labels() -> None:
    labels = {
        np.rint(image * 255 / 16).astype(np.uint8).tobytes(): label
        for image, label in zip(load_digits()["images"], load_digits()["target"], strict=True)
    }
    test = split("test")
    assert [labels[test.identity(i)] for i in range(len(test))] == test.labels.tolist()


def test_a_split_is_the_same_at_every_call_whatever_the_global_seed() -> None:
    np.random.seed(1)
    first = split("test").digest
    np.random.seed(2)
    assert split("test").digest == first
    assert split("train").digest != first


@pytest.mark.parametrize("name", [None, "tset"])
def test_a_missing_or_unknown_split_names_the_valid_ones(name: str | None) -> None:
    with pytest.raises(harness.HarnessError, match="Valid: test, train, validation"):
        split(name)


def test_equal_arrays_have_equal_digests_and_any_change_another() -> None:
    images = np.arange(32, dtype=np.uint8).reshape(2, 4, 4)
    labels = np.array([0, 1])
    pixel = images.copy()
    pixel[1, 3, 3] ^= 1
    digests = [
        ArrayDataset(images, labels).digest,
        ArrayDataset(pixel, labels).digest,
        ArrayDataset(images, labels[::-1]).digest,
        ArrayDataset(images[::-1], labels).digest,
        ArrayDataset(images.reshape(2, 2, 8), labels).digest,
        ArrayDataset(images).digest,
    ]
    assert len(set(digests)) == len(digests)
    assert ArrayDataset(images.copy(), labels.copy()).digest == digests[0]


def test_an_array_dataset_cannot_be_changed_through_its_images() -> None:
    dataset = ArrayDataset(np.zeros((1, 2, 2), dtype=np.uint8))
    dataset[0][:] = 9
    assert dataset[0].tolist() == [[0, 0], [0, 0]]
    assert isinstance(dataset, harness.ImageDataset)


@pytest.mark.parametrize("images", [np.zeros((2, 4, 4)), np.zeros((2, 4, 4, 4), dtype=np.uint8)])
def test_arrays_of_another_type_or_shape_are_refused(images: np.ndarray) -> None:
    with pytest.raises(harness.InputError, match="Give uint8"):
        ArrayDataset(images)


def test_labels_of_another_length_are_refused() -> None:
    with pytest.raises(harness.InputError, match=r"Give \(2,\)"):
        ArrayDataset(np.zeros((2, 4, 4), dtype=np.uint8), np.zeros(3, dtype=np.int64))
