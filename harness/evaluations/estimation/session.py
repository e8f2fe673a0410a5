"""Estimates a model's accuracy on a new, unlabelled set of images, with all estimators that apply."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.base import digests
from harness.base.cache import Cache, default_root
from harness.base.errors import DatasetError, HarnessError, InputError
from harness.base.progress import progress_bar
from harness.contract.registry import Registry
from harness.contract.specs import FEATURE_FIELDS, ModelRequest
from harness.data.opening import calibration_sets, open_dataset, open_id
from harness.data.sets import calibration_entries
from harness.data.streams import Stream
from harness.engine.clock import Clock
from harness.engine.guard import Failure, describe
from harness.engine.plan import Planned
from harness.engine.suite import load_id
from harness.engine.workbench import Workbench
from harness.evaluations import measures as evaluation
from harness.evaluations.estimation.curve import Curve, Point
from harness.evaluations.estimation.guesses import Guess, Guesses
from harness.evaluations.estimation.measure import FITTED_WITH, VALIDATION
from harness.evaluations.estimation.section import EstimationTable
from harness.models.extract import Counts
from harness.models.loaded import LoadedModel, resolve_device
from harness.models.training.recipe import load_recipe
from harness.models.unlabelled import unlabelled

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.contract.features import Estimate, FeatureSet
    from harness.contract.protocols import Estimator
    from harness.contract.selection import Selection
    from harness.data.opening import IdData

logger = logging.getLogger("ood_harness")

BATCH_SIZE = 256
UNSEEN = "nothing"


@dataclass(frozen=True)
class EstimateOptions:
    """How accuracy is estimated."""

    calibration: str | None = (
        None  # labelled ID data that was not trained on; None: the model's validation part
    )
    suite: str | None = None  # whose [id] the model is of; None: the recipe's own data
    estimators: Sequence[str] = ()  # (): all that apply
    split: str | None = None  # of the data
    calibration_split: str | None = None
    size: int = 2000  # images that are looked at, at most
    seed: int = 0  # of the model's training
    skip_unreadable: bool = False
    curves: Path | None = None  # where curves are kept; None: the cache
    cache: Path | None = None
    device: str = "auto"
    progress: bool = False


def estimate(model: str, data: str, options: EstimateOptions, *, plugins: Sequence[Path] = ()) -> Guesses:
    """Estimate a model's accuracy on a dataset or folder without labels.

    Estimators that tell no accuracy by themselves are read by a curve: one that was kept for this very model, or one
    that is fitted now on labelled ID data under the shifts that are set aside for it, and kept.

    Raises:
        HarnessError: a model, dataset or estimator that is not there, an image that cannot be read, a kept curve of
            another model, and a name of an estimator that does not apply.

    """
    registry = Registry.load(plugins)
    return _Session(model, data, options, registry).guesses()


@dataclass(eq=False)
class _Session:
    model: str
    data: str
    options: EstimateOptions
    registry: Registry
    _calibrated: dict[int, list[tuple[str, Selection, float]]] = field(default_factory=dict)  # by size

    def guesses(self) -> Guesses:
        """Ask every estimator in turn."""
        skipped, target = self._target
        applicable = [planned for planned in self._estimators if self._applies(planned)]
        if not applicable:
            raise InputError("no estimator applies. Give labelled ID data with --calibration")
        self._features(target)  # an image that cannot be read is told at once, and not by every estimator
        rows: list[Guess] = []
        with self._bar:
            for planned in applicable:
                rows += self._rows(planned, target)
        return Guesses(self.model, self.data, len(target), skipped, rows)

    @cached_property
    def _bar(self) -> Any:
        """Counts the sets that estimators have looked at, those that curves are fitted on among them."""
        return progress_bar(total=None, description="estimate", unit="set", enabled=self.options.progress)

    # What is opened ---------------------------------------------------------------------------------------------

    @cached_property
    def _cache(self) -> Cache:
        return Cache(self.options.cache or default_root())

    @cached_property
    def _id_data(self) -> IdData | None:
        """The ID data that the model is of, where they are known: a suite's, or a recipe's own."""
        if self.options.suite is not None:
            return open_id(load_id(self.options.suite, self.registry), self.registry)
        family, _, name = self._model_name.partition(":")
        if self.registry.get("model", family).spec.takes != "recipe":
            return None
        recipe = load_recipe(name, self.registry)
        if recipe.data is None:
            raise InputError(
                f"the recipe {recipe.name!r} has no [data] of its own. Name a suite with --suite"
            )
        return open_id(recipe.data, self.registry)

    @cached_property
    def _model_name(self) -> str:
        """The model as a suite names it: FAMILY:NAME; by default a folder, if it is one, else a recipe."""
        families = self.registry.names("model")
        if self.model.partition(":")[0] in families:
            return self.model
        takes = "folder" if Path(self.model).is_dir() else "recipe"
        fitting = [name for name in families if self.registry.get("model", name).spec.takes == takes]
        return f"{fitting[0]}:{self.model}" if fitting else self.model

    @cached_property
    def _loaded(self) -> LoadedModel:
        name, device = self._model_name, resolve_device(self.options.device)
        offered = self.registry.get("model", name)
        request = ModelRequest(
            name=name,
            argument=name.partition(":")[2],
            seed=self.options.seed,
            data=self._id_data.training if self._id_data is not None else None,
            device=device,
            store=self._cache.models,
            progress=self.options.progress,
            catalogue=self.registry,
        )
        built = offered.spec.build(request)
        if not built.num_classes:
            raise InputError(
                f"the model {self.model!r} is an encoder, which has no accuracy. Name a classifier"
            )
        return LoadedModel(built, device, builder_source=offered.source)

    @cached_property
    def _target(self) -> tuple[list[str], Selection]:
        return self._readable(self._open(self.data, self.options.split).limited(self.options.size))

    @cached_property
    def _validation(self) -> Selection | None:
        """The labelled ID data to fit estimators on; if none are given, the model's validation or test part."""
        if self.options.calibration is not None:
            found = self._open(self.options.calibration, self.options.calibration_split)
        elif self._id_data is not None:
            found = self._id_data.validation or self._id_data.test
        else:
            return None
        classes = self._loaded.model.num_classes
        if not 0 <= found.labels.min() <= found.labels.max() < classes:
            raise DatasetError(
                f"the calibration data have labels from {found.labels.min()} to {found.labels.max()} where the model "
                f"has classes 0 to {classes - 1}. Give labelled ID data"
            )
        return found

    def _open(self, name: str, split: str | None) -> Selection:
        """Open a dataset by the name that a plugin gave it, or a folder by the plugin that opens folders."""
        families = self.registry.names("dataset")
        if name.partition(":")[0] not in families:
            folders = [f for f in families if self.registry.get("dataset", f).spec.opens_folders]
            name = f"{folders[0]}:{name}" if folders else name
        return open_dataset(name, name, self.registry, split=split)

    def _readable(self, selection: Selection) -> tuple[list[str], Selection]:
        """Leave out images that cannot be read, where they are to be skipped, and name them."""
        if not self.options.skip_unreadable:
            return [], selection
        broken: dict[int, str] = {}
        for position in range(len(selection)):
            try:
                selection.images([position])
            except HarnessError as error:
                broken[position] = str(error)
        kept = selection.take(np.array([p for p in range(len(selection)) if p not in broken], dtype=np.int64))
        if not len(kept):
            raise DatasetError(
                f"none of the {len(selection)} images of {self.data!r} can be read: {broken[0]}"
            )
        return list(broken.values()), kept

    @cached_property
    def _estimators(self) -> list[Planned]:
        names = self.options.estimators or self.registry.names("estimator")
        return [Planned(name, self.registry.get("estimator", name), {}) for name in names]

    def _applies(self, planned: Planned) -> bool:
        missing = self._bench.missing(frozenset({"logits", *planned.needs}))
        if missing and planned.label in self.options.estimators:
            fix = ". Give labelled ID data with --calibration" if VALIDATION in missing else ""
            raise InputError(
                f"the estimator {planned.label!r} needs {', '.join(missing)}, which is not there{fix}"
            )
        return not missing

    # Estimates --------------------------------------------------------------------------------------------------

    def _rows(self, planned: Planned, target: Selection) -> list[Guess]:
        """Say what an estimator says by itself, and what its curve does."""
        seen = "clean ID" if VALIDATION in planned.needs else UNSEEN
        try:
            fitted = self._fitted(planned)
            found = self._estimate(planned, fitted, target)
            curve = self._kept_curve(planned, len(target)) or self._new_curve(planned, fitted, len(target))
        except _RefusedError as refused:
            raise InputError(str(refused)) from None
        except Exception as error:  # a stranger's estimator may raise anything
            return [Guess(planned.label, seen, error=describe(error))]
        rows = []
        if found.accuracy is not None:
            rows.append(Guess(planned.label, seen, found.accuracy, found.lo, found.hi))
        if curve is not None:
            label = f"{planned.label}-fitted" if rows else planned.label
            interval = curve.interval(found.lo, found.hi)
            beyond = curve.extrapolates(found.score)
            rows.append(Guess(label, "shifted ID", curve.accuracy(found.score), *interval, beyond))
        if not rows:
            fix = "a curve wants labelled ID data. Give some with --calibration"
            rows.append(
                Guess(planned.label, seen, error=f"says a score of {found.score:.4g} and no accuracy: {fix}")
            )
        return rows

    def _fitted(self, planned: Planned) -> Estimator:
        fitted: Estimator | Failure = self._bench.fitted(planned, also=FITTED_WITH)
        if isinstance(fitted, Failure):
            raise InputError(fitted.message)
        return fitted

    def _estimate(self, planned: Planned, fitted: Estimator, selection: Selection) -> Estimate:
        fields = (planned.needs & FEATURE_FIELDS) - {"labels"} | {"ids"}
        features = self._features(selection).only(fields)
        stream = Stream.of(selection, batch_size=BATCH_SIZE)
        found = fitted.estimate(unlabelled(self._bench.decoder, stream, features, seed=0))
        self._bar.update()
        return found

    @cached_property
    def _bench(self) -> Workbench:
        return Workbench(
            self.model,
            self._loaded,
            {} if self._validation is None else {VALIDATION: self._validation},
            BATCH_SIZE,
            self._cache,
            Counts(),
            Clock(self._loaded.device),
            progress=self.options.progress,
        )

    def _features(self, selection: Selection) -> FeatureSet:
        return self._bench.features(selection.name, Stream.of(selection, batch_size=BATCH_SIZE))

    # Curves -----------------------------------------------------------------------------------------------------

    def _kept_curve(self, planned: Planned, size: int) -> Curve | None:
        """Load the curve that was kept for this model and estimator. Raises _RefusedError for another's."""
        key = self._key(planned, size)
        path = self._curve_path(planned, key)
        try:
            return Curve.load(path, key) if path.exists() else None
        except InputError as error:
            raise _RefusedError(str(error)) from None

    def _new_curve(self, planned: Planned, fitted: Estimator, size: int) -> Curve | None:
        """Fit a curve on labelled ID data, and keep it; None where there are none, or where it would be flat."""
        if self._validation is None:
            return None
        points = [
            Point(kind, self._estimate(planned, fitted, chosen).score, accuracy)
            for kind, chosen, accuracy in self._calibration(size)
        ]
        key = self._key(planned, size)
        try:
            curve = Curve.of(points, key)
        except InputError as error:
            logger.warning("%s: %s", planned.label, error)
            return None
        path = self._curve_path(planned, key)
        path.parent.mkdir(parents=True, exist_ok=True)
        curve.save(path)
        return curve

    def _curve_path(self, planned: Planned, key: dict[str, Any]) -> Path:
        if self.options.curves is not None:
            return self.options.curves / f"{planned.label}.json"
        return self._cache.root / "curves" / f"{planned.label}-{digests.digest(key)}.json"

    def _key(self, planned: Planned, size: int) -> dict[str, Any]:
        """Name what a curve stands for."""
        model = self._loaded.model
        return {
            "model": self._loaded.digest,
            "preprocessing": json.loads(json.dumps(asdict(model.preprocessing))),
            "estimator": planned.offered.spec.name,
            "code": planned.offered.source,
            "classes": model.num_classes,
            "size": size,
        }

    def _calibration(self, size: int) -> list[tuple[str, Selection, float]]:
        """List what a curve is fitted on: a kind of shift, a labelled set under it, and the accuracy there."""
        if size not in self._calibrated:
            assert self._validation is not None
            entries = calibration_entries(None, EstimationTable().severity, self.registry)
            sets = calibration_sets(self._validation.limited(size), entries, self.registry)
            self._calibrated[size] = [(kind, chosen, self._accuracy(chosen)) for kind, chosen in sets]
        return self._calibrated[size]

    def _accuracy(self, selection: Selection) -> float:
        value = evaluation.model_metrics(self._features(selection))["accuracy"]["value"]
        assert value is not None
        return value


class _RefusedError(Exception):
    """A curve that stands for something else, which ends the session."""
