"""Datasets of the Hugging Face hub, or of a folder on this machine, through the `datasets` library.

`hf:NAME` is searched in this order: the folders NAME and NAME's last part under OOD_HARNESS_DATA, the folder NAME,
the hub. Only the requested split is fetched and prepared. No code from the hub is run.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import harness
from harness_plugins.datasets.configurations import CARD, configurations, stated
from harness_plugins.datasets.decoding import EncodedDataset
from harness_plugins.datasets.folders import is_image, open_image_folder, visible_files
from harness_plugins.datasets.labels import read_labels
from harness_plugins.datasets.table_rows import TableRows, silent

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence


HUB_TIMEOUT = 5.0  # seconds to reach the hub, once: `datasets` itself would retry for half a minute
TABLE_SUFFIXES = frozenset({".parquet", ".arrow"})
ARCHIVE_SUFFIXES = frozenset({".zip", ".tar", ".gz", ".tgz", ".xz", ".7z", ".rar"})
HUB_FILES = "hf://datasets/"
SETTINGS = ".huggingface.yaml"  # which `datasets` reads beside the card
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
        key = f"hub/{request.argument}/{info.sha}/{config}/{table.split}"
        return _encoded(request, table, image_column, label_column, key=key, data=_fetched(request))
    data = harness.DataFolder(folder)
    files = visible_files(data)
    if not _is_image_folder(files):
        found = {} if _card_states(data) else configurations(files)
        table = _load(request, str(folder.resolve()), config, found, data=data)
        key = f"{config}/{table.split}"
        return _encoded(request, table, image_column, label_column, key=key, data=data, files=files)
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


def _fetched(request: harness.DatasetRequest) -> harness.DataFolder:
    """Return where the files of a dataset of the hub lie once they are fetched."""
    import datasets
    from huggingface_hub import constants

    own = Path(constants.HF_HUB_CACHE) / f"datasets--{request.argument.replace('/', '--')}"
    return harness.DataFolder(own, Path(datasets.config.DOWNLOADED_DATASETS_PATH))


def _card_states(data: harness.DataFolder) -> bool:
    """Return whether the card of a folder names its configurations; one that cannot be read is left to `datasets`."""
    from huggingface_hub import DatasetCard

    try:
        text = data.read(data.path / CARD).decode("utf-8")
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
    *,
    revision: str | None = None,
    data: harness.DataFolder | None = None,
) -> Any:
    """Prepare one split of a hub id or a folder, `data`: a memory-mapped `datasets.Dataset`.

    `found` are configurations that only the names of files state.
    """
    import datasets

    _require_config(request, config, found)
    if data is not None:
        data.stat(data.path / SETTINGS)
    with silent():
        try:
            if config is not None and found:
                builder = datasets.load_dataset_builder(where, data_files=found[config], revision=revision)
            else:
                builder = datasets.load_dataset_builder(where, name=config, revision=revision)
            files = builder.config.data_files or {}
            split = _split(request, [str(name) for name in files])
            _require_own(request, files[split], data, within=builder.base_path)
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


def _require_own(
    request: harness.DatasetRequest, files: Sequence[str], data: harness.DataFolder | None, *, within: str
) -> None:
    """Raise DatasetError for files that are not the dataset's: its card may name any, of this machine or elsewhere."""
    for file in map(str, files):
        if data is not None and "://" not in file:
            data.stat(Path(file))
        elif data is not None or not file.startswith((HUB_FILES, within)):
            raise harness.DatasetError(
                f"the card of {request.name!r} names {file}, which is not a file of the dataset. Remove it from the "
                "card, and fetch it into the dataset's folder"
            )


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


def _encoded(
    request: harness.DatasetRequest,
    table: Any,
    image_column: str | None,
    label_column: str | None,
    *,
    key: str,
    data: harness.DataFolder,
    files: Sequence[PurePosixPath] | None = None,
) -> EncodedDataset:
    column = _image_column(request, table.features, image_column)
    labels, names = read_labels(request, table, label_column)
    rows = TableRows(table, column, name=request.name, key=f"{key}/{column}", data=data, files=files)
    return EncodedDataset(rows, labels, names)


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
