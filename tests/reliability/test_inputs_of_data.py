"""Data and weights of a wrong type are refused by name, in one line, and nothing of them is cached."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from journals import records_of
from toys import TOY_PLUGIN

import harness
from harness import Selection
from harness.contract.registry import Registry
from harness.engine.runner import RunOptions
from harness.evaluations.run import plan_suite, run_plan

pytestmark = pytest.mark.trials("inputs")


class Given:
    """Forty 8-bit images of 4x4, each of which a function may change."""

    def __init__(self, change: Callable[[int, np.ndarray], Any] | None = None) -> None:
        rng = np.random.default_rng(0)
        self._images = rng.integers(0, 256, (40, 4, 4)).astype(np.uint8)
        self._change = change or (lambda _, image: image)
        self.labels: Any = np.arange(40) % 3
        self.digest: Any = "given"

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> Any:
        return self._change(index, self._images[index])

    def identity(self, index: int) -> bytes:
        return self._images[index].tobytes()


class Batches(Given):
    """Images that are decoded together, one too few."""

    def images_at(self, indices: list[int]) -> list[np.ndarray]:
        return [self[index] for index in indices[1:]]


class Long(Given):
    """A length that is not that of the images."""

    def __init__(self) -> None:
        super().__init__()
        self.labels = np.zeros(50, dtype=int)

    def __len__(self) -> int:
        return 50

    def identity(self, index: int) -> bytes:
        return bytes([index])


def last(image: Any) -> Callable[[int, np.ndarray], Any]:
    """Change the last image only."""
    return lambda index, given: image if index == 39 else given


RNG = np.random.default_rng(0)
ONES = np.ones((4, 4))
IMAGES: dict[str, tuple[Callable[[], Any], str]] = {
    "float": (lambda: Given(lambda _, image: image / np.float32(255)), "float32 of shape (4, 4) as image 0"),
    "float64": (lambda: Given(lambda _, image: image / 255), "float64 of shape (4, 4) as image 0"),
    "uint16": (lambda: Given(lambda _, image: image.astype(np.uint16)), "uint16 of shape (4, 4) as image 0"),
    "int64": (lambda: Given(lambda _, image: image.astype(int)), "int64 of shape (4, 4) as image 0"),
    "bool": (lambda: Given(lambda _, image: image > 3), "bool of shape (4, 4) as image 0"),
    "one value": (lambda: Given(lambda _, image: image[0, 0]), "a uint8 as image 0"),
    "one row": (lambda: Given(lambda _, image: image[0]), "uint8 of shape (4,) as image 0"),
    "a stack": (lambda: Given(lambda _, image: image[None, None]), "uint8 of shape (1, 1, 4, 4) as image 0"),
    "channels first": (lambda: Given(lambda _, i: np.stack([i] * 3)), "uint8 of shape (3, 4, 4) as image 0"),
    "two channels": (lambda: Given(lambda _, i: np.stack([i] * 2, 2)), "uint8 of shape (4, 4, 2) as image 0"),
    "four channels": (
        lambda: Given(lambda _, i: np.stack([i] * 4, 2)),
        "uint8 of shape (4, 4, 4) as image 0",
    ),
    "empty": (lambda: Given(lambda _, image: image[:0]), "uint8 of shape (0, 4) as image 0"),
    "a tensor": (lambda: Given(lambda _, image: torch.from_numpy(image)), "a Tensor as image 0"),
    "a list": (lambda: Given(lambda _, image: image.tolist()), "a list as image 0"),
    "nothing": (lambda: Given(last(None)), "a NoneType as image 39"),
    "float at last": (lambda: Given(last(ONES)), "float64 of shape (4, 4) as image 39"),
    "other dimension at last": (lambda: Given(last(ONES[0].astype("u1"))), "uint8 of shape (4,) as image 39"),
    "too few in a batch": (Batches, "gives 15 images for 16 positions"),
    "a length that lies": (Long, "raised IndexError: index 40 is out of bounds"),
}


def changed(**attributes: Any) -> Callable[[], Given]:
    def build() -> Given:
        given = Given()
        vars(given).update(attributes)
        return given

    return build


class Raising(Given):
    """A digest that raises."""

    digest = property(lambda _: 1 // 0, lambda *_: None)  # type: ignore[assignment]


DIGESTS: dict[str, tuple[Callable[[], Any], str]] = {
    "no string": (changed(digest=3), "has a digest of type int. Give a string"),
    "bytes": (changed(digest=b"given"), "has a digest of type bytes. Give a string"),
    "none": (changed(digest=None), "has a digest of type NoneType. Give a string"),
    "raises": (Raising, "raised ZeroDivisionError: integer division or modulo by zero for its digest"),
}
LABELS: dict[str, tuple[Any, str]] = {
    "too few": (np.zeros(39, dtype=int), "has 39 labels for 40 images"),
    "a column": (np.zeros((40, 1), dtype=int), "of shape (40, 1). Give one each"),
    "floating": (np.zeros(40), "has labels of type float64. Give integers"),
    "strings": (np.array(["a"] * 40), "has labels of type <U1. Give integers"),
    "objects": (np.array([None] * 40), "has labels of type object. Give integers"),
    "below -1": (np.full(40, -2), "has the label -2. Give classes from 0"),
    "too large": (np.full(40, 2**63, dtype=np.uint64), "has the label 9223372036854775808, which is above"),
    "ragged": ([[0], [1, 2]], "inhomogeneous shape"),
}


def run_with(build: Callable[[], Any], suite: dict[str, Any], out: Path) -> tuple[Any, dict[Any, Any]]:
    """Run the toy suite with one set more, which the function builds."""
    plugin = out.parent / "extra.py"
    plugin.write_text(
        "import harness\n\nBUILD = None\n\n@harness.hookimpl\ndef harness_datasets():\n"
        '    yield harness.DatasetSpec("extra", lambda request: BUILD())\n'
    )
    suite["scorers"] = ["level"]
    suite["ood"].append({"name": "odd", "dataset": "extra", "group": "near"})
    registry = Registry.load((TOY_PLUGIN, plugin))
    registry.get("dataset", "extra").spec.build.__globals__["BUILD"] = build
    result = run_plan(plan_suite(suite, registry, source="toy.toml"), RunOptions(out=out, device="cpu"))
    return result, records_of(out)


@pytest.mark.parametrize("kind", IMAGES)
def test_images_that_are_none_fail_their_set_by_name_and_are_not_cached(
    kind: str, toy_suite: dict[str, Any], tmp_path: Path
) -> None:
    build, fault = IMAGES[kind]
    _, records = run_with(build, toy_suite, tmp_path / "out")
    errors = {name: record["error"] for (_, name), record in records.items()}
    assert errors["odd"].startswith("the dataset 'odd' ")
    assert fault in errors["odd"]
    assert "\n" not in errors["odd"]
    assert {name for name, error in errors.items() if error} == {"odd"}
    assert len(list((tmp_path / "cache" / "features").iterdir())) == 4  # ID test and the three other sets


DRAWING: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "NumPy's generator": lambda image: np.random.permutation(image.ravel()).reshape(image.shape),
    "random": lambda image: np.full_like(image, random.randrange(256)),
    "torch's generator": lambda image: torch.randint(256, image.shape, dtype=torch.uint8).numpy(),
    "a generator of its own": lambda image: RNG.permutation(image.ravel()).reshape(image.shape),
}


@pytest.mark.parametrize("source", DRAWING)
@pytest.mark.parametrize("which", ["all", "the last"])
@pytest.mark.parametrize("batch_size", [13, 16, 64])  # the last batch has one image, eight, or all
def test_images_that_are_drawn_anew_fail_their_set_by_name(
    batch_size: int, which: str, source: str, toy_suite: dict[str, Any], tmp_path: Path
) -> None:
    def change(index: int, image: np.ndarray) -> np.ndarray:
        return DRAWING[source](image) if which == "all" or index == 39 else image

    first = 39 if which == "the last" else 0
    toy_suite["batch_size"] = batch_size
    _, records = run_with(lambda: Given(change), toy_suite, tmp_path / "out")
    errors = {name: record["error"] for (_, name), record in records.items()}
    assert f"'odd' has other pixels each time that image {first} is decoded" in errors.pop("odd")
    assert set(errors.values()) == {None}


@pytest.mark.parametrize("kind", sorted(IMAGES.keys() - {"a length that lies", "too few in a batch"}))
def test_a_wrong_type_is_no_image_that_cannot_be_read(kind: str) -> None:
    """It is refused even where unreadable images are left out: none of the others could be trusted."""
    build, fault = IMAGES[kind]
    with pytest.raises(harness.InputError) as caught:
        Selection.all_of("odd", build()).readable().images(range(40))
    assert fault in str(caught.value)


@pytest.mark.parametrize("kind", LABELS)
def test_labels_that_are_none_are_refused_by_name(
    kind: str, toy_suite: dict[str, Any], tmp_path: Path
) -> None:
    labels, fault = LABELS[kind]
    with pytest.raises(harness.DatasetError) as caught:
        run_with(changed(labels=labels), toy_suite, tmp_path / "out")
    assert fault in str(caught.value)
    assert "odd" in str(caught.value) or "extra" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", DIGESTS)
def test_a_digest_that_is_none_is_refused_by_name(
    kind: str, toy_suite: dict[str, Any], tmp_path: Path
) -> None:
    build, fault = DIGESTS[kind]
    with pytest.raises(harness.HarnessError) as caught:
        run_with(build, toy_suite, tmp_path / "out")
    assert f"the dataset 'odd' {fault}" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("images", ["grey and colour", "several sizes"])
def test_images_of_several_forms_are_fine(images: str, toy_suite: dict[str, Any], tmp_path: Path) -> None:
    def change(index: int, image: np.ndarray) -> np.ndarray:
        if index % 2:
            return image
        return np.stack([image] * 3, axis=2) if images == "grey and colour" else np.pad(image, index)

    _, records = run_with(lambda: Given(change), toy_suite, tmp_path / "out")
    assert {record["error"] for record in records.values()} == {None}
