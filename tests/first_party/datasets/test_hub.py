from __future__ import annotations

import shutil
from io import BytesIO
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from zipfile import ZipFile

import datasets
import huggingface_hub
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

import harness
from harness_plugins.datasets import folders
from harness_plugins.datasets.hub import open_hub

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from harness_plugins.datasets.decoding import EncodedDataset

    Picture = Callable[..., Path]

COLOURS = (10, 20, 30)


def open_name(name: str, root: Path | None = None, split: str | None = None, **rest: Any) -> EncodedDataset:
    revision = rest.pop("revision", None)
    request = harness.DatasetRequest(
        f"hf:{name}", argument=name, split=split, revision=revision, data_root=root
    )
    return open_hub(request, **rest)


def png(value: int) -> bytes:
    buffer = BytesIO()
    Image.fromarray(np.full((4, 4), value, dtype=np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def write_table(folder: Path, split: str, images: list[bytes | None], **columns: Any) -> None:
    """Write a split as the hub lays it out, the image column's type in the file's metadata."""
    types = {"image": datasets.Image()} | columns.pop("features", {})
    stored = [None if image is None else {"bytes": image, "path": None} for image in images]
    plain = pa.table({"image": pa.array(stored, datasets.Image().pa_type), **columns})
    features = datasets.Features(datasets.Features.from_arrow_schema(plain.schema) | types)
    table = plain.cast(features.arrow_schema)
    (folder / "data").mkdir(parents=True, exist_ok=True)
    pq.write_table(table, folder / "data" / f"{split}-00000-of-00001.parquet")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    classes = datasets.ClassLabel(names=["low", "mid", "high"])
    for split, colours in (("train", COLOURS), ("test", COLOURS[::-1])):
        images = [png(colour) for colour in colours]
        labels = [COLOURS.index(colour) for colour in colours]
        write_table(tmp_path / "tiny", split, images, label=labels, features={"label": classes})
    return tmp_path


@pytest.fixture
def unreachable(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    asked: list[str] = []

    def refuse(self: Any, repo_id: str, **_: Any) -> None:
        asked.append(repo_id)
        raise ConnectionError("name or service not known\nsecond line")

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", refuse)
    return asked


def test_a_folder_in_the_hubs_layout_gives_its_images_labels_and_bytes(root: Path) -> None:
    dataset = open_name("tiny", root, split="test")
    assert dataset.labels.tolist() == [2, 1, 0]
    assert dataset.labels.dtype == np.int64
    assert [dataset[i].tolist() for i in range(3)] == [np.full((4, 4), c).tolist() for c in (30, 20, 10)]
    assert dataset.identity(0) == png(30)
    assert isinstance(dataset, harness.ImageDataset)


def test_the_last_part_of_a_hub_id_is_looked_for_too(root: Path) -> None:
    assert len(open_name("someone/tiny", root, split="test")) == 3


def test_the_whole_name_comes_before_its_last_part(root: Path) -> None:
    write_table(root / "someone" / "tiny", "test", [png(1)])
    assert len(open_name("someone/tiny", root, split="test")) == 1


def test_a_path_needs_no_data_root(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    expected = open_name("tiny", root, split="test").digest
    assert open_name(str(root / "tiny"), split="test").digest == expected
    assert open_name("tiny", split="test").digest == expected


def test_several_splits_must_be_named_and_one_need_not(root: Path) -> None:
    with pytest.raises(harness.DatasetError, match="several splits: train, test"):
        open_name("tiny", root)
    write_table(root / "single", "test", [png(1)])
    assert len(open_name("single", root)) == 1


def test_an_unknown_split_or_config_names_the_valid_ones(root: Path) -> None:
    with pytest.raises(harness.HarnessError, match=r"Did you mean 'test'\? Splits: test, train"):
        open_name("tiny", root, split="tests")
    with pytest.raises(harness.DatasetError, match=r"'nope' not found. Available: \['default'\]"):
        open_name("tiny", root, split="test", config="nope")


def test_columns_are_found_by_type_and_name_or_as_told(tmp_path: Path) -> None:
    write_table(
        tmp_path / "t", "test", [png(1), png(2)], label=[0.5, 1.0], coarse_label=[4, None], other=[7, 8]
    )
    assert open_name("t", tmp_path).labels.tolist() == [4, -1]
    assert open_name("t", tmp_path, label_column="other").labels.tolist() == [7, 8]
    with pytest.raises(harness.DatasetError, match=r"'label' of 'hf:t' holds float64, .*other \(int64\)"):
        open_name("t", tmp_path, label_column="label")
    with pytest.raises(harness.HarnessError, match=r"no column of 'hf:t' named 'lable'.*Columns: .*label"):
        open_name("t", tmp_path, label_column="lable")
    with pytest.raises(harness.HarnessError, match=r"no column of 'hf:t' named 'img'.*Columns: .*image"):
        open_name("t", tmp_path, image_column="img")


def test_without_a_label_column_labels_are_minus_one(tmp_path: Path) -> None:
    write_table(tmp_path / "t", "test", [png(1), png(2)], age=[4, 5])
    assert open_name("t", tmp_path).labels.tolist() == [-1, -1]


def test_a_table_without_images_says_which_columns_it_has(tmp_path: Path) -> None:
    (tmp_path / "t").mkdir()
    pq.write_table(pa.table({"x": [1], "y": [2]}), tmp_path / "t" / "test.parquet")
    with pytest.raises(harness.DatasetError, match=r"no image column. Columns: x, y"):
        open_name("t", tmp_path)


def test_an_unreadable_or_missing_image_names_its_row_and_spares_the_others(tmp_path: Path) -> None:
    write_table(tmp_path / "t", "test", [png(1), b"nonsense", png(3)[:-20], None])
    dataset = open_name("t", tmp_path)
    assert dataset[0].max() == 1
    for row in (1, 2):
        with pytest.raises(harness.DatasetError, match=f"row {row} of 'hf:t' is not a readable image"):
            dataset[row]
    with pytest.raises(harness.DatasetError, match="row 3 of 'hf:t' has no image"):
        dataset[3]


def test_equal_folders_have_equal_digests_and_any_change_another(root: Path) -> None:
    first = open_name("tiny", root, split="test").digest
    shutil.copytree(root / "tiny", root / "copy")
    assert open_name("copy", root, split="test").digest == first
    assert open_name("tiny", root, split="train").digest != first
    write_table(root / "copy", "test", [png(30), png(20), png(11)], label=[2, 1, 0])
    assert open_name("copy", root, split="test").digest != first


def test_progress_bars_are_silent_and_left_as_they_were(
    root: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = (datasets.are_progress_bars_disabled(), huggingface_hub.utils.are_progress_bars_disabled())
    open_name("tiny", root, split="test")
    after = (datasets.are_progress_bars_disabled(), huggingface_hub.utils.are_progress_bars_disabled())
    assert before == after == (False, False)
    assert capfd.readouterr() == ("", "")


def test_class_folders_give_labels_in_the_order_of_their_names(tmp_path: Path, picture: Picture) -> None:
    for name, value in (("zebra", 1), ("ape/deep", 2), ("test", 3)):
        picture(tmp_path / "plain" / name / "b.png", value)
        picture(tmp_path / "plain" / name / "a.PNG", value)
    (tmp_path / "plain" / ".DS_Store").write_text("hidden")
    dataset = open_name("plain", tmp_path)
    assert dataset.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert [int(dataset[i].max()) for i in range(6)] == [2, 2, 3, 3, 1, 1]
    assert dataset[0].shape == (4, 6, 3)
    assert dataset.identity(0) == (tmp_path / "plain/ape/deep/a.PNG").read_bytes()


def test_a_flat_folder_has_no_labels(tmp_path: Path, picture: Picture) -> None:
    for value in (3, 1):
        picture(tmp_path / "flat" / f"{value}.png", value)
    dataset = open_name("flat", tmp_path)
    assert dataset.labels.tolist() == [-1, -1]
    assert [int(dataset[i].max()) for i in range(2)] == [1, 3]


def test_images_in_an_archive_are_refused_with_the_way_out(tmp_path: Path, picture: Picture) -> None:
    (tmp_path / "packed").mkdir()
    with ZipFile(tmp_path / "packed" / "x.zip", "w") as archive:
        archive.write(picture(tmp_path / "1.png"), "ape/1.png")
    with pytest.raises(harness.DatasetError, match=r"archive, .*x.zip. Unpack it into a folder packed/"):
        open_name("packed", tmp_path)
    picture(tmp_path / "packed" / "ape" / "1.png")
    assert len(open_name("packed", tmp_path)) == 1


def test_a_damaged_table_names_what_first_went_wrong(root: Path) -> None:
    (root / "tiny" / "data" / "test-00000-of-00001.parquet").write_bytes(b"PAR1 nonsense")
    with pytest.raises(harness.DatasetError, match=r"'hf:tiny' cannot be read from .*\(ArrowInvalid: "):
        open_name("tiny", root, split="test")


def test_split_folders_are_splits(tmp_path: Path, picture: Picture) -> None:
    for split, value in (("train", 1), ("val", 2)):
        picture(tmp_path / "s" / split / "ape" / "1.png", value)
    assert open_name("s", tmp_path, split="val")[0].max() == 2
    with pytest.raises(harness.DatasetError, match=r"several splits: train, val"):
        open_name("s", tmp_path)
    with pytest.raises(harness.DatasetError, match=r"no split 'test'.*Splits: train, val"):
        open_name("s", tmp_path, split="test")
    with pytest.raises(harness.DatasetError, match=r"no split '../s'"):
        open_name("s", tmp_path, split="../s")


def test_a_folder_without_splits_refuses_one(tmp_path: Path, picture: Picture) -> None:
    picture(tmp_path / "s" / "ape" / "1.png")
    with pytest.raises(harness.DatasetError, match="It has no splits: leave split out"):
        open_name("s", tmp_path, split="test")


def test_ambiguous_and_empty_image_folders_are_refused(tmp_path: Path, picture: Picture) -> None:
    picture(tmp_path / "mixed" / "ape" / "1.png")
    picture(tmp_path / "mixed" / "stray.png")
    with pytest.raises(harness.DatasetError, match=r"images beside its class folders, such as .*stray.png"):
        open_name("mixed", tmp_path)
    picture(tmp_path / "gap" / "ape" / "1.png")
    (tmp_path / "gap" / "bear").mkdir()
    with pytest.raises(harness.DatasetError, match=r"class folders without images in .*: bear"):
        open_name("gap", tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(harness.DatasetError, match="doesn't contain any data files"):
        open_name("empty", tmp_path)
    with pytest.raises(harness.InputError, match="Leave config"):
        open_name("gap", tmp_path, config="x")


def test_an_unreadable_file_is_named(tmp_path: Path, picture: Picture) -> None:
    picture(tmp_path / "f" / "a.png")
    (tmp_path / "f" / "b.png").write_bytes(b"nonsense")
    lost = picture(tmp_path / "f" / "c.png")
    dataset = open_name("f", tmp_path)
    lost.unlink()
    assert dataset[0].max() == 0
    with pytest.raises(harness.DatasetError, match=r"b.png is not a readable image"):
        dataset[1]
    with pytest.raises(harness.DatasetError, match=r"c.png cannot be read"):
        dataset[2]


def test_an_image_folders_digest_follows_names_bytes_and_order(tmp_path: Path, picture: Picture) -> None:
    picture(tmp_path / "a" / "x" / "1.png", 1)
    picture(tmp_path / "b" / "x" / "1.png", 1)
    picture(tmp_path / "c" / "y" / "1.png", 1)
    picture(tmp_path / "d" / "x" / "1.png", 2)
    same, other_class, other_bytes = (open_name(name, tmp_path).digest for name in "bcd")
    assert open_name("a", tmp_path).digest == same
    assert len({same, other_class, other_bytes}) == 3


def test_a_large_folder_is_known_by_sizes_and_times(
    tmp_path: Path, picture: Picture, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = picture(tmp_path / "f" / "a.png")
    whole = open_name("f", tmp_path).digest
    monkeypatch.setattr(folders, "READ_WHOLE", 0)
    by_time = open_name("f", tmp_path).digest
    assert open_name("f", tmp_path).digest == by_time != whole
    file.touch()
    assert open_name("f", tmp_path).digest != by_time


def test_linked_folders_are_followed_where_the_user_allows_it_and_loops_are_not(
    tmp_path: Path, picture: Picture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OOD_HARNESS_LINKS", f"{tmp_path / 'other'}:{tmp_path / 'store'}")
    picture(tmp_path / "store" / "1.png")
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "ape").symlink_to(tmp_path / "store")
    (tmp_path / "store" / "loop").symlink_to(tmp_path / "store")
    assert len(open_name("linked", tmp_path)) == 1


def test_no_name_leads_out_of_the_data_root(
    tmp_path: Path, picture: Picture, monkeypatch: pytest.MonkeyPatch, unreachable: list[str]
) -> None:
    inside, elsewhere = tmp_path / "a" / "data", tmp_path / "elsewhere"
    inside.mkdir(parents=True)
    elsewhere.mkdir()
    picture(tmp_path / "a" / "secret" / "1.png")
    monkeypatch.chdir(elsewhere)
    for name in ("../secret", "x/../../secret"):
        with pytest.raises(harness.DatasetError, match="no dataset"):
            open_name(name, inside)
    assert unreachable == []


def test_a_missing_dataset_says_where_it_was_looked_for_and_what_to_do(
    tmp_path: Path, unreachable: list[str]
) -> None:
    with pytest.raises(harness.DatasetError) as caught:
        open_name("someone/nothing", tmp_path, revision="v1")
    message = str(caught.value)
    assert "\n" not in message
    for part in (
        "no dataset 'hf:someone/nothing'",
        str(tmp_path / "someone/nothing"),
        str(tmp_path / "nothing"),
        "'someone/nothing' on the hub at revision 'v1' (ConnectionError: name or service not known)",
        "Set OOD_HARNESS_DATA",
        "check the name and the network",
    ):
        assert part in message
    assert unreachable == ["someone/nothing"]


def test_an_unset_data_root_is_mentioned(unreachable: list[str]) -> None:
    with pytest.raises(harness.DatasetError, match="OOD_HARNESS_DATA is not set"):
        open_name("nothing-of-that-name")
    assert unreachable == ["nothing-of-that-name"]


def test_a_missing_path_is_never_asked_of_the_hub(tmp_path: Path, unreachable: list[str]) -> None:
    for name in (str(tmp_path / "gone"), "./gone", "~/gone/for/good", "one/two/three"):
        with pytest.raises(harness.DatasetError, match="Check the path"):
            open_name(name)
    assert unreachable == []


def test_an_empty_name_is_refused() -> None:
    with pytest.raises(harness.InputError, match="names no dataset"):
        open_name("")


def test_the_hubs_commit_is_what_is_loaded_and_enters_the_digest(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, asked = datasets.load_dataset_builder, []

    def from_folder(where: str, name: str | None, revision: str) -> Any:
        asked.append((where, revision))
        return original(str(root / "tiny"), name=name)

    def digest(commit: str) -> str:
        info = SimpleNamespace(sha=commit, siblings=None, card_data=None)
        monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", lambda *_, **__: info)
        return open_name("someone/remote", split="test").digest

    monkeypatch.setattr(datasets, "load_dataset_builder", from_folder)
    first = digest("a" * 40)
    assert asked == [("someone/remote", "a" * 40)]
    assert digest("a" * 40) == first
    assert digest("b" * 40) != first


@pytest.fixture
def configured(tmp_path: Path) -> Path:
    """SVHN's layout without its card: two configurations, each with three splits, of which one has two files."""
    classes = datasets.ClassLabel(names=["zero", "one"])
    for number, config in enumerate(("cropped_digits", "full_numbers")):
        folder = tmp_path / "svhn" / config
        for split, count in (("train", 3), ("test", 2), ("extra", 4)):
            images = [png(10 * number + index) for index in range(count)]
            labels = [index % 2 for index in range(count)]
            write_table(folder, split, images, label=labels, features={"label": classes})
            (folder / "data" / f"{split}-00000-of-00001.parquet").rename(
                folder / f"{split}-00000-of-00001.parquet"
            )
        (folder / "data").rmdir()
    return tmp_path


@pytest.mark.parametrize("card", [None, "# SVHN\nJust words.\n", "---\nlicense: other\n---\n# SVHN\n"])
def test_a_folder_whose_card_states_no_configurations_has_those_of_its_subfolders(
    configured: Path, card: str | None
) -> None:
    if card is not None:
        (configured / "svhn" / "README.md").write_text(card)
    for number, config in enumerate(("cropped_digits", "full_numbers")):
        for split, count in (("train", 3), ("test", 2), ("extra", 4)):
            dataset = open_name("ufldl-stanford/svhn", configured, split=split, config=config)
            assert [int(dataset[i].flat[0]) for i in range(len(dataset))] == [
                10 * number + i for i in range(count)
            ]
            assert dataset.class_names == ("zero", "one")
    with pytest.raises(harness.HarnessError, match=r"Did you mean 'extra'\? Splits: "):
        open_name("svhn", configured, split="extras", config="full_numbers")


def test_several_configurations_are_never_joined_and_a_wrong_one_names_the_valid_ones(
    configured: Path,
) -> None:
    several = "several configurations: cropped_digits, full_numbers. Name one: params = { config ="
    with pytest.raises(harness.DatasetError, match=several):
        open_name("svhn", configured, split="test")
    wrong = r"no config of 'hf:svhn' named 'cropped'.*Configurations: cropped_digits, full_numbers"
    with pytest.raises(harness.HarnessError, match=wrong):
        open_name("svhn", configured, split="test", config="cropped")


def test_the_configurations_of_a_card_come_first(configured: Path) -> None:
    (configured / "svhn" / "README.md").write_text(
        "---\nconfigs:\n- config_name: small\n  data_files:\n  - split: test\n"
        "    path: full_numbers/test-*\n---\n"
    )
    assert int(open_name("svhn", configured, split="test", config="small")[0].flat[0]) == 10
    with pytest.raises(harness.DatasetError, match="'cropped_digits' not found"):
        open_name("svhn", configured, split="test", config="cropped_digits")


def test_a_single_configuration_need_not_be_named(configured: Path) -> None:
    shutil.rmtree(configured / "svhn" / "full_numbers")
    assert len(open_name("svhn", configured, split="test")) == 2
    assert len(open_name("svhn", configured, split="test", config="cropped_digits")) == 2


def test_the_layout_of_the_hubs_conversions_and_folders_of_splits_are_read(configured: Path) -> None:
    converted, splits = configured / "converted", configured / "splits"
    for split in ("train", "test"):
        source = configured / "svhn" / "full_numbers" / f"{split}-00000-of-00001.parquet"
        for file in (converted / "full" / split / "0000.parquet", splits / split / source.name):
            file.parent.mkdir(parents=True)
            shutil.copy(source, file)
    assert len(open_name("converted", configured, split="test", config="full")) == 2
    assert len(open_name("splits", configured, split="test")) == 2


def test_a_repository_of_the_hub_without_a_card_has_configurations_too(
    configured: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, folder = datasets.load_dataset_builder, configured / "svhn"
    names = [str(file.relative_to(folder)) for file in folder.rglob("*.parquet")]
    info = SimpleNamespace(
        sha="a" * 40, siblings=[SimpleNamespace(rfilename=name) for name in names], card_data=None
    )
    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", lambda *_, **__: info)

    def from_folder(where: str, revision: str, **given: Any) -> Any:
        assert (where, revision) == ("someone/remote", "a" * 40)
        return original(str(folder), **given)

    monkeypatch.setattr(datasets, "load_dataset_builder", from_folder)
    assert len(open_name("someone/remote", split="extra", config="cropped_digits")) == 4
    with pytest.raises(harness.DatasetError, match="several configurations"):
        open_name("someone/remote", split="extra")


def test_mnist_has_its_counts_first_labels_and_mean(real_data: Path) -> None:
    train = open_name("mnist", real_data, split="train")
    test = open_name("ylecun/mnist", real_data, split="test")
    assert (len(train), len(test)) == (60_000, 10_000)
    assert train.labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert test.labels[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    assert np.bincount(test.labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert test[0].shape == (28, 28)
    assert np.mean([test[i].mean() for i in range(10_000)]) / 255 == pytest.approx(0.1325, abs=1e-4)


def test_fashion_mnist_has_its_counts_and_first_labels(real_data: Path) -> None:
    test = open_name("fashion_mnist", real_data, split="test")
    assert np.bincount(test.labels).tolist() == [1000] * 10
    assert test.labels[:5].tolist() == [9, 2, 1, 1, 6]
