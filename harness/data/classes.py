"""Classes by name: the same class has the same number on both sides, or the names that differ are told.

Two folders, two columns or a dataset and a model may number the same classes in another order. Labels that are compared
by number then give a wrong accuracy without an error, so that names are compared wherever both sides have them.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from harness.base.errors import DatasetError, InputError, one_line, shortened
from harness.base.paths import beside

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from harness.contract.selection import Selection


@dataclass(frozen=True)
class DataClasses:
    """The classes of the data on which a model is evaluated."""

    count: int
    names: tuple[str, ...] | None = None  # by label, if they are known
    renumbered: bool = False  # whether the suite keeps some classes, so that labels are not the dataset's own


def numbers_of(
    names: Sequence[str], known: Sequence[str], synonyms: Sequence[str] | None = None
) -> NDArray[np.int64]:
    """Find each name among the known classes: its number there, or -1, (len(names),).

    A name is compared as it is written; then without regard to case, `_`, `-` and spaces; then with the synonyms, which
    hold other names of each known class, separated by commas. A name that fits two classes fits none.
    """
    found = np.full(len(names), -1, dtype=np.int64)
    steps: list[tuple[Callable[[str], str], Iterable[tuple[str, int]]]] = [
        (str, ((name, number) for number, name in enumerate(known))),
        (_plain, ((_plain(name), number) for number, name in enumerate(known))),
        (_plain, ((_plain(n), number) for number, of in enumerate(synonyms or ()) for n in of.split(","))),
    ]
    for spelt, pairs in steps:
        numbers = _unambiguous(pairs)
        for place in np.flatnonzero(found < 0).tolist():
            found[place] = numbers.get(spelt(names[place]), -1)
    return found


def numbered_as(
    selection: Selection,
    names: Sequence[str],
    *,
    what: str,
    whose: str,
    fix: str = "Give both the same classes",
    synonyms: Sequence[str] | None = None,
) -> Selection:
    """Renumber the classes of a selection as they are numbered in `names`, which are `whose`.

    A selection without names keeps its labels. Raises DatasetError, with the names, if a class that occurs is unknown
    there, or with the numbers if a label without a name is too large.
    """
    own, known = selection.class_names, tuple(names)
    if own is None:
        if selection.labels.max() >= len(known):
            raise DatasetError(
                f"{what} has labels up to {selection.labels.max()}, but {whose} has the {len(known)} classes "
                f"{shortened(known)}. {fix}"
            )
        return replace(selection, class_names=known)
    if own == known:
        return selection
    numbers = numbers_of(own, known, synonyms)
    occurring = np.unique(selection.labels[selection.labels >= 0])
    unknown = [own[number] for number in occurring if numbers[number] < 0]
    if unknown:
        raise DatasetError(
            f"{what} has classes that {whose} lacks: {shortened(unknown)}. {whose} has {shortened(known)}. {fix}"
        )
    require_distinct(own, numbers, known, what=what)
    return selection.renumbered(numbers, known)


def require_distinct(
    names: Sequence[str], numbers: NDArray[np.int64], known: Sequence[str], *, what: str
) -> None:
    """Raise DatasetError if two names were found to be one class."""
    for number, count in Counter(numbers[numbers >= 0].tolist()).items():
        if count > 1:
            alike = [name for name, found in zip(names, numbers, strict=True) if found == number]
            raise DatasetError(
                f"{what} has two names for the class {known[number]!r}: {shortened(alike)}. Keep one"
            )


def read_class_map(name: str, folder: Path | None) -> dict[str, str]:
    """Read a class_map: for each class of the data, by name or number, the model's, by name or number.

    Each line holds both, separated by a tab or, if there is none, by the last comma. The file is looked for beside the
    suite's file, then in the working folder. Raises InputError for a file that cannot be read or is not of this form.
    """
    path = beside(folder, name)
    if not path.is_file():
        raise InputError(f"class_map: there is no file {name!r}. Give its path from the suite's folder")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"class_map: cannot read {path}: {one_line(error)}. Give a text file in UTF-8"
        ) from None
    found: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        own_class, _, other = line.partition("\t") if "\t" in line else line.rpartition(",")
        if not own_class.strip() or not other.strip():
            raise InputError(
                f"class_map: line {number} of {path.name} is {line!r}. Write the data's class, a tab or comma, and "
                "the model's class or output number"
            )
        if own_class.strip() in found:
            raise InputError(f"class_map: {path.name} has two lines for {own_class.strip()!r}. Keep one")
        found[own_class.strip()] = other.strip()
    return found


def _plain(name: str) -> str:
    return " ".join(name.replace("_", " ").replace("-", " ").casefold().split())


def _unambiguous(pairs: Iterable[tuple[str, int]]) -> dict[str, int]:
    numbers: dict[str, set[int]] = {}
    for name, number in pairs:
        numbers.setdefault(name, set()).add(number)
    return {name: found.pop() for name, found in numbers.items() if len(found) == 1}
