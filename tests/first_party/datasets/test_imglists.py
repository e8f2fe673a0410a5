"""Image lists on small trees: labels, order, roots, and what is refused in one line."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from images_of import all_images

import harness
from harness.contract.registry import Registry
from harness.data.opening import open_dataset
from harness.engine.runner import RunOptions
from harness.evaluations.run import plan_suite, run_plan
from harness_plugins.datasets.imglists import open_image_list

Picture = Callable[..., Path]


def opened(
    name: str | Path = "list.txt",
    *,
    data_root: Path | None = None,
    folder: Path | None = None,
    split: str | None = None,
    **params: Any,
) -> Any:
    request = harness.DatasetRequest(
        f"imglist:{name}", argument=str(name), data_root=data_root, folder=folder, split=split
    )
    return open_image_list(request, **params)


def write(file: Path, *lines: str, end: str = "\n") -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes("".join(line + end for line in lines).encode())
    return file


def levels_of(dataset: harness.ImageDataset) -> list[int]:
    """List the one grey level of each image."""
    return [int(np.unique(image).item()) for image in all_images(dataset)]


def refusal(*args: Any, **kwargs: Any) -> str:
    """Return the message, of one line, with which a list is refused."""
    with pytest.raises(harness.HarnessError) as raised:
        opened(*args, **kwargs)
    assert "\n" not in str(raised.value)
    return str(raised.value)


@pytest.fixture
def three(tmp_path: Path, picture: Picture) -> Path:
    """Three images below `tmp_path`, and a list of them in an order of its own."""
    for value, name in enumerate(["a/one.png", "b/two.png", "a/three.png"], start=1):
        picture(tmp_path / name, 10 * value)
    return write(tmp_path / "list.txt", "a/three.png 7", "a/one.png 0", "b/two.png 7")


def test_images_have_the_order_and_the_labels_of_the_lines(three: Path) -> None:
    dataset = opened()
    assert levels_of(dataset) == [30, 10, 20]
    assert dataset.labels.tolist() == [7, 0, 7]
    assert dataset.labels.dtype == np.int64
    assert dataset.class_names is None
    assert dataset.identity(1) == (three.parent / "a/one.png").read_bytes()


def test_paths_may_contain_spaces_and_other_letters_and_blank_lines_are_skipped(
    tmp_path: Path, picture: Picture
) -> None:
    for value, name in enumerate(["my cats/a  b.png", "Käfer/ü.png", "c.png 3"], start=1):
        picture(tmp_path / name.removesuffix(" 3"), value)
    write(tmp_path / "list.txt", "", "my cats/a  b.png 0", "   ", "Käfer/ü.png\t1", "c.png   -1  ", "")
    dataset = opened()
    assert levels_of(dataset) == [1, 2, 3]
    assert dataset.labels.tolist() == [0, 1, -1]
    assert dataset.facts["lines"] == 3


def test_ends_of_lines_and_a_byte_order_mark_change_nothing(three: Path) -> None:
    before = opened()
    lines = three.read_bytes()
    three.write_bytes(b"\xef\xbb\xbf" + lines.replace(b"\n", b"\r\n").removesuffix(b"\r\n"))
    after = opened()
    assert after.digest == before.digest
    assert levels_of(after) == levels_of(before)
    assert after.facts["sha256"] != before.facts["sha256"]  # of the file's bytes


def test_a_name_that_is_no_utf8_is_read(tmp_path: Path, picture: Picture) -> None:
    name = b"caf\xe9.png"
    picture(tmp_path / "x.png", 5).rename(tmp_path / os.fsdecode(name))
    (tmp_path / "list.txt").write_bytes(name + b" 2\n" + b"caf\xe8.png 2\n")
    assert "caf\ufffd.png" in refusal()
    (tmp_path / "list.txt").write_bytes(name + b" 2\n")
    assert levels_of(opened()) == [5]


def test_facts_name_the_list_and_its_digest(three: Path) -> None:
    assert opened().facts == {
        "list": "list.txt",
        "lines": 3,
        "sha256": hashlib.sha256(three.read_bytes()).hexdigest(),
    }


def test_the_digest_depends_on_images_labels_and_order(three: Path, picture: Picture) -> None:
    lines = three.read_text().splitlines()
    first = opened().digest
    assert opened().digest == first
    write(three, *reversed(lines))
    reordered = opened().digest
    write(three, "a/three.png 6", *lines[1:])
    relabelled = opened().digest
    write(three, *lines)
    picture(three.parent / "b/two.png", 99)
    changed = opened().digest
    assert len({first, reordered, relabelled, changed}) == 4


@pytest.mark.parametrize("where", ["folder", "working", "data"])
def test_a_list_is_looked_for_beside_the_suite_in_the_working_folder_and_under_the_data_root(
    where: str, tmp_path: Path, picture: Picture, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = ["folder", "working", "data"]
    for value, place in enumerate(places):
        picture(tmp_path / place / "x.png", value)
        if places.index(where) <= value:
            write(tmp_path / place / "lists/l.txt", "x.png 0")
    (tmp_path / "working").mkdir(exist_ok=True)
    monkeypatch.chdir(tmp_path / "working")
    dataset = opened("lists/l.txt", folder=tmp_path / "folder", data_root=tmp_path / "data")
    assert levels_of(dataset) == [places.index(where)]


def test_a_list_may_have_an_absolute_path_or_one_of_the_home_folder(
    three: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert levels_of(opened(three)) == levels_of(opened("~/list.txt")) == [30, 10, 20]


def test_a_list_that_is_not_there_names_the_places(tmp_path: Path) -> None:
    message = refusal("no/list.txt", folder=tmp_path / "suite", data_root=tmp_path / "data")
    assert str(tmp_path / "suite/no/list.txt") in message
    assert str(tmp_path / "data/no/list.txt") in message
    assert "OOD_HARNESS_DATA is not set" in refusal("no/list.txt")
    assert "imglist:FILE" in refusal("")


def test_no_name_of_a_list_leads_out_of_the_data_root(tmp_path: Path, picture: Picture) -> None:
    picture(tmp_path / "x.png")
    write(tmp_path / "secret.txt", "x.png 0")
    (tmp_path / "data").mkdir()
    (tmp_path / "deep/er").mkdir(parents=True)
    message = refusal("../secret.txt", folder=tmp_path / "deep/er", data_root=tmp_path / "data")
    assert str(tmp_path / "data") not in message


def test_images_are_found_where_openood_lays_them_out(tmp_path: Path, picture: Picture) -> None:
    data = tmp_path / "data"
    picture(data / "images_classic/texture/a.png", 1)
    picture(data / "images_largescale/ninco/a.png", 2)
    picture(data / "own/a.png", 3)
    picture(data / "lists/beside.png", 4)
    for name, line in {"t": "texture/a.png", "n": "ninco/a.png", "o": "own/a.png", "b": "beside.png"}.items():
        write(data / f"lists/{name}.txt", f"{line} -1")
    assert [levels_of(opened(f"lists/{name}.txt", data_root=data)) for name in "tnob"] == [[1], [2], [3], [4]]


def test_root_says_where_the_paths_start(three: Path, tmp_path: Path, picture: Picture) -> None:
    picture(tmp_path / "data/other/a/one.png", 71)
    picture(tmp_path / "data/other/a/three.png", 73)
    picture(tmp_path / "data/other/b/two.png", 72)
    assert levels_of(opened(root="other", data_root=tmp_path / "data")) == [73, 71, 72]
    assert levels_of(opened(root=str(tmp_path / "data/other"))) == [73, 71, 72]
    message = refusal(root="nowhere", data_root=tmp_path / "data")
    assert "nowhere" in message
    assert "root" in message


@pytest.mark.parametrize("path", ["../x.png", "a/../../x.png", "/etc/passwd", "a/..", "a/\0.png"])
def test_no_line_leaves_the_root(path: str, three: Path, picture: Picture) -> None:
    picture(three.parent.parent / "x.png")
    write(three, "a/one.png 0", f"{path} 1")
    message = refusal()
    assert "line 2" in message
    assert "leaves" in message


@pytest.mark.parametrize(
    "line",
    ["a/one.png", "a/one.png cat", "a/one.png -2", "a/one.png 1.0", "7", "a/one.png ٣", "a/one.png 1_0",
     'a/one.png { "class_label": 1 }', "a/one.png 99999999999999999999"],
)  # fmt: skip
def test_a_line_without_a_path_and_a_label_is_named(line: str, three: Path) -> None:
    write(three, "a/one.png 0", "", line)
    message = refusal()
    assert "line 3" in message
    assert "list.txt" in message
    assert "-1 for none" in message


def test_files_that_are_not_there_are_counted_and_the_first_ones_named(three: Path) -> None:
    write(three, "a/one.png 0", *(f"gone/{n}.png 0" for n in range(9)))
    message = refusal()
    assert "9 of 10" in message
    assert "gone/0.png" in message
    assert "and 4 more" in message
    assert "gone/5.png" not in message
    assert "root" in message


def test_no_lines_a_folder_and_a_split_are_refused(three: Path, tmp_path: Path) -> None:
    assert "leave split out" in refusal(split="test").lower()
    write(three, "", " ")
    assert "no lines" in refusal()
    assert "a" in refusal("a")


def test_images_that_a_list_repeats_are_kept_and_counted(
    three: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(three, "a/one.png 0", "b/two.png 1", "a/one.png 0", "a/one.png 0")
    dataset = opened()
    assert levels_of(dataset) == [10, 20, 10, 10]
    assert dataset.facts["repeated"] == 2
    assert "2 lines repeat an image" in caplog.text


def test_an_image_with_two_labels_is_refused(three: Path) -> None:
    write(three, "a/one.png 0", "b/two.png 1", "a/one.png 5")
    message = refusal()
    assert "a/one.png" in message
    assert "0 and 5" in message


def test_an_image_that_cannot_be_read_is_named_or_skipped(three: Path, catalogue: Registry) -> None:
    (three.parent / "b/two.png").write_bytes(b"no image")
    dataset = opened()
    with pytest.raises(harness.DatasetError, match=r"b/two\.png"):
        dataset[2]
    selection = open_dataset("pictures", "imglist:list.txt", catalogue).readable()
    assert selection.labels.tolist() == [7, 0]


def test_a_run_over_lists_reports_them_and_scores_every_line(
    tmp_path: Path, picture: Picture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, part in enumerate(("train", "val", "test", "ood")):
        lines = []
        for n in range(8):
            picture(tmp_path / f"data/{part}/{n}.png", 8 * number + n)
            lines.append(f"{part}/{n}.png {-1 if part == 'ood' else n % 2}")
        write(tmp_path / f"data/lists/{part}.txt", *lines)
    suite = {
        "schema": 1,
        "name": "lists",
        "scorers": ["msp"],
        "id": {
            "dataset": "imglist:lists/test.txt",
            "train": {"dataset": "imglist:lists/train.txt"},
            "validation": {"dataset": "imglist:lists/val.txt"},
            "test": {},
        },
        "models": [{"timm": "test_resnet", "params": {"pretrained": False}}],
        "ood": [{"name": "strange", "dataset": "imglist:lists/ood.txt", "group": "far"}],
    }
    monkeypatch.setenv("OOD_HARNESS_DATA", str(tmp_path / "data"))
    plan = plan_suite(suite, Registry.load(blocked=()), source="lists")
    result = run_plan(plan, RunOptions(out=tmp_path / "out", device="cpu"))
    manifest = json.loads((tmp_path / "out/run.json").read_text())
    assert result.failed == 0
    assert {name: (facts["list"], facts["lines"]) for name, facts in manifest["data_facts"].items()} == {
        "id.train": ("lists/train.txt", 8),
        "id.validation": ("lists/val.txt", 8),
        "id": ("lists/test.txt", 8),
        "strange": ("lists/ood.txt", 8),
    }
    assert manifest["protocol"] is None
