"""What can be known before anything is trained or loaded: every set is there, and every model can be built."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from harness.reports.record import ID

if TYPE_CHECKING:
    from harness.engine.loading import Loader
    from harness.engine.sets import OpenSets

logger = logging.getLogger("ood_harness")


def ready(sets: OpenSets, loader: Loader) -> dict[str, int]:
    """Open every set and check every model; return the counts of images that two sets share.

    Raises HarnessError for the first set that cannot be opened and for the first model that cannot be built.
    """
    found = sets.all()
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
