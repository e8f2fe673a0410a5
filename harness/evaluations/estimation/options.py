"""What `ood-harness estimate` is asked for."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from harness.base.toml import parse
from harness.engine.suite import LimitsTable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from harness.contract.isolated import Isolation


@dataclass(frozen=True)
class EstimateOptions:
    """How accuracy is estimated."""

    calibration: str | None = None  # labelled ID data outside training; None: the model's validation part
    suite: str | None = None  # its [id] are the model's ID data; None: the recipe's [data]
    estimators: Sequence[str] = ()  # NAME or NAME:KEY=VALUE,...; (): all that suit the model
    split: str | None = None  # of the data
    calibration_split: str | None = None
    size: int = 2000  # images of a set, at most
    seed: int = 0  # of the model's training
    skip_unreadable: bool = False
    curves: Path | None = None  # where curves are kept; None: the cache
    cache: Path | None = None
    device: str = "auto"
    limits: Mapping[str, object] = field(default_factory=dict)  # keys of a suite's [limits]
    progress: bool = False

    @property
    def isolation(self) -> Isolation:
        """Whose estimators run in worker processes. Raises InputError for limits that are none."""
        return parse(LimitsTable, self.limits, source="limits").isolation
