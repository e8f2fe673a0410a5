"""What can be known before anything is trained or loaded: every set is there, and every model can be built."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from harness.base.errors import InputError, shortened
from harness.contract.specs import DATA_NEEDS
from harness.reports.record import ID

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.engine.evaluation import Evaluation
    from harness.engine.loading import Loader
    from harness.engine.sets import OpenSets

logger = logging.getLogger("ood_harness")


def ready(sets: OpenSets, loader: Loader, kinds: Sequence[Evaluation[Any]]) -> dict[str, int]:
    """Open every set and check every model; return the counts of images that two sets share.

    Raises HarnessError for the first set that cannot be opened and for the first model that cannot be built.
    """
    found = sets.all()
    _require_something_to_measure(sets)
    for kind in kinds:
        kind.open(sets.plan, sets)
    for model in sets.plan.models:
        loader.check(model, sets.id_data)
    sets.facts()  # which must be fit to be written when the run ends
    overlaps = sets.overlaps()
    for pair, count in overlaps.items():
        if count and pair.split(" and ")[0] in found.keys() - {ID}:
            logger.warning("%s share %d images, by content", pair, count)
    for name, selection in found.items():
        if selection.skipped:
            logger.warning("%s: %d images cannot be read and are left out", name, len(selection.skipped))
    return overlaps


def _require_something_to_measure(sets: OpenSets) -> None:
    """Raise InputError if every method of the plan needs a part of ID, or labels, that the data lack."""
    offers = sets.id_data.offers
    lacking = {
        f"{worker.offered.spec.name} needs {' and '.join(missing)}"
        if (missing := sorted(worker.needs & DATA_NEEDS - offers))
        else ""
        for of_key in sets.plan.workers.values()
        for worker in of_key
    }
    if lacking and "" not in lacking:
        raise InputError(
            f"nothing of the suite can be measured: {shortened(sorted(lacking))}. Add to [id] what is missing, such as "
            'train = { split = "train" } or validation = { holdout = 0.1 }, or labelled data'
        )
