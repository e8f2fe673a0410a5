"""Data may name files of their own folder only: nothing else is read, and nothing that is no file is opened."""

from __future__ import annotations

import os
import shutil
import signal
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from zipfile import ZipFile

import datasets
import huggingface_hub
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from toys import TOY_PLUGIN

import harness
from harness.base.inside import DataFolder
from harness.contract.registry import Registry
from harness.data.opening import open_dataset
from harness_plugins.models.timm_factory import create

pytestmark = pytest.mark.trials("inputs")

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture(autouse=True)
def nothing_hangs() -> Iterator[None]:
    """End a test that waits for a pipe."""

    def stop(*_: object) -> None:
        raise TimeoutError("it hangs")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(autouse=True)
def library_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets-cache")


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Registry.load([TOY_PLUGIN], blocked=())


def picture(path: Path, value: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((4, 4), value, dtype=np.uint8)).save(path)
    return path


def table(folder: Path, names: list[str]) -> Path:
    """Write a table whose rows name the files of their images."""
    (folder / "data").mkdir(parents=True, exist_ok=True)
    images = pa.array([{"bytes": None, "path": name} for name in names], datasets.Image().pa_type)
    plain = pa.table({"image": images, "label": list(range(len(names)))})
    types = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
    pq.write_table(plain.cast(types.arrow_schema), folder / "data" / "test-00000-of-00001.parquet")
    return folder


def pipe(path: Path) -> None:
    os.mkfifo(path)


def listening(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as bound:
        before = Path.cwd()
        os.chdir(path.parent)  # the name of a socket is short
        bound.bind(path.name)
        os.chdir(before)


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def leads_out(path: Path) -> None:
    path.symlink_to(picture(path.parents[2] / "outside" / "secret.png", 99))


NO_FILES: dict[str, tuple[Callable[[Path], None], str]] = {
    "pipe": (pipe, "is a pipe"),
    "socket": (listening, "is a socket"),
    "device": (device, "leads out of the folder"),
    "link": (leads_out, "leads out of the folder"),
}


def image_folder(root: Path, bad: Callable[[Path], None]) -> tuple[str, dict[str, Any]]:
    picture(root / "ape" / "a.png")
    bad(root / "ape" / "b.png")
    return str(root), {}


def image_list(root: Path, bad: Callable[[Path], None]) -> tuple[str, dict[str, Any]]:
    picture(root / "ape" / "a.png")
    bad(root / "ape" / "b.png")
    (root / "list.txt").write_text("ape/a.png 0\nape/b.png 1\n")
    return f"imglist:{root / 'list.txt'}", {}


def rows(root: Path, bad: Callable[[Path], None]) -> tuple[str, dict[str, Any]]:
    picture(root / ".images" / "a.png")
    bad(root / ".images" / "b.png")
    table(root, [".images/a.png", ".images/b.png"])
    return str(root), {}


def parquet(root: Path, bad: Callable[[Path], None]) -> tuple[str, dict[str, Any]]:
    (root / "data").mkdir(parents=True)
    bad(root / "data" / "test-00000-of-00001.parquet")
    return str(root), {}


def card(root: Path, bad: Callable[[Path], None]) -> tuple[str, dict[str, Any]]:
    picture(root / ".images" / "a.png")
    table(root, [".images/a.png"])
    bad(root / "data" / "README.md")
    (root / "data" / "README.md").rename(root / "README.md")
    return str(root), {}


def settings(root: Path, bad: Callable[[Path], None]) -> tuple[str, dict[str, Any]]:
    picture(root / ".images" / "a.png")
    table(root, [".images/a.png"])
    bad(root / "data" / ".huggingface.yaml")
    (root / "data" / ".huggingface.yaml").rename(root / ".huggingface.yaml")
    return str(root), {}


def published(root: Path, bad: Callable[[Path], None]) -> tuple[str, dict[str, Any]]:
    (root / "fog").mkdir(parents=True)
    np.save(root / "fog" / "test_labels.npy", np.zeros(4, dtype=int))
    bad(root / "fog" / "test_images.npy")
    return f"published:{root}", {"corruption": "fog"}


def published_labels(root: Path, bad: Callable[[Path], None]) -> tuple[str, dict[str, Any]]:
    (root / "fog").mkdir(parents=True)
    np.save(root / "fog" / "test_images.npy", np.zeros((4, 4, 4), dtype=np.uint8))
    bad(root / "fog" / "test_labels.npy")
    return f"published:{root}", {"corruption": "fog"}


def graded(root: Path, bad: Callable[[Path], None]) -> tuple[str, dict[str, Any]]:
    picture(root / "fog" / "1" / "ape" / "a.png")
    bad(root / "fog" / "b.png")
    (root / "fog" / "b.png").rename(root / "fog" / "1" / "ape" / "b.png")
    return f"published:{root}", {"corruption": "fog", "severity": 1}


FORMS = (
    image_folder, image_list, rows, parquet, card, settings, published, published_labels, graded,
)  # fmt: skip


@pytest.mark.parametrize("bad", NO_FILES)
@pytest.mark.parametrize("form", FORMS)
def test_what_is_no_file_of_the_data_is_refused_by_name(
    form: Callable[..., tuple[str, dict[str, Any]]], bad: str, registry: Registry, tmp_path: Path
) -> None:
    make, fault = NO_FILES[bad]
    name, params = form(tmp_path / "data", make)
    with pytest.raises(harness.DatasetError, match=fault) as caught:
        _ = open_dataset("it", name, registry, params=params).digest
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("link", ["ape", "test"])
def test_a_linked_folder_that_leads_out_is_refused_before_it_is_searched(
    link: str, registry: Registry, tmp_path: Path
) -> None:
    picture(tmp_path / "data" / "bee" / "a.png")
    (tmp_path / "data" / link).symlink_to("/")
    with pytest.raises(
        harness.DatasetError, match=f"{link} leads out of the folder of its data.*, to /. Copy"
    ):
        open_dataset("it", str(tmp_path / "data"), registry, split="test" if link == "test" else None)


@pytest.mark.parametrize("how", ["absolute", "relative", "linked"])
def test_a_row_that_names_a_file_of_elsewhere_is_refused(
    how: str, registry: Registry, tmp_path: Path
) -> None:
    secret = picture(tmp_path / "secret.png", 99)
    if how == "linked":
        (tmp_path / "data").mkdir()
        (tmp_path / "data" / "b.png").symlink_to(secret)
    named = {"absolute": str(secret), "relative": "../secret.png", "linked": "b.png"}[how]
    picture(tmp_path / "data" / "a.png")
    table(tmp_path / "data", ["a.png", named])
    with pytest.raises(harness.DatasetError, match=r"leads out of the folder of its data") as caught:
        open_dataset("it", str(tmp_path / "data"), registry)
    assert how == "linked" or "row 1 of" in str(caught.value)


@pytest.mark.parametrize("file", ["../secret/data/*.parquet", "/secret", "zip://a.png::../secret.zip"])
def test_a_card_cannot_name_files_of_elsewhere(file: str, registry: Registry, tmp_path: Path) -> None:
    secret = table(tmp_path / "secret", ["a.png"]) / "data" / "test-00000-of-00001.parquet"
    table(tmp_path / "data", [])
    with ZipFile(tmp_path / "secret.zip", "w") as archive:
        archive.write(picture(tmp_path / "a.png"), "a.png")
    written = (
        str(secret) if file == "/secret" else file.replace("../secret.zip", str(tmp_path / "secret.zip"))
    )
    (tmp_path / "data" / "README.md").write_text(
        f"---\nconfigs:\n- config_name: default\n  data_files:\n  - split: test\n    path: '{written}'\n---\n"
    )
    with pytest.raises(harness.DatasetError, match=r"leads out of the folder|is not a file of the dataset"):
        open_dataset("it", str(tmp_path / "data"), registry)


def test_a_card_of_the_hub_cannot_name_files_of_this_machine(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = table(tmp_path / "secret", ["a.png"])
    made = datasets.load_dataset_builder(str(secret))
    made.base_path = "hf://datasets/someone/pets@0123abc"
    info = SimpleNamespace(sha="0123abc", siblings=None, card_data=None)
    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", lambda *_, **__: info)
    monkeypatch.setattr(datasets, "load_dataset_builder", lambda *_, **__: made)
    with pytest.raises(harness.DatasetError, match=r"card of 'hf:someone/pets' names .* not a file of the"):
        open_dataset("it", "hf:someone/pets", registry)


@pytest.mark.parametrize("place", ["seen", ".hidden"])
@pytest.mark.parametrize("absolute", [False, True])
def test_a_file_that_a_row_names_is_part_of_the_digest(
    place: str, absolute: bool, registry: Registry, tmp_path: Path
) -> None:
    file = picture(tmp_path / "data" / place / "a.png", 10)
    table(tmp_path / "data", [str(file) if absolute else f"{place}/a.png"])
    before = open_dataset("it", str(tmp_path / "data"), registry)
    digest = before.digest
    assert before.images([0])[0].max() == 10
    picture(file, 20)
    after = open_dataset("it", str(tmp_path / "data"), registry)
    assert after.images([0])[0].max() == 20
    assert after.digest != digest


def test_a_named_file_that_is_away_or_damaged_is_told_when_it_is_read(
    registry: Registry, tmp_path: Path
) -> None:
    picture(tmp_path / "data" / "a.png")
    table(tmp_path / "data", ["a.png", "gone.png", "zero\0byte.png"])
    opened = open_dataset("it", str(tmp_path / "data"), registry)
    assert len(opened.digest) == 32
    for row in (1, 2):
        with pytest.raises(harness.DatasetError, match=f"row {row} of .* cannot be read"):
            opened.images([row])


def test_a_dataset_whose_folder_is_a_link_is_read(registry: Registry, tmp_path: Path) -> None:
    picture(tmp_path / "store" / "images" / "a.png", 7)
    (tmp_path / "data").symlink_to(tmp_path / "store")
    assert open_dataset("it", str(tmp_path / "data"), registry).images([0])[0].max() == 7
    (tmp_path / "store" / "again").symlink_to(tmp_path / "store" / "images")  # within the data
    assert len(open_dataset("it", str(tmp_path / "data"), registry)) == 2


@pytest.mark.parametrize("below", [".", "images"])
def test_a_snapshot_of_the_hub_reads_the_blobs_of_its_repository_and_no_others(
    below: str, registry: Registry, tmp_path: Path
) -> None:
    repository = tmp_path / "datasets--someone--pets"
    snapshot = repository / "snapshots" / "0123abc" / "images"
    snapshot.mkdir(parents=True)
    picture(repository / "blobs" / "a.png", 7).rename(repository / "blobs" / "77aa")
    (snapshot / "a.png").symlink_to("../../../blobs/77aa")
    (tmp_path / "data").symlink_to(repository / "snapshots" / "0123abc")
    opened = open_dataset("it", str(tmp_path / "data" / below), registry)
    assert opened.images([0])[0].max() == 7
    assert len(opened.digest) == 32
    other = picture(tmp_path / "datasets--someone--else" / "blobs" / "b.png")
    (snapshot / "b.png").symlink_to(other)
    with pytest.raises(harness.DatasetError, match="leads out of the folder"):
        open_dataset("it", str(tmp_path / "data" / below), registry)


def test_links_lead_where_the_user_allows_it(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, _ = image_list(tmp_path / "data", leads_out)
    monkeypatch.setenv("OOD_HARNESS_LINKS", str(tmp_path / "outside"))
    opened = open_dataset("it", name, registry)
    assert len(opened.digest) == 32
    assert opened.images([1])[0].max() == 99


def test_a_loop_of_links_is_a_file_that_cannot_be_read(registry: Registry, tmp_path: Path) -> None:
    picture(tmp_path / "data" / "a.png")
    (tmp_path / "data" / "b.png").symlink_to("c.png")
    (tmp_path / "data" / "c.png").symlink_to("b.png")
    opened = open_dataset("it", str(tmp_path / "data"), registry)
    assert len(opened.digest) == 32
    with pytest.raises(harness.DatasetError, match=r"b.png cannot be read"):
        opened.images([1])


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model's folder as timm writes it."""
    from safetensors.torch import save_file

    folder = tmp_path_factory.mktemp("model")
    network = create("test_resnet", {"pretrained": False, "num_classes": 3}).classifier
    assert isinstance(network, torch.nn.Module)
    save_file(network.state_dict(), folder / "model.safetensors")
    (folder / "config.json").write_text('{"architecture": "test_resnet", "num_classes": 3}')
    return folder


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
@pytest.mark.parametrize("bad", ["pipe", "socket", "device", "link"])
def test_a_model_reads_files_of_its_folder_only(
    name: str, bad: str, stored: Path, registry: Registry, tmp_path: Path
) -> None:
    folder = shutil.copytree(stored, tmp_path / "model")
    (folder / name).unlink()
    if bad == "link":
        (folder / name).symlink_to(stored / name)
    else:
        NO_FILES[bad][0](folder / name)
    with pytest.raises(harness.HarnessError, match=NO_FILES[bad][1]):
        build_checkpoint(folder, registry)


def test_a_model_in_a_snapshot_of_the_hub_or_behind_a_link_is_read(
    stored: Path, registry: Registry, tmp_path: Path
) -> None:
    repository = tmp_path / "models--someone--net"
    snapshot = repository / "snapshots" / "0123abc"
    snapshot.mkdir(parents=True)
    shutil.copytree(stored, repository / "blobs")
    for name in ("config.json", "model.safetensors"):
        (snapshot / name).symlink_to(f"../../blobs/{name}")
    (tmp_path / "mine").symlink_to(snapshot)
    for folder in (snapshot, tmp_path / "mine"):
        assert build_checkpoint(folder, registry).num_classes == 3


def build_checkpoint(folder: Path, registry: Registry) -> harness.Model:
    request = harness.ModelRequest(f"checkpoint:{folder}", str(folder), catalogue=registry)
    built: harness.Model = registry.get("model", request.name).spec.build(request)
    return built


def test_a_path_within_is_known_by_where_it_really_lies(tmp_path: Path) -> None:
    """A name with `..` may stay inside, and a folder may be left through a link."""
    picture(tmp_path / "data" / "a.png")
    (tmp_path / "data" / "deep").mkdir()
    (tmp_path / "other" / "deep").mkdir(parents=True)
    picture(tmp_path / "other" / "a.png")
    (tmp_path / "data" / "out").symlink_to(tmp_path / "other" / "deep")
    data = DataFolder(tmp_path / "data")
    assert data.stat(tmp_path / "data" / "deep" / ".." / "a.png") is not None
    with pytest.raises(harness.DatasetError, match="leads out"):
        data.stat(tmp_path / "data" / "out" / ".." / "a.png")
