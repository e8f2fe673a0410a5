"""What a reader must know before believing a board: of its data, and of how its models' classes were matched."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from harness.base.errors import shortened
from harness.reports.record import ID, MODEL, SEEN, UNSTABLE, Record
from harness.reports.remarks import Remark
from harness.reports.wording import percent

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

NEAR_CHANCE = 0.1  # of the way from chance to 1: an accuracy below it counts as near chance
LOOKS_RENAMED = 0.1  # the gain in accuracy from which the outputs count as being in another order
_BY_NUMBER = "number"
_DATA = "data"  # the subject of a caution of the data


def cautions(records: Sequence[Record], manifests: Iterable[Mapping[str, Any]]) -> list[Remark]:
    """List cautions of the data and of the models of several runs, each once."""
    found: list[Remark] = []
    for manifest in manifests:
        found += [*_of_data(manifest), *_of_models(records, manifest.get("models", {}))]
    return list(dict.fromkeys([*found, *_of_seen(records), *_of_unstable(records)]))


def _of_data(manifest: Mapping[str, Any]) -> Iterator[Remark]:
    if protocol := manifest.get("protocol"):
        yield Remark(_DATA, protocol)
    for pair, count in manifest.get("overlaps", {}).items():
        if count:
            yield Remark(_DATA, f"{pair} share {count} images, by content")
    if uncompared := manifest.get("overlaps_unchecked"):
        yield Remark(_DATA, f"too many images to compare with ID's: {shortened(uncompared)}")
    for name, facts in manifest.get("data_facts", {}).items():
        if unreadable := facts.get("unreadable"):
            text = f"{name}: {len(unreadable)} images cannot be read and are left out, first: {unreadable[0]}"
            yield Remark(_DATA, text)


def _of_models(records: Iterable[Record], models: Mapping[str, Any]) -> Iterator[Remark]:
    for record in records:
        if record.kind == MODEL and not record.error:
            classes = models.get(f"{record.model} (seed {record.seed})", {}).get("classes", {})
            yield from _of_classes(record, is_by_number=classes.get("matched") == _BY_NUMBER)
            yield from _of_outputs(record, classes)


def _of_outputs(record: Record, classes: Mapping[str, Any]) -> Iterator[Remark]:
    """Say over how many outputs the accuracy is, if the model has more than the data have classes."""
    outputs, all_outputs = record.extra.get("outputs", 0), classes.get("model", 0)
    if outputs < all_outputs:
        yield Remark(record.model, f"accuracy on {record.on} is over the {outputs} classes that occur there")
    elif all_outputs > classes.get("data", 0):
        yield Remark(record.model, f"accuracy on {record.on} is over all {all_outputs} outputs")


def _of_classes(record: Record, *, is_by_number: bool) -> Iterator[Remark]:
    """Yield a caution if the labels are likely not the classes of the outputs."""
    accuracy, outputs = record.metrics["accuracy"], record.extra.get("outputs", 0)
    value, low = accuracy["value"], accuracy["lo"]
    if value is None or low is None or outputs < 2:
        return
    where = f"accuracy on {record.on} {percent(value)} %"
    renamed = record.extra.get("renamed_accuracy", 0.0)
    if renamed > value + LOOKS_RENAMED:
        yield Remark(
            record.model,
            f"{where}: with its outputs in another order it would be {percent(renamed)} %, so the order of the "
            "classes is likely wrong. Name the classes in data and model, or give class_map",
        )
    elif record.on == ID and is_by_number and _is_near_chance(value, low, 1 / outputs):
        yield Remark(
            record.model,
            f"{where}: near chance, which is {percent(1 / outputs)} % for {outputs} classes, and classes are matched "
            "by number. Check their order, and the preprocessing",
        )


def _is_near_chance(value: float, low: float, chance: float) -> bool:
    return low <= chance or (value - chance) / (1 - chance) < NEAR_CHANCE


def _of_seen(records: Iterable[Record]) -> Iterator[Remark]:
    by_model: dict[str, dict[str, None]] = {}
    for record in records:
        if SEEN in record.flags:
            method = record.scorer or record.estimator or record.kind
            by_model.setdefault(record.model, {})[method] = None
    for model, methods in by_model.items():
        yield Remark(
            model,
            f"{', '.join(methods)}: calibrated on images held out of train, which this model was trained on "
            'for all that is known, so flattered. Hold validation out of test: validation = { of = "test", ... }',
        )


def _of_unstable(records: Iterable[Record]) -> Iterator[Remark]:
    for record in records:
        if UNSTABLE in record.flags and record.scorer:
            yield Remark(
                record.model,
                f"{record.scorer}: unstable. Which of ID and OOD it puts higher turns with its parameters, so an AUROC "
                "at one setting is no result",
            )
