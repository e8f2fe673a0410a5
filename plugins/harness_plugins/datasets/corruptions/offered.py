"""Offers the corruptions as a family of datasets, `corrupt:TYPE`, over a suite's ID test samples."""

from __future__ import annotations

from typing import TYPE_CHECKING

import harness
from harness_plugins.datasets.corruptions.dataset import CORRUPTIONS, CorruptedDataset

if TYPE_CHECKING:
    from collections.abc import Iterator


def open_corrupted(request: harness.DatasetRequest, *, severity: int = 3, seed: int = 0) -> CorruptedDataset:
    """Corrupt the ID test samples by the type after the colon, at `severity` 1 (mild) to 5; `seed` draws the noise."""
    if request.argument not in CORRUPTIONS:
        raise harness.unknown_name("corruption", request.argument, CORRUPTIONS, valid_label="Valid")
    if type(severity) is not int or severity not in range(1, 6):
        raise harness.InputError(
            f"severity = {severity!r} of {request.name!r} is not valid. Give 1, 2, 3, 4 or 5"
        )
    if request.base is None:
        raise harness.DatasetError(
            f"{request.name!r} changes the ID test samples, but none were given. Use it in a suite's [[shift]]"
        )
    return CorruptedDataset(request.base, request.argument, severity=severity, seed=seed)


@harness.hookimpl
def harness_datasets() -> Iterator[harness.DatasetSpec]:
    """Offer the corruptions."""
    yield harness.DatasetSpec(
        "corrupt",
        open_corrupted,
        cite="Hendrycks & Dietterich, ICLR 2019, arXiv 1903.12261",
        argument=" | ".join(CORRUPTIONS),
        shifts=True,
        calibration=tuple(name for name, corruption in CORRUPTIONS.items() if corruption.is_extra),
    )
