"""Datasets of the Hugging Face hub, or of a folder on this machine, through the `datasets` library.

`hf:NAME` is searched in this order: the folders NAME and NAME's last part under OOD_HARNESS_DATA, the folder NAME,
the hub. Only the requested split is fetched and prepared. No code from the hub is run.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np

import harness
from harness_plugins.datasets.configurations import CARD, configurations, stated
from harness_plugins.datasets.decoding import EncodedDataset
from harness_plugins.datasets.folders import content_of, is_image, open_image_folder, visible_files
from harness_plugins.datasets.labels import read_labels

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence


HUB_TIMEOUT = 5.0  # seconds to reach the hub, once: `datasets` itself would retry for half a minute
TABLE_SUFFIXES = frozenset({".parquet", ".arrow"})
ARCHIVE_SUFFIXES = frozenset({".zip", ".tar", ".gz", ".tgz", ".xz", ".7z", ".rar"})
METADATA_FILES = frozenset({"metadata.csv", "metadata.jsonl"})


def open_hub(
    request: harness.DatasetRequest,
    *,
    config: str | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
) -> EncodedDataset:
    """Open one split of a dataset on the hub, or of a folder; images stay encoded until they are read.

    `config` is one of the dataset's configurations, if it has several.
    The default `image_column` is the first image column; the default `label_column` is the first of label, labels,
    fine_label and coarse_label that holds classes: integers, booleans or strings, which are numbered in sorted order.
    Without one, all labels are -1. Only the hub has revisions. `config` is one that the card states or, if it states
    none, a folder of Parquet files named after their splits.
    """
    folder = find_folder(request)
    if folder is None:
        info = _on_the_hub(request)
        there = [PurePosixPath(file.rfilename) for file in info.siblings or ()]
        found = {} if stated(info.card_data) else configurations(there)
        table = _load(request, request.argument, config, found, revision=info.sha)
        key = f"hub/{request.argument}/{info.sha}"
        return _encoded(request, table, image_column, label_column, key=f"{key}/{config}/{table.split}")
    files = visible_files(folder)
    if not _is_image_folder(files):
        found = {} if _card_states(folder) else configurations(files)
        table = _load(request, str(folder.resolve()), config, found)
        key = f"{config}/{table.split}"
        return _encoded(request, table, image_column, label_column, key=key, folder=folder, files=files)
    if config or image_column or label_column:
        raise harness.InputError(
            f"{request.name!r} is a plain image folder, {folder}. "
            "Leave config, image_column and label_column out"
        )
    return open_image_folder(request.name, folder, request.split, labelled=request.labelled)


def find_folder(request: harness.DatasetRequest) -> Path | None:
    """Find the dataset on this machine; None if only the hub can have it.

    A name that starts with `/`, `~` or `.`, or contains `..`, is a path. It is never searched under
    OOD_HARNESS_DATA, so no name leads out of that folder.
    """
    if not request.argument:
        raise harness.InputError(f"{request.name!r} names no dataset. Give a hub id or a folder: 'hf:mnist'")
    for candidate in _candidates(request):
        if candidate.is_dir():
            return candidate
    if _is_own_path(request.argument) or request.argument.count("/") > 1:
        raise harness.DatasetError(_missing(request, "", "Check the path"))
    return None


def _candidates(request: harness.DatasetRequest) -> list[Path]:
    name, root = request.argument, request.data_root
    own = Path(name).expanduser()
    if root is None or _is_own_path(name):
        return [own]
    return list(dict.fromkeys([root / name, root / PurePosixPath(name).name, own]))


def _is_own_path(name: str) -> bool:
    return name.startswith(("/", "~", ".")) or ".." in PurePosixPath(name).parts or Path(name).is_absolute()


def _missing(request: harness.DatasetRequest, hub: str, fix: str) -> str:
    places = [f"the folder {candidate}" for candidate in _candidates(request)] + ([hub] if hub else [])
    unset = " (OOD_HARNESS_DATA is not set)" if request.data_root is None else ""
    return f"no dataset {request.name!r}. Looked for {', '.join(places)}{unset}. {fix}"


def _card_states(folder: Path) -> bool:
    """Return whether the card of a folder names its configurations; one that cannot be read is left to `datasets`."""
    from huggingface_hub import DatasetCard

    try:
        text = (folder / CARD).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return False
    try:
        return stated(DatasetCard(text).data)
    except Exception:  # invalid YAML can fail in many ways
        return True


def _on_the_hub(request: harness.DatasetRequest) -> Any:
    """Ask the hub for the revision: its commit, which is loaded and part of the digest, its files and its card."""
    from huggingface_hub import HfApi

    try:
        return HfApi().dataset_info(request.argument, revision=request.revision, timeout=HUB_TIMEOUT)
    except Exception as error:  # the network, the hub and the id can fail in many ways
        revision = f" at revision {request.revision!r}" if request.revision else ""
        hub = f"{request.argument!r} on the hub{revision} ({_reason(error)})"
        fix = (
            f"Set OOD_HARNESS_DATA to a folder that holds {PurePosixPath(request.argument).name}/, "
            "or check the name and the network"
        )
        raise harness.DatasetError(_missing(request, hub, fix)) from error


def _reason(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _first_cause(error: BaseException) -> BaseException:
    return error if error.__cause__ is None else _first_cause(error.__cause__)


def _is_image_folder(files: Sequence[PurePosixPath]) -> bool:
    """Return whether files are plain images and no tables. `datasets` would read a class `test` as a split."""
    tables = any(file.suffix.lower() in TABLE_SUFFIXES or file.name in METADATA_FILES for file in files)
    return not tables and any(is_image(file) for file in files)


def _load(
    request: harness.DatasetRequest,
    where: str,
    config: str | None,
    found: Mapping[str, Mapping[str, list[str]]],
    revision: str | None = None,
) -> Any:
    """Prepare one split of a hub id or a folder: a memory-mapped `datasets.Dataset`.

    `found` are configurations that only the names of files state.
    """
    import datasets

    _require_config(request, config, found)
    with _silent():
        try:
            if config is not None and found:
                builder = datasets.load_dataset_builder(where, data_files=found[config], revision=revision)
            else:
                builder = datasets.load_dataset_builder(where, name=config, revision=revision)
            files = builder.config.data_files or {}
            split = _split(request, [str(name) for name in files])
            if builder.name == "imagefolder":
                _refuse_archives(request, files[split])
            return datasets.load_dataset(
                builder.name,
                data_files={split: list(files[split])},
                split=split,
                features=builder.info.features,
            )
        except harness.HarnessError:
            raise
        except Exception as error:  # `datasets` raises many errors on files that it cannot read
            raise harness.DatasetError(
                f"the dataset {request.name!r} cannot be read from {where} "
                f"({_reason(_first_cause(error))}). "
                "Check its files and the parameter config"
            ) from error


def _require_config(request: harness.DatasetRequest, config: str | None, found: Mapping[str, object]) -> None:
    """Raise HarnessError unless a configuration is named if there are several; `datasets` would join them."""
    if config is None and len(found) > 1:
        raise harness.DatasetError(
            f"the dataset {request.name!r} has several configurations: {harness.shortened(list(found))}. "
            f'Name one: params = {{ config = "{min(found)}" }}'
        )
    if config is not None and found and config not in found:
        raise harness.unknown_name(f"config of {request.name!r}", config, found, valid_label="Configurations")


def _refuse_archives(request: harness.DatasetRequest, files: Sequence[str]) -> None:
    # `datasets` fails on class folders in an archive, and would search the archive again for every image.
    archives = [file for file in files if PurePosixPath(file).suffix.lower() in ARCHIVE_SUFFIXES]
    if archives:
        raise harness.DatasetError(
            f"the dataset {request.name!r} keeps its images in an archive, {archives[0]}. Unpack it into a folder "
            f"{PurePosixPath(request.argument).name}/ under OOD_HARNESS_DATA"
        )


def _split(request: harness.DatasetRequest, splits: list[str]) -> str:
    if request.split is not None:
        if request.split not in splits:
            raise harness.unknown_name(
                f"split of {request.name!r}", request.split, splits, valid_label="Splits"
            )
        return request.split
    if len(splits) != 1:
        raise harness.DatasetError(
            f"the dataset {request.name!r} has several splits: {', '.join(splits)}. Name one with split"
        )
    return splits[0]


@contextmanager
def _silent() -> Iterator[None]:
    """Switch progress bars off temporarily, unless the user's environment sets them."""
    import datasets
    import huggingface_hub.utils
    from huggingface_hub import constants

    libraries = (
        (datasets, datasets.config.HF_DATASETS_DISABLE_PROGRESS_BARS),
        (huggingface_hub.utils, constants.HF_HUB_DISABLE_PROGRESS_BARS),
    )
    with ExitStack() as restore:
        for library, environment in libraries:
            if environment is None and not library.are_progress_bars_disabled():
                library.disable_progress_bars()
                restore.callback(library.enable_progress_bars)
        yield


def _encoded(
    request: harness.DatasetRequest,
    table: Any,
    image_column: str | None,
    label_column: str | None,
    *,
    key: str,
    folder: Path | None = None,
    files: Sequence[PurePosixPath] = (),
) -> EncodedDataset:
    column = _image_column(request, table.features, image_column)
    labels, names = read_labels(request, table, label_column)
    rows = TableRows(table, column, name=request.name, key=f"{key}/{column}", folder=folder, files=files)
    return EncodedDataset(rows, labels, names)


class TableRows:
    """The image column of a `datasets.Dataset`."""

    def __init__(
        self,
        table: Any,
        column: str,
        *,
        name: str,
        key: str,
        folder: Path | None,
        files: Sequence[PurePosixPath],
    ) -> None:
        import datasets

        with _silent():
            rows = table.select_columns([column]).cast_column(column, datasets.Image(decode=False))
        # Read from Arrow's columns: a row from `datasets` takes ten times as long as its bytes.
        self._chunks = rows.data.column(column).chunks
        self._ends = np.cumsum([len(chunk) for chunk in self._chunks])
        self._name, self._key, self._folder, self._files = name, key, folder, files

    def encoded(self, index: int) -> bytes:
        """Read one row's image."""
        number = int(np.searchsorted(self._ends, index, side="right"))
        chunk = self._chunks[number]
        row = index - (int(self._ends[number - 1]) if number else 0)
        encoded: bytes | None = chunk.field("bytes")[row].as_py()
        return encoded if encoded is not None else self._from_path(index, chunk[row].as_py())

    def _from_path(self, index: int, stored: dict[str, str] | None) -> bytes:
        if stored is None:
            raise harness.DatasetError(f"{self.place(index)} has no image. Remove the row")
        try:
            return Path(stored["path"]).read_bytes()
        except OSError as error:
            raise harness.DatasetError(
                f"{self.place(index)} names a file that cannot be read, {stored['path']} ({error.strerror}). "
                "Restore it"
            ) from error

    def place(self, index: int) -> str:
        """Name the row."""
        return f"row {index} of {self._name!r}"

    def content(self) -> str:
        """Give the hub's commit or the folder's hash, with config, split and column."""
        return self._key if self._folder is None else f"{content_of(self._folder, self._files)}/{self._key}"


def _image_column(request: harness.DatasetRequest, features: Any, wanted: str | None) -> str:
    import datasets

    if wanted is not None and wanted not in features:
        raise harness.unknown_name(f"column of {request.name!r}", wanted, features, valid_label="Columns")
    images = [name for name, feature in features.items() if isinstance(feature, datasets.Image)]
    if wanted is None and not images:
        raise harness.DatasetError(
            f"the dataset {request.name!r} has no image column. Columns: {', '.join(features)}. "
            "Name one that holds encoded images with image_column"
        )
    return wanted or images[0]


@harness.hookimpl
def harness_datasets() -> Iterator[harness.DatasetSpec]:
    """Offer the datasets of the hub and of local folders."""
    yield harness.DatasetSpec("hf", open_hub, argument="a hub id, or a folder", opens_folders=True)
