"""Files that data name: they must be files, in the folder of the data.

What a user writes, in a suite or on the command line, may lead anywhere. What data say is a stranger's word: a row of a
table, a line of a list, a link in a folder or the card of a dataset can name any file of this machine, or a pipe into
which nobody writes.
"""

from __future__ import annotations

import os
import stat
from functools import cached_property
from pathlib import Path

from harness.base.errors import DatasetError

LINKS = "OOD_HARNESS_LINKS"  # folders to which links in data may lead, besides the data's own
_KINDS = {
    stat.S_IFIFO: "pipe",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "device",
    stat.S_IFBLK: "device",
    stat.S_IFDIR: "folder",
}


class DataFolder:
    """A folder whose files are named by data. It may itself be a link: its name is the user's word.

    In a snapshot of the hub's cache, links lead to the blobs of the same repository.
    """

    def __init__(self, path: Path, *others: Path) -> None:
        """Take the folder, and further ones in which files may lie."""
        self.path = path
        self._others = others
        self._known: set[str] = set()  # folders that were found to be inside

    @cached_property
    def _roots(self) -> tuple[Path, ...]:
        own = Path(os.path.realpath(self.path))
        named = [Path(name) for name in os.environ.get(LINKS, "").split(os.pathsep) if name]
        return (own, *_blobs_of(own), *(Path(os.path.realpath(other)) for other in (*self._others, *named)))

    def stat(self, path: Path) -> os.stat_result | None:
        """Return the state of a file of the data; None if it is away, as what a link to nowhere names.

        Raises DatasetError, without opening it, for what lies outside, and for pipes, devices, sockets and folders.
        """
        try:
            found = path.lstat()
            if stat.S_ISLNK(found.st_mode):
                found = path.stat()
                self._require_inside(path, os.path.realpath(path))
            elif str(path.parent) not in self._known:
                self._require_inside(path, os.path.realpath(path))
                self._known.add(str(path.parent))
        except (OSError, ValueError):  # of a zero byte in the path
            return None
        if not stat.S_ISREG(found.st_mode):
            kind = _KINDS.get(stat.S_IFMT(found.st_mode), "special file")
            raise DatasetError(f"{_printable(path)} is a {kind}, not a file. Remove it from the data")
        return found

    def read(self, path: Path) -> bytes:
        """Read a file of the data. Raises OSError if it cannot be read, and DatasetError as `stat` does."""
        self.stat(path)
        return path.read_bytes()

    def require_folder(self, path: Path) -> Path:
        """Return where a folder of the data really lies. Raises DatasetError if that is outside."""
        real = os.path.realpath(path)
        self._require_inside(path, real)
        return Path(real)

    def _require_inside(self, path: Path, real: str) -> None:
        if not any(Path(real).is_relative_to(root) for root in self._roots):
            raise DatasetError(
                f"{_printable(path)} leads out of the folder of its data, {_printable(self.path)}, to "
                f"{_printable(real)}. Copy it there, or allow links to its folder with {LINKS}"
            )


def _blobs_of(folder: Path) -> list[Path]:
    """Return the folder of blobs to which the files of a snapshot in the hub's cache are links."""
    snapshots = [parent for parent in (folder, *folder.parents) if parent.parent.name == "snapshots"]
    return [parent.parent.parent / "blobs" for parent in snapshots]


def _printable(path: str | os.PathLike[str]) -> str:
    return os.fsencode(path).decode("utf-8", "replace")
