from __future__ import annotations

import pickle
import re
import tomllib
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from images_of import all_images
from journals import records_of
from toys import run_suite, toy_module

import harness
from harness.contract.registry import Registry
from harness.data.opening import open_id, open_set
from harness.data.sets import SetEntry
from harness.data.tables import IdEntry
from harness.evaluations.run import plan_suite
from harness_plugins.datasets import folders
from harness_plugins.datasets.published import open_published
from harness_plugins.shipped import harness_suites

Picture = Callable[..., Path]

EACH = 4  # images a severity
SIDE = 6
WNIDS = ("n02099601", "n01440764", "n01443537")


def level(severity: int, index: int) -> int:
    return 40 * severity + index


def opened(
    name: str | Path, root: Path | None = None, split: str | None = None, **params: Any
) -> harness.ImageDataset:
    request = harness.DatasetRequest(f"published:{name}", argument=str(name), split=split, data_root=root)
    return open_published(request, **params)


def levels_of(dataset: harness.ImageDataset) -> list[int]:
    """List the one grey level of each image."""
    return [int(np.unique(image).item()) for image in all_images(dataset)]


def write(file: Path, array: np.ndarray) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    np.save(file, array)


def stack(*shape: int) -> np.ndarray:
    """Five severities of images of one level each: (5 * EACH, *shape)."""
    levels = [level(severity, index) for severity in range(1, 6) for index in range(EACH)]
    plain = np.array(levels, dtype=np.uint8).reshape(-1, *(1 for _ in shape))
    return np.broadcast_to(plain, (5 * EACH, *shape))


@pytest.fixture
def cifar(tmp_path: Path) -> Path:
    """A folder in CIFAR-10-C's layout; snow is fog backwards, and labels go on from severity to severity."""
    write(tmp_path / "CIFAR-10-C/fog.npy", stack(SIDE, SIDE, 3))
    write(tmp_path / "CIFAR-10-C/snow.npy", stack(SIDE, SIDE, 3)[::-1])
    write(tmp_path / "CIFAR-10-C/labels.npy", np.arange(5 * EACH, dtype=np.uint8))
    return tmp_path / "CIFAR-10-C"


@pytest.fixture
def mnist(tmp_path: Path) -> Path:
    """A folder in MNIST-C's layout: an image's level is its label, and ten more a corruption."""
    for number, kind in enumerate(("identity", "stripe", "zigzag")):
        for split, first in (("test", 0), ("train", 100)):
            labels = first + np.arange(3)
            images = np.broadcast_to((labels + 10 * number)[:, None, None, None], (3, 28, 28, 1))
            write(tmp_path / "mnist_c" / kind / f"{split}_images.npy", images.astype(np.uint8))
            write(tmp_path / "mnist_c" / kind / f"{split}_labels.npy", labels)
    return tmp_path / "mnist_c"


@pytest.fixture(params=["", "blur"], ids=["flat", "in categories"])
def imagenet(request: pytest.FixtureRequest, tmp_path: Path, picture: Picture) -> Path:
    """A folder in ImageNet-C's layout, with one image a class."""
    for kind, severity in (("glass_blur", 1), ("glass_blur", 5), ("zoom_blur", 1)):
        for wnid in WNIDS:
            place = tmp_path / "imagenet-c" / request.param / kind / str(severity) / wnid
            picture(place / "ILSVRC2012_val_00000293.png", level(severity, WNIDS.index(wnid)))
    return tmp_path / "imagenet-c"


@pytest.mark.parametrize("severity", range(1, 6))
def test_a_severity_is_its_fifth_of_the_images_and_labels(cifar: Path, severity: int) -> None:
    dataset = opened(cifar, corruption="fog", severity=severity)
    assert isinstance(dataset, harness.ImageDataset)
    assert dataset.labels.tolist() == [EACH * (severity - 1) + index for index in range(EACH)]
    assert dataset.labels.dtype == np.int64
    assert levels_of(dataset) == [level(severity, index) for index in range(EACH)]
    assert dataset[0].shape == (SIDE, SIDE, 3)
    assert dataset.identity(1) == bytes([level(severity, 1)]) * SIDE * SIDE * 3
    backwards = opened(cifar, corruption="snow", severity=severity)
    assert levels_of(backwards) == [level(6 - severity, index) for index in reversed(range(EACH))]


@pytest.mark.parametrize("shape", [(SIDE, SIDE), (SIDE, SIDE, 1)])
def test_grey_images_have_no_axis_of_channels(cifar: Path, shape: tuple[int, ...]) -> None:
    write(cifar / "fog.npy", stack(*shape))
    assert opened(cifar, corruption="fog", severity=1)[0].shape == (SIDE, SIDE)


def test_an_image_is_a_copy_that_may_be_changed(cifar: Path) -> None:
    dataset = opened(cifar, corruption="fog", severity=2)
    dataset[0][:] = 7
    assert dataset[0].max() == level(2, 0)


def test_memory_holds_the_images_asked_for_and_not_the_file(cifar: Path) -> None:
    shape = (5 * EACH, 4096, 4096, 3)  # 1 GB, of holes
    image_size = 4096 * 4096 * 3
    with (cifar / "vast.npy").open("wb") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        start = file.tell()
        file.seek(start + 4 * EACH * image_size)
        file.write(b"\x05")
        file.truncate(start + 5 * EACH * image_size)
    tracemalloc.start()
    try:
        dataset = opened(cifar, corruption="vast", severity=5)
        assert dataset[0].sum() == 5
        assert tracemalloc.get_traced_memory()[1] < 2 * image_size
    finally:
        tracemalloc.stop()


def test_mnist_c_has_splits_and_no_severities(mnist: Path) -> None:
    for number, kind in enumerate(("identity", "stripe", "zigzag")):
        test = opened(mnist, corruption=kind)
        assert isinstance(test, harness.ImageDataset)
        assert levels_of(test) == [10 * number, 10 * number + 1, 10 * number + 2]
        assert test.labels.tolist() == [0, 1, 2]
        assert test[0].shape == (28, 28)
        assert opened(mnist, split="test", corruption=kind).digest == test.digest
        train = opened(mnist, split="train", corruption=kind)
        assert levels_of(train) == [100 + 10 * number + index for index in range(3)]
        assert train.labels.tolist() == [100, 101, 102]


def test_imagenet_c_is_labelled_by_its_sorted_class_folders(imagenet: Path) -> None:
    for severity in (1, 5):
        dataset = opened(imagenet, corruption="glass_blur", severity=severity)
        assert dataset.labels.tolist() == [0, 1, 2]
        assert levels_of(dataset) == [level(severity, WNIDS.index(wnid)) for wnid in sorted(WNIDS)]
        assert dataset.class_names == tuple(sorted(WNIDS))  # type: ignore[attr-defined]


def test_a_folder_is_found_by_path_and_below_the_data_root(
    cifar: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = opened(cifar, corruption="fog", severity=1).digest
    assert opened("CIFAR-10-C", tmp_path, corruption="fog", severity=1).digest == expected
    monkeypatch.chdir(tmp_path)
    assert opened("CIFAR-10-C", corruption="fog", severity=1).digest == expected


def test_hidden_files_are_no_corruptions(cifar: Path) -> None:
    (cifar / "._fog.npy").write_bytes(b"left behind by another system")
    with pytest.raises(harness.HarnessError, match=r"There: fog, snow$"):
        opened(cifar, corruption="._fog", severity=1)


def test_equal_files_have_equal_digests_and_another_byte_another(
    cifar: Path, mnist: Path, imagenet: Path
) -> None:
    for folder, params, files in (
        (cifar, {"corruption": "fog", "severity": 1}, ("fog.npy", "labels.npy")),
        (mnist, {"corruption": "stripe"}, ("stripe/test_images.npy", "stripe/test_labels.npy")),
        (imagenet, {"corruption": "glass_blur", "severity": 5}, ("**/glass_blur/5/*/*.png",)),
    ):
        before = opened(folder, **params).digest
        for pattern in files:
            file = next(folder.glob(pattern))
            stored = file.read_bytes()
            file.write_bytes(stored[:-1] + bytes([stored[-1] ^ 1]))
            assert opened(folder, **params).digest != before
            file.write_bytes(stored)
            assert opened(folder, **params).digest == before


def test_severities_corruptions_and_splits_have_digests_of_their_own(cifar: Path, mnist: Path) -> None:
    graded = [
        opened(cifar, corruption=kind, severity=severity)
        for kind in ("fog", "snow")
        for severity in range(1, 6)
    ]
    plain = [
        opened(mnist, split=split, corruption=kind)
        for kind in ("stripe", "zigzag")
        for split in ("test", "train")
    ]
    assert len({dataset.digest for dataset in [*graded, *plain]}) == 14


def test_large_files_are_known_by_sizes_and_times(cifar: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = opened(cifar, corruption="fog", severity=1).digest
    monkeypatch.setattr(folders, "READ_WHOLE", 0)
    by_time = opened(cifar, corruption="fog", severity=1).digest
    assert by_time != whole
    (cifar / "fog.npy").touch()
    assert opened(cifar, corruption="fog", severity=1).digest != by_time


def message(error: type[harness.HarnessError], name: str | Path, *args: Any, **params: Any) -> str:
    with pytest.raises(error) as caught:
        opened(name, *args, **params)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("severity", [None, 0, 6, 3.0, True, "3"])
def test_a_severity_out_of_range_is_refused(cifar: Path, imagenet: Path, severity: Any) -> None:
    for folder, kind in ((cifar, "fog"), (imagenet, "glass_blur")):
        said = message(harness.InputError, folder, corruption=kind, severity=severity)
        assert f"severity = {severity!r} of 'published:" in said
        assert "Give 1, 2, 3, 4 or 5" in said


def test_a_severity_that_was_not_unpacked_names_those_that_were(imagenet: Path) -> None:
    said = message(harness.DatasetError, imagenet, corruption="glass_blur", severity=3)
    assert "severity = 3 of 'published:" in said
    assert "Severities there: 1, 5. Unpack it" in said


def test_a_severity_of_files_without_is_refused(mnist: Path) -> None:
    said = message(harness.InputError, mnist, corruption="stripe", severity=3)
    assert re.search(r"severity = 3 of .*its files have none\. Leave severity out", said)


@pytest.mark.parametrize("kind", ["fogg", "../CIFAR-10-C/fog", "labels", ""])
def test_a_corruption_that_is_not_there_names_those_that_are(cifar: Path, kind: str) -> None:
    with pytest.raises(harness.HarnessError, match=rf"no corruption in .* named '{kind}'.*There: fog, snow$"):
        opened(cifar, corruption=kind, severity=1)


@pytest.mark.parametrize("kind", [None, 3, ["fog"]])
def test_a_corruption_that_is_no_name_is_refused(cifar: Path, kind: Any) -> None:
    said = message(harness.InputError, cifar, corruption=kind, severity=1)
    assert f"corruption = {kind!r} of" in said
    assert said.endswith("Give one of fog, snow")


def test_no_corruption_leads_out_of_the_folder(mnist: Path, imagenet: Path) -> None:
    for folder, params in ((mnist, {}), (imagenet, {"severity": 1})):
        for kind in ("..", ".", "../mnist_c/stripe", str(mnist / "stripe"), "blur/glass_blur"):
            with pytest.raises(harness.HarnessError, match=r"no corruption in .*There: [a-z]"):
                opened(folder, corruption=kind, **params)


def test_one_corruption_in_two_categories_is_refused(tmp_path: Path, picture: Picture) -> None:
    for category in ("blur", "extra"):
        picture(tmp_path / "c" / category / "glass_blur" / "1" / "n01440764" / "1.png")
    said = message(harness.DatasetError, tmp_path / "c", corruption="glass_blur", severity=1)
    assert re.search(r"has glass_blur twice: \S*/blur/glass_blur and \S*/extra/glass_blur\. Remove one", said)


def test_splits_are_those_of_mnist_c_alone(cifar: Path, mnist: Path, imagenet: Path) -> None:
    for folder, kind in ((cifar, "fog"), (imagenet, "glass_blur")):
        said = message(harness.DatasetError, folder, split="test", corruption=kind, severity=1)
        assert re.search(r"has no split 'test'.*Leave split out", said)
    with pytest.raises(
        harness.HarnessError, match=r"no split of .* named 'tets'.*'test'\? Valid: test, train"
    ):
        opened(mnist, split="tets", corruption="stripe")


def test_a_missing_folder_says_where_it_was_looked_for(tmp_path: Path) -> None:
    said = message(harness.DatasetError, "CIFAR-10-C", tmp_path, corruption="fog", severity=1)
    assert "no dataset 'published:CIFAR-10-C'" in said
    assert f"OOD_HARNESS_DATA, {tmp_path}. Unpack" in said
    assert "which is not set" in message(harness.DatasetError, "CIFAR-10-C", corruption="fog")
    for path in (str(tmp_path / "gone"), "../gone"):
        assert "Check the path" in message(harness.DatasetError, path, tmp_path, corruption="fog")
    assert "names no folder" in message(harness.InputError, "", tmp_path, corruption="fog")


def test_no_name_leads_out_of_the_data_root(cifar: Path, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    assert (tmp_path / "data" / "../CIFAR-10-C").is_dir()
    message(harness.DatasetError, "../CIFAR-10-C", tmp_path / "data", corruption="fog", severity=1)


def test_a_folder_in_no_known_layout_is_refused(tmp_path: Path, picture: Picture) -> None:
    picture(tmp_path / "plain" / "ape" / "1.png")
    write(tmp_path / "plain" / "labels.npy", np.arange(3))
    said = message(harness.DatasetError, tmp_path / "plain", corruption="fog", severity=1)
    assert re.search(r"no published corruptions in .*plain\. Looked for CORRUPTION\.npy .*Unpack", said)


@pytest.mark.parametrize(
    "images",
    [
        stack(SIDE, SIDE, 3).astype(np.float32),
        stack(SIDE, SIDE, 3).astype(np.int8),
        stack(3, SIDE, SIDE),
        stack(SIDE),
        stack(SIDE, SIDE, 3, 1),
    ],
    ids=["float", "signed", "channels first", "rows", "one axis too many"],
)
def test_images_of_another_type_or_shape_are_refused(cifar: Path, images: np.ndarray) -> None:
    write(cifar / "fog.npy", images)
    said = message(harness.DatasetError, cifar, corruption="fog", severity=1)
    assert f"fog.npy holds {images.dtype} {images.shape}. Give images, uint8 (N, H, W)" in said


@pytest.mark.parametrize("labels", [np.arange(5.0 * EACH), np.zeros((5 * EACH, 1), dtype=int), np.array(3)])
def test_labels_of_another_type_or_shape_are_refused(cifar: Path, labels: np.ndarray) -> None:
    write(cifar / "labels.npy", labels)
    said = message(harness.DatasetError, cifar, corruption="fog", severity=1)
    assert f"labels.npy holds {labels.dtype} {labels.shape}. Give labels, integers (N,)" in said


def test_labels_of_another_number_are_refused(cifar: Path, mnist: Path) -> None:
    write(cifar / "labels.npy", np.arange(EACH))
    said = message(harness.DatasetError, cifar, corruption="fog", severity=1)
    assert re.search(rf"labels\.npy has {EACH} labels and \S*fog\.npy {5 * EACH} images\. Restore", said)
    write(mnist / "stripe/test_labels.npy", np.arange(4))
    said = message(harness.DatasetError, mnist, corruption="stripe")
    assert re.search(r"test_labels\.npy has 4 labels and \S*test_images\.npy 3 images", said)


def test_severities_of_unequal_size_are_refused(cifar: Path) -> None:
    write(cifar / "fog.npy", stack(SIDE, SIDE, 3)[:-1])
    write(cifar / "labels.npy", np.arange(5 * EACH - 1))
    said = message(harness.DatasetError, cifar, corruption="fog", severity=1)
    assert f"has {5 * EACH - 1} images, which are not 5 severities of one size" in said


def test_pickled_objects_are_refused_unopened(cifar: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path("sprung").touch, ())

    objects = np.array([Trap()] * 5 * EACH)
    for name in ("fog.npy", "labels.npy"):
        stored = (cifar / name).read_bytes()
        np.save(cifar / name, objects, allow_pickle=True)
        said = message(harness.DatasetError, cifar, corruption="fog", severity=1)
        assert re.search(rf"{name} is not an array of numbers \(.*Python objects.*\)\. Restore", said)
        (cifar / name).write_bytes(pickle.dumps(objects))
        assert f"{name} is not an array of numbers" in message(
            harness.DatasetError, cifar, corruption="fog", severity=1
        )
        (cifar / name).write_bytes(stored)
    assert not Path("sprung").exists()


def test_a_damaged_or_missing_file_is_named(cifar: Path) -> None:
    stored = (cifar / "fog.npy").read_bytes()
    for damaged in (stored[:-1], stored[:20], b"", b"PK\x03\x04"):
        (cifar / "fog.npy").write_bytes(damaged)
        said = message(harness.DatasetError, cifar, corruption="fog", severity=1)
        assert "fog.npy is not an array of numbers (" in said
    (cifar / "fog.npy").write_bytes(stored)
    (cifar / "labels.npy").unlink()
    said = message(harness.DatasetError, cifar, corruption="fog", severity=1)
    assert "labels.npy cannot be read (No such file or directory). Restore it" in said


def test_a_suite_runs_over_published_files_as_over_the_same_images(
    toy_suite: dict[str, Any], toys: Any, tmp_path: Path
) -> None:
    dim, noisy = (toy_module().Levels(40, 3, seed, offset, 4) for seed, offset in ((9, -5), (10, 7)))
    graded = [noisy if severity == 5 else dim for severity in range(1, 6)]
    write(tmp_path / "toy-c/fog.npy", np.concatenate([all_images(levels) for levels in graded]))
    write(tmp_path / "toy-c/labels.npy", np.concatenate([levels.labels for levels in graded]))
    write(tmp_path / "toy-plain/stripe/test_images.npy", all_images(dim)[..., None])
    write(tmp_path / "toy-plain/stripe/test_labels.npy", dim.labels)
    toy_suite["shift"] = [
        {"name": "dim", "dataset": "levels", "params": {"seed": 9, "offset": -5}},
        {"name": "noisy", "dataset": "levels", "params": {"seed": 10, "offset": 7}},
        {"corrupt": ["fog"], "severity": [3, 5], "dataset": "published:toy-c"},
        {"corrupt": ["stripe"], "dataset": "published:toy-plain"},
    ]
    run_suite(toy_suite, tmp_path / "out")

    found = records_of(tmp_path / "out")
    for scorer in toy_suite["scorers"]:
        for name, same in (("fog-3", "dim"), ("fog-5", "noisy"), ("stripe", "dim")):
            assert found[scorer, name]["metrics"] == found[scorer, same]["metrics"]
        assert found[scorer, "fog-3"]["metrics"] != found[scorer, "fog-5"]["metrics"]


@pytest.mark.parametrize(("name", "folder"), [("cifar10-c", "CIFAR-10-C"), ("imagenet-c", "ImageNet-C")])
def test_what_a_suite_says_of_published_files_is_valid_once_uncommented(
    name: str, folder: str, catalogue: Registry
) -> None:
    (spec,) = [spec for spec in harness_suites() if spec.name == name]
    text = re.sub(r"^# (dataset|limit) = ", r"\1 = ", spec.path.read_text(), flags=re.MULTILINE)
    plan = plan_suite(tomllib.loads(text), catalogue, source=name)
    assert len(plan.sets) == 15 * 2
    for entry in plan.sets:
        assert entry.dataset == f"published:{folder}"
        assert entry.name == f"{entry.params['corruption']}-{entry.params['severity']}"


def test_a_shifted_set_that_lacks_a_class_folder_of_ids_has_ids_numbers_by_name(
    imagenet: Path, tmp_path: Path, picture: Picture
) -> None:
    for wnid in ("n00000000", *WNIDS):
        for number in range(2):
            picture(tmp_path / "id" / "test" / wnid / f"{number}.png")
    registry = Registry.load()
    id_data = open_id(
        IdEntry.model_validate({"dataset": f"hf:{tmp_path}/id", "test": {"split": "test"}}), registry
    )
    entry = SetEntry(
        name="glass_blur-1",
        group="csid",
        dataset=f"published:{imagenet}",
        split=None,
        classes=None,
        limit=None,
        revision=None,
        params={"corruption": "glass_blur", "severity": 1},
    )
    shifted = open_set(entry, id_data, registry)
    assert shifted.class_names == ("n00000000", *sorted(WNIDS))
    assert sorted(set(shifted.labels.tolist())) == [1 + number for number in range(len(WNIDS))]
