"""Folders as people have them: what Pillow opens is taken, nothing of the system's is, and the rest is told."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

import harness
from harness_plugins.datasets.folders import image_suffixes, open_image_folder

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Picture = Callable[..., Path]

SUFFIXES = (".jfif", ".jpe", ".avif", ".JPG", ".webp", ".tga", ".jp2", ".png", ".tiff", ".ppm")


def test_every_kind_of_image_that_pillow_opens_is_taken(tmp_path: Path) -> None:
    for number, suffix in enumerate(SUFFIXES):
        Image.fromarray(np.full((8, 8, 3), 10 * number, dtype=np.uint8)).save(tmp_path / f"{number}{suffix}")
    dataset = open_image_folder("photos", tmp_path, None)
    assert len(dataset) == len(SUFFIXES)
    for number in range(len(SUFFIXES)):
        assert abs(float(dataset[number].mean()) - 10 * number) < 4  # lossy formats
    assert dataset.facts == {}


@pytest.mark.parametrize("suffix", [".eps", ".pdf", ".wmf", ".mpg", ".h5", ".txt", ".csv", ".json"])
def test_what_pillow_cannot_decode_by_itself_is_no_image(suffix: str) -> None:
    assert suffix not in image_suffixes()


@pytest.mark.parametrize(
    "folder", ["@eaDir", "__MACOSX", ".thumbnails", "$RECYCLE.BIN", "#recycle", "lost+found"]
)
def test_folders_of_the_system_are_not_counted(tmp_path: Path, picture: Picture, folder: str) -> None:
    picture(tmp_path / "cat" / "1.png", 1)
    picture(tmp_path / "dog" / "1.png", 2)
    digest = open_image_folder("pets", tmp_path, None).digest
    for place in (tmp_path / folder / "thumb.png", tmp_path / "cat" / folder / "thumb.png"):
        picture(place, 3)
    (tmp_path / "cat" / "Thumbs.db").write_bytes(b"x")
    dataset = open_image_folder("pets", tmp_path, None)
    assert dataset.class_names == ("cat", "dog")
    assert dataset.labels.tolist() == [0, 1]
    assert dataset.digest == digest
    assert dataset.facts == {}


def test_files_that_are_left_out_are_counted_and_told(
    tmp_path: Path, picture: Picture, caplog: pytest.LogCaptureFixture
) -> None:
    picture(tmp_path / "cat" / "1.png")
    for name in ("notes.txt", "more.TXT", "raw.cr2", "LICENSE"):
        (tmp_path / "cat" / name).write_text("x")
    with caplog.at_level(logging.WARNING):
        dataset = open_image_folder("pets", tmp_path, None)
    assert dataset.facts == {"left_out": {".cr2": 1, ".txt": 2, "no suffix": 1}}
    assert isinstance(dataset, harness.Described)
    assert (
        "pets: 4 files are left out, since Pillow reads no image from them: 1 × .cr2, 2 × .txt" in caplog.text
    )


def test_a_link_to_nowhere_is_one_line_and_the_digest_stands(tmp_path: Path, picture: Picture) -> None:
    picture(tmp_path / "a.png", 1)
    (tmp_path / "b.png").symlink_to(tmp_path / "gone.png")
    dataset = open_image_folder("photos", tmp_path, None)
    digest = dataset.digest
    with pytest.raises(harness.DatasetError, match=r"b.png cannot be read .*unreadable = \"skip\""):
        dataset[1]
    picture(tmp_path / "gone.png", 2)
    assert open_image_folder("photos", tmp_path, None).digest != digest


def test_a_name_that_is_no_utf8_is_read_and_told(tmp_path: Path, picture: Picture) -> None:
    name = os.fsdecode(b"caf\xe9.png")
    picture(tmp_path / "a.png", 1)
    (tmp_path / "a.png").rename(tmp_path / name)
    dataset = open_image_folder("photos", tmp_path, None)
    assert dataset[0].max() == 1
    assert len(dataset.digest) == 32
    (tmp_path / name).unlink()
    with pytest.raises(harness.DatasetError, match="caf\ufffd.png cannot be read"):
        dataset[0]


def test_where_no_labels_are_asked_for_any_arrangement_is_fine(tmp_path: Path, picture: Picture) -> None:
    picture(tmp_path / "1.png")
    picture(tmp_path / "deep" / "er" / "2.png")
    (tmp_path / "empty").mkdir()
    with pytest.raises(harness.DatasetError, match="images beside its class folders"):
        open_image_folder("photos", tmp_path, None)
    dataset = open_image_folder("photos", tmp_path, None, labelled=False)
    assert dataset.labels.tolist() == [-1, -1]
    assert dataset.class_names is None
