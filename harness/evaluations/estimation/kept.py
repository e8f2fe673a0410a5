"""Curves that are kept as JSON: in a folder that the user names, or in the cache."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.base import digests
from harness.evaluations.estimation.curve import Curve

if TYPE_CHECKING:
    from pathlib import Path

    from harness.engine.plan import Planned
    from harness.models.loaded import LoadedModel

_NOT_IN_NAMES = re.compile(r"[^\w.=,() +-]")  # characters that names of files do without


@dataclass(frozen=True)
class KeptCurves:
    """The curves of one model."""

    loaded: LoadedModel
    folder: Path | None  # that the user names
    cache: Path  # the cache's root

    def find(self, planned: Planned, size: int) -> Curve | None:
        """Load the curve of an estimator for sets of a size. Raises InputError for one of another model or setting."""
        key = self._key(planned, size)
        path = self._path(planned, key)
        return Curve.load(path, key) if path.exists() else None

    def new(self, planned: Planned, size: int, points: list[Any]) -> Curve:
        """Fit a curve and keep it. Raises InputError for points that have none."""
        key = self._key(planned, size)
        curve = Curve.of(points, key)
        path = self._path(planned, key)
        path.parent.mkdir(parents=True, exist_ok=True)
        curve.save(path)
        return curve

    def _path(self, planned: Planned, key: dict[str, Any]) -> Path:
        if self.folder is not None:
            return self.folder / f"{_NOT_IN_NAMES.sub('_', planned.label)}.json"
        return self.cache / "curves" / f"{planned.offered.spec.name}-{digests.digest(key)}.json"

    def _key(self, planned: Planned, size: int) -> dict[str, Any]:
        """Name everything that a curve depends on."""
        model = self.loaded.model
        params = {"params": dict(planned.params)} if planned.params else {}
        return {
            "model": self.loaded.digest,
            "preprocessing": json.loads(json.dumps(model.preprocessing.values)),
            "estimator": planned.offered.spec.name,
            **params,
            "code": planned.offered.source,
            "classes": model.num_classes,
            "size": size,
        }
