"""Labelled ID data to fit estimators on: those that a user gives for a model, or the model's own."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from harness.base.errors import DatasetError, shortened
from harness.data.classes import numbered_as

if TYPE_CHECKING:
    from harness.contract.selection import Selection
    from harness.contract.specs import Model
    from harness.data.id_data import IdData

logger = logging.getLogger("ood_harness")


def own_validation(known: IdData | None, model: Model, *, name: str) -> Selection | None:
    """Return the validation or test part of the model's ID data; test if the model has seen validation."""
    if known is None or not known.is_labelled:
        return None
    if not known.has_trained(model.trained_on):
        return known.validation or known.test
    logger.warning(
        "%s was trained on the suite's validation part for all that is known, so ID test is used in its place",
        name,
    )
    return known.test


def labelled(found: Selection, known: IdData | None, model: Model) -> Selection:
    """Give the classes of calibration data the numbers of the known ID data, or else of the model.

    Raises DatasetError for other classes than the model's.
    """
    what = "the calibration data"
    if known is not None and known.class_names is not None:
        return numbered_as(found, known.class_names, what=what, whose="the ID data")
    if model.class_names is not None:
        return numbered_as(
            found, model.class_names, what=what, whose="the model", synonyms=model.class_synonyms
        )
    if found.num_classes > model.num_classes or (
        found.class_names is not None and found.num_classes < model.num_classes
    ):
        names = f" ({shortened(found.class_names)})" if found.class_names is not None else ""
        raise DatasetError(
            f"{what} have {found.num_classes} classes{names}, the model has {model.num_classes} without names. "
            "Give labelled data of all its classes"
        )
    return found
