"""Runs that are disturbed and then started again, beside those that nothing disturbs."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from children import in_child
from every_kind import trained
from faults import FileOperations
from toys import TOY_SUITE, run_suite

SUITES: dict[str, Callable[[Path], dict[str, Any]]] = {
    "scores": lambda _folder: TOY_SUITE,
    "every kind": trained,
}
BLOCKS = range(12)  # into which operations are dealt out
LOCKS = {".lock", ".holder"}
OF_ONE_RUN = {"run.json", "timings.jsonl"}  # they tell of times, and differ from run to run


@dataclass(frozen=True)
class Subject:
    """A suite that is run in a folder of its own."""

    folder: Path
    suite: dict[str, Any]
    operations: int = 0  # on files, if nothing disturbs it
    seconds: float = 0

    @property
    def out(self) -> Path:
        return self.folder / "out"

    @property
    def cache(self) -> Path:
        return self.folder / "cache"

    def points(self, block: int) -> range:
        """Return the operations of one of so many blocks: all of a quick suite, one in eight of the other."""
        step = 1 if self.suite["models"] == TOY_SUITE["models"] else 8
        return range(1 + block * step, self.operations + 1, len(BLOCKS) * step)

    def again_in(self, folder: Path) -> Subject:
        """Return the same suite in another folder, which is made."""
        folder.mkdir()
        return replace(self, folder=folder)

    def copy_to(self, folder: Path) -> Subject:
        """Return the same suite in a copy of this folder."""
        shutil.copytree(self.folder, folder)
        return replace(self, folder=folder)

    def one_of_each(self) -> list[Path]:
        """List one file of each kind, relative to the folder: two names are of one kind if digests tell them apart."""
        files = sorted(path.relative_to(self.folder) for path in self.folder.rglob("*") if path.is_file())
        kinds = {
            re.sub("[0-9a-f]{16,}|[0-9]{5}", "*", str(path)): path for path in files if path.name not in LOCKS
        }
        return list(kinds.values())

    def run(self) -> int:
        """Run it, and return the number of failed cells."""
        return run_suite(self.suite, self.out, cache=self.cache).failed

    def exit_code(self) -> int:
        """Run it in a child, and return the exit code of the command line."""
        return 1 if self.run() else 0

    def numbers(self) -> dict[str, bytes]:
        """Read the files that must not depend on what disturbed the run."""
        files = [path for path in self.out.rglob("*") if path.is_file() and not path.name.startswith(".")]
        return {
            str(path.relative_to(self.out)): path.read_bytes()
            for path in files
            if path.name not in OF_ONE_RUN
        }

    def leftovers(self) -> list[str]:
        """List the temporary files in the run's folder."""
        hidden = [path.name for path in self.out.rglob(".*")]
        return sorted(set(hidden) - LOCKS)


def run_alone(folder: Path, suite: dict[str, Any]) -> Subject:
    """Run a suite, and count its operations on files and its seconds."""
    counted = Subject(folder / "counted", suite)
    counted.folder.mkdir(parents=True)
    with pytest.MonkeyPatch.context() as patched:
        operations = FileOperations(patched, counted.folder)
        counted.run()
    timed = in_child(counted.again_in(folder / "timed").exit_code)
    return replace(counted, operations=operations.count, seconds=timed.seconds)
