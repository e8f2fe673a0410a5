"""Opens a suite's datasets: the ID parts, with one numbering of classes, and every set to score against ID test."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from harness.base.errors import DatasetError, HarnessError, describe
from harness.base.strangers import RAISED, undisturbed
from harness.contract.parameters import offer_taking
from harness.contract.selection import Selection
from harness.contract.specs import DatasetRequest, TrainingData
from harness.data.classes import numbered_as
from harness.data.id_data import IdData
from harness.data.naming import data_root, explained, full_name
from harness.data.sets import CLEAN, CSID, SetEntry

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from harness.contract.protocols import Catalogue
    from harness.data.tables import IdEntry, Part

SKIP = "skip"  # images that cannot be read are left out


def calibration_sets(
    validation: Selection, entries: Sequence[SetEntry], registry: Catalogue
) -> list[tuple[str, Selection]]:
    """Open ID validation, clean and under each shift; return pairs (kind of shift, set)."""
    shifted = [(entry.kind, open_shifted(entry, validation, registry)) for entry in entries]
    return [(CLEAN, validation), *shifted]


def open_id(entry: IdEntry, registry: Catalogue, *, folder: Path | None = None) -> IdData:
    """Open the ID parts, number their classes alike, and hold validation out if the suite requires it.

    Classes with names are matched by name: the numbers are those of train, or of test if there is no train.

    Args:
        entry: the suite's [id].
        registry: the installed plugins.
        folder: the folder of the suite's file, in which paths are searched first.

    Raises DatasetError for data that is missing or empty, that is labelled in part only, or that has one class only.

    """
    parts = {"test": entry.test, "train": entry.train, "validation": entry.validation}
    whole = {
        name: _open_part(name, entry, part, registry, folder)
        for name, part in parts.items()
        if part is not None and part.holdout is None
    }
    whole = _numbered_alike(entry, whole)
    limited = {name: _limited(name, entry, parts[name], selection) for name, selection in whole.items()}
    limited |= _held_out(entry, limited)
    first = whole.get("train", whole["test"])
    return IdData(
        test=limited["test"],
        train=limited.get("train"),
        validation=limited.get("validation"),
        num_classes=_num_classes(entry, whole),
        class_names=first.class_names,
        classes_are_chosen=entry.classes is not None,
        holds_out_of_train=_is_held_out_of(entry, "train"),
    )


def training_data(id_data: IdData, dataset: str) -> TrainingData:
    """Return the ID parts that a model may be trained on: train and validation, never test.

    Raises DatasetError if there is no train part with labels, or if two parts share images.
    """
    data = id_data.training
    if data is None:
        lacks = "labels" if id_data.train is not None else "train part"
        fix = "Give labelled data" if id_data.train is not None else "Add train = { split = ... }"
        raise DatasetError(f"the ID dataset {dataset!r} has no {lacks}. {fix}")
    id_data.check_disjoint()
    return data


def open_dataset(
    name: str,
    dataset: str,
    registry: Catalogue,
    *,
    folder: Path | None = None,
    split: str | None = None,
    classes: Sequence[int | str] | None = None,
    limit: int | None = None,
    revision: str | None = None,
    params: Mapping[str, object] | None = None,
) -> Selection:
    """Open a dataset by its name in a plugin, or a folder by its path; messages call it `name`.

    Relative paths start in `folder`, else in the working folder.

    Raises DatasetError for data that is missing or empty.
    """
    selection = _open(name, dataset, params or {}, registry, folder=folder, split=split, revision=revision)
    selection = selection.with_classes(classes).limited(limit)
    _require_samples(name, dataset, selection)
    return selection


def open_set(
    entry: SetEntry, id_data: IdData, registry: Catalogue, *, folder: Path | None = None
) -> Selection:
    """Open one test set. The classes of shifted ID are matched to ID's by name, if both have names.

    Raises DatasetError for data that is missing or empty, and for shifted data without ID's classes.
    """
    selection = _open(
        entry.name,
        entry.dataset,
        entry.params,
        registry,
        folder=folder,
        split=entry.split,
        revision=entry.revision,
        base=id_data.test if entry.shifts_id else None,
        labelled=entry.group == CSID or entry.classes is not None,
    )
    selection = selection.with_classes(entry.classes)
    if entry.shifts_id:
        selection = replace(selection, labels=id_data.test.labels, class_names=id_data.class_names)
    elif entry.group == CSID and id_data.is_labelled:
        selection = _numbered_as_id(entry, selection, id_data)
    restrict = id_data.test.restrict if entry.shifts_id else entry.restrict
    selection = replace(_readable(selection, entry.unreadable, entry.limit), restrict=restrict)
    _require_samples(entry.name, entry.dataset, selection)
    return selection


def open_shifted(entry: SetEntry, base: Selection, registry: Catalogue) -> Selection:
    """Apply the shift of a set that is made from ID test to other images, which keep their order and labels."""
    shifted = _open(entry.name, entry.dataset, entry.params, registry, base=base)
    return replace(base, name=entry.name, dataset=shifted.dataset, indices=shifted.indices)


def _open_part(
    part: str, entry: IdEntry, chosen: Part, registry: Catalogue, folder: Path | None
) -> Selection:
    selection = _open(
        f"id.{part}",
        chosen.dataset or entry.dataset,
        chosen.params if chosen.dataset else entry.params,
        registry,
        folder=folder,
        split=chosen.split,
        revision=None if chosen.dataset else entry.revision,
    )
    selection = selection.with_classes(entry.classes)
    unlabelled = int((selection.labels < 0).sum())
    if 0 < unlabelled < len(selection):
        raise DatasetError(
            f"id.{part} of the ID dataset {entry.dataset!r} has {unlabelled} of {len(selection)} samples without a "
            "label. Label all of them, or none"
        )
    return replace(selection, name=f"id-{part}", restrict=entry.restrict)


def _numbered_alike(entry: IdEntry, parts: Mapping[str, Selection]) -> dict[str, Selection]:
    """Give the classes of all parts the numbers of train, or those of test if train has no names."""
    without = [name for name, part in parts.items() if part.labels.max() < 0]
    if without and len(without) < len(parts):
        raise DatasetError(
            f"the ID dataset {entry.dataset!r} has no labels in {' and '.join(without)}, but in the other parts. "
            "Label all parts, or none"
        )
    order = [name for name in ("train", "test", "validation") if name in parts]
    named = [name for name in order if parts[name].class_names is not None]
    if without or not named:
        return dict(parts)
    names = parts[named[0]].class_names or ()
    return {
        name: numbered_as(part, names, what=f"id.{name}", whose=f"id.{named[0]}")
        for name, part in parts.items()
    }


def _num_classes(entry: IdEntry, parts: Mapping[str, Selection]) -> int:
    found = max(selection.num_classes for selection in parts.values())
    if found == 1:
        raise DatasetError(
            f"the ID dataset {entry.dataset!r} has one class only. A classifier needs two or more"
        )
    return found


def _limited(name: str, entry: IdEntry, chosen: Part | None, selection: Selection) -> Selection:
    limited = selection if chosen is None else selection.limited(chosen.limit, seed=chosen.seed)
    limited = _readable(limited, entry.unreadable, None)
    _require_samples(f"id.{name}", entry.dataset, limited)
    return limited


def _is_held_out_of(entry: IdEntry, part: str) -> bool:
    chosen = entry.validation
    return chosen is not None and chosen.holdout is not None and chosen.of == part


def _held_out(entry: IdEntry, parts: Mapping[str, Selection]) -> dict[str, Selection]:
    """Split validation off the part that it is held out of; {} if it is not held out."""
    chosen = entry.validation
    if chosen is None or chosen.holdout is None:
        return {}
    rest, held = parts[chosen.of].split(chosen.holdout, seed=chosen.seed)
    found = {"validation": held.limited(chosen.limit, seed=chosen.seed), chosen.of: rest}
    for part, selection in found.items():
        _require_samples(f"id.{part}", entry.dataset, selection)
    return {"validation": replace(found["validation"], name="id-validation"), chosen.of: rest}


def _numbered_as_id(entry: SetEntry, selection: Selection, id_data: IdData) -> Selection:
    what = f"the shifted set {entry.name!r}"
    fix = "Give it ID's classes, keep those with classes, or list it under [[ood]]"
    least, most = selection.labels.min(), selection.labels.max()
    if least < 0:
        raise DatasetError(f"{what} has samples without a label. {fix}")
    if id_data.class_names is not None:
        return numbered_as(selection, id_data.class_names, what=what, whose="ID", fix=fix)
    if most >= id_data.num_classes:
        raise DatasetError(
            f"{what} has labels from {least} to {most} where ID has 0 to {id_data.num_classes - 1}. {fix}"
        )
    return replace(selection, class_names=None)


def _open(
    name: str,
    dataset: str,
    params: Mapping[str, object],
    registry: Catalogue,
    *,
    folder: Path | None = None,
    split: str | None = None,
    revision: str | None = None,
    base: Selection | None = None,
    labelled: bool = True,
) -> Selection:
    request = DatasetRequest.parse(
        full_name(dataset, registry, folder),
        split=split,
        revision=revision,
        data_root=data_root(),
        folder=folder,
        base=base,
        labelled=labelled,
    )
    offered = offer_taking(registry, "dataset", request.name, params)
    try:
        with undisturbed():
            opened = offered.spec.build(request, **params)
        return Selection.all_of(name, opened)
    except HarnessError as error:
        raise explained(error, dataset, request.name) from error
    except RAISED as error:
        raise DatasetError(
            f"the dataset {request.name!r} of plugin {offered.plugin} raised {describe(error)}"
        ) from error


def _readable(selection: Selection, unreadable: str, limit: int | None) -> Selection:
    """Keep at most `limit` samples, without those that cannot be read, if these are to be skipped."""
    limited = selection.limited(limit)
    return limited.readable() if unreadable == SKIP else limited


def _require_samples(name: str, dataset: str, selection: Selection) -> None:
    if len(selection) == 0:
        skipped = f": none of its images can be read, {selection.skipped[0]}" if selection.skipped else ""
        raise DatasetError(
            f"{name} of dataset {dataset!r} is empty{skipped}. Check its split, classes and limit"
        )
