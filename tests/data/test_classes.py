"""Names of classes are found among others as people spell them, and never by guessing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from harness.base.errors import DatasetError, InputError, shortened
from harness.contract.selection import Selection
from harness.data.classes import numbered_as, numbers_of, read_class_map


class Named:
    """Three images without content."""

    digest = "0"

    def __init__(self, labels: list[int], names: tuple[str, ...] | None) -> None:
        self.labels, self.class_names = np.array(labels), names

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> np.ndarray:
        return np.zeros((1, 1), dtype=np.uint8)

    def identity(self, index: int) -> bytes:
        return bytes([index])


def selection(labels: list[int], names: tuple[str, ...] | None) -> Selection:
    return Selection.all_of("given", Named(labels, names))


@pytest.mark.parametrize(
    ("names", "known", "synonyms", "expected"),
    [
        (["10", "2", "1"], ["1", "10", "2"], None, [1, 2, 0]),
        (["Great_White-Shark"], ["cat", "great white shark"], None, [1]),
        (["cat", "Cat"], ["Cat", "cat"], None, [1, 0]),  # the exact spelling goes first
        (["CAT"], ["Cat", "cat"], None, [-1]),  # it fits two
        (["goldfish"], ["n01443537", "n01440764"], ["goldfish, Carassius auratus", "tench"], [0]),
        (["crane"], ["a", "b"], ["crane", "crane"], [-1]),  # a bird and a machine
        (["dog"], ["cat"], None, [-1]),
    ],
)
def test_numbers_by_name(
    names: list[str], known: list[str], synonyms: list[str] | None, expected: list[int]
) -> None:
    assert numbers_of(names, known, synonyms).tolist() == expected


def test_a_selection_is_renumbered_by_its_names() -> None:
    found = numbered_as(
        selection([0, 1, 2, -1], ("dog", "cat", "eel")), ("cat", "dog", "eel"), what="it", whose="ID"
    )
    assert found.labels.tolist() == [1, 0, 2, -1]
    assert found.class_names == ("cat", "dog", "eel")


def test_a_class_that_does_not_occur_may_be_unknown() -> None:
    found = numbered_as(selection([0, 0], ("dog", "yak")), ("cat", "dog"), what="it", whose="ID")
    assert found.labels.tolist() == [1, 1]


def test_classes_that_differ_are_named() -> None:
    with pytest.raises(DatasetError, match="it has classes that ID lacks: yak. ID has cat, dog"):
        numbered_as(selection([0, 1], ("dog", "yak")), ("cat", "dog"), what="it", whose="ID")
    with pytest.raises(DatasetError, match="it has two names for the class 'cat': cat, CAT"):
        numbered_as(selection([0, 1], ("cat", "CAT")), ("cat", "dog"), what="it", whose="ID")
    with pytest.raises(DatasetError, match="it has labels up to 2, but ID has the 2 classes cat, dog"):
        numbered_as(selection([0, 2], None), ("cat", "dog"), what="it", whose="ID")


def test_classes_are_kept_by_name_or_number() -> None:
    given = selection([0, 1, 2, 1], ("dog", "cat", "eel"))
    for classes in (["eel", "cat"], [2, 1]):
        kept = given.with_classes(classes)
        assert kept.labels.tolist() == [1, 0, 1]
        assert kept.class_names == ("eel", "cat")
        assert kept.num_classes == 2
    with pytest.raises(DatasetError, match="no names for its classes, so 'eel' is none"):
        selection([0], None).with_classes(["eel"])


def test_the_number_of_classes_is_what_the_data_say() -> None:
    assert selection([0, 1], tuple("abcd")).num_classes == 4  # two of them do not occur
    assert selection([0, 5], None).num_classes == 6
    assert selection([-1, -1], None).num_classes == 0
    with pytest.raises(DatasetError, match="has the label 2, but names only 2 classes"):
        selection([0, 2], ("a", "b"))


def test_a_class_map_has_a_line_for_each_class(tmp_path: Path) -> None:
    (tmp_path / "map.txt").write_text("\ufeffcat\ttabby, tabby cat\n\ndog, 7\n")
    assert read_class_map("map.txt", tmp_path) == {"cat": "tabby, tabby cat", "dog": "7"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cat dog", "line 1 of map.txt is 'cat dog'. Write the data's class, a tab or comma"),
        ("cat,1\ncat,2", "map.txt has two lines for 'cat'"),
        (b"\xff\xfe\x00", "cannot read .*map.txt.*UTF-8"),
    ],
)
def test_a_faulty_class_map_is_told(tmp_path: Path, text: str | bytes, message: str) -> None:
    (tmp_path / "map.txt").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=message):
        read_class_map("map.txt", tmp_path)


def test_a_missing_class_map_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no file 'gone.txt'"):
        read_class_map("gone.txt", tmp_path)


def test_a_long_list_is_cut() -> None:
    assert shortened(range(5)) == "0, 1, 2, 3, 4"
    assert shortened(range(925)) == "0, 1, 2, 3, 4 and 920 more"


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.array([0.0, 1.5]), "has labels of type float64. Give integers"),
        (np.array([0, -2]), "has the label -2. Give classes from 0, and -1 for none"),
        (np.array([0, 1, 1]), "has 3 labels for 2 images"),
    ],
)
def test_labels_that_are_none_are_refused(labels: np.ndarray, message: str) -> None:
    dataset = Named([0, 1], None)
    dataset.labels = labels
    dataset.__class__ = type("Two", (Named,), {"__len__": lambda _: 2})
    with pytest.raises(DatasetError, match=message):
        Selection.all_of("given", dataset)


def test_an_image_without_an_identity_is_one_line() -> None:
    class Faulty(Named):
        def identity(self, index: int) -> bytes:
            raise ZeroDivisionError("by design")

    with pytest.raises(
        DatasetError, match="'given' raised ZeroDivisionError: by design for the identity of image 0"
    ):
        _ = Selection.all_of("given", Faulty([0, 1], None)).identities
