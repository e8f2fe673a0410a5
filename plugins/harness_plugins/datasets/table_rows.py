"""The image column of a table of the `datasets` library; its rows hold encoded images or name their files."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

import harness
from harness_plugins.datasets.folders import content_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import PurePosixPath


class TableRows:
    """The image column of a `datasets.Dataset`, and the files of a folder that it is made of.

    A row may name the file of its image, by a path that starts at the folder.
    """

    def __init__(
        self,
        table: Any,
        column: str,
        *,
        name: str,
        key: str,
        data: harness.DataFolder,
        files: Sequence[PurePosixPath] | None,
    ) -> None:
        import datasets

        with silent():
            rows = table.select_columns([column]).cast_column(column, datasets.Image(decode=False))
        # Read from Arrow's columns: a row from `datasets` takes ten times as long as its bytes.
        self._chunks = rows.data.column(column).chunks
        self._ends = np.cumsum([len(chunk) for chunk in self._chunks])
        self._name, self._key, self._data, self._top = name, key, data, data.path.resolve()
        named = self._named()
        known = {self._top / file for file in files or ()}
        extra = sorted(name for name in named if self._top / name not in known)
        self._files: list[PurePosixPath | str] | None = None if files is None else [*files, *extra]

    def encoded(self, index: int) -> bytes:
        """Read one row's image."""
        number = int(np.searchsorted(self._ends, index, side="right"))
        chunk = self._chunks[number]
        row = index - (int(self._ends[number - 1]) if number else 0)
        encoded: bytes | None = chunk.field("bytes")[row].as_py()
        return encoded if encoded is not None else self._from_path(index, chunk[row].as_py())

    def _named(self) -> set[str]:
        """Return the files that rows name instead of holding an image. Raises DatasetError for one of elsewhere."""
        found, start = set(), 0
        for chunk in self._chunks:
            if chunk.field("bytes").null_count:
                without = np.flatnonzero(chunk.field("bytes").is_null().to_numpy(zero_copy_only=False))
                for row, name in zip(without, chunk.field("path").take(without).to_pylist(), strict=True):
                    if name and name not in found:
                        self._require_own(start + int(row), name)
                        found.add(name)
            start += len(chunk)
        return found

    def _require_own(self, index: int, name: str) -> None:
        try:
            self._data.stat(self._top / name)
        except harness.DatasetError as error:
            raise harness.DatasetError(f"{self.place(index)} names a file: {error}") from None

    def _from_path(self, index: int, stored: dict[str, str | None] | None) -> bytes:
        name = None if stored is None else stored["path"]
        if not name:
            raise harness.DatasetError(f"{self.place(index)} has no image. Remove the row")
        try:
            return self._data.read(self._top / name)
        except (OSError, ValueError) as error:  # of a zero byte in the path
            raise harness.DatasetError(
                f"{self.place(index)} names a file that cannot be read, {name} "
                f"({getattr(error, 'strerror', error)}). Restore it"
            ) from error

    def place(self, index: int) -> str:
        """Name the row."""
        return f"row {index} of {self._name!r}"

    def content(self) -> str:
        """Give the hub's commit or the folder's hash, with config, split and column."""
        if self._files is None:
            return self._key
        return f"{content_of(self._data, self._data.path, self._files)}/{self._key}"


@contextmanager
def silent() -> Iterator[None]:
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
