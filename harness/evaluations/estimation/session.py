"""Estimates a model's accuracy on a new, unlabelled set of images, with all estimators that apply."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from harness.base.cache import Cache, default_root
from harness.base.errors import DatasetError, HarnessError, InputError, describe
from harness.base.strangers import RAISED
from harness.contract.registry import Registry, names_where
from harness.data.opening import calibration_sets, open_dataset, open_id
from harness.data.sets import calibration_entries
from harness.data.streams import Stream
from harness.engine.clock import Clock
from harness.engine.guard import Failure
from harness.engine.loading import Loader
from harness.engine.plan import PlannedModel
from harness.engine.suite import load_id
from harness.engine.workbench import Workbench
from harness.evaluations import measures
from harness.evaluations.estimation import choice
from harness.evaluations.estimation.curve import Point
from harness.evaluations.estimation.given import labelled, own_validation
from harness.evaluations.estimation.guesses import Guess, Guesses
from harness.evaluations.estimation.kept import KeptCurves
from harness.evaluations.estimation.measure import FITTED_WITH, VALIDATION, asked
from harness.evaluations.estimation.pace import Pace
from harness.evaluations.estimation.section import EstimationTable
from harness.models.loaded import resolve_device
from harness.models.training.recipe import load_recipe

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from harness.contract.features import Estimate, FeatureSet
    from harness.contract.protocols import Estimator
    from harness.contract.selection import Selection
    from harness.contract.specs import Model
    from harness.data.id_data import IdData
    from harness.data.sets import SetEntry
    from harness.engine.plan import Planned
    from harness.evaluations.estimation.curve import Curve
    from harness.evaluations.estimation.options import EstimateOptions
    from harness.models.loaded import LoadedModel

logger = logging.getLogger("ood_harness")

BATCH_SIZE = 256
UNSEEN = "nothing"


def estimate(
    model: str | None,
    data: str,
    options: EstimateOptions,
    *,
    plugins: Sequence[Path] = (),
    finished: Callable[[Sequence[Guess], float], None] | None = None,
) -> Guesses:
    """Estimate a model's accuracy on a dataset or folder without labels.

    Without a model, it is the one that the first estimator was fitted on that names one. Estimators run from the
    cheapest to the dearest; `finished` is called with the rows of each, and the seconds that the others may take.

    A curve turns an estimator's score into an accuracy: a kept curve of this model, or one that is fitted now on
    labelled ID data under the shifts that are set aside for calibration, and kept.

    Raises HarnessError for an unknown model, dataset or estimator, an image that cannot be read, a kept curve of
    another model, and a named estimator that does not apply.
    """
    registry = Registry.load(plugins)
    name = model or choice.default_model(registry)
    return _Session(name, data, options, registry, is_default=model is None).guesses(finished)


@dataclass(eq=False)
class _Session:
    model: str
    data: str
    options: EstimateOptions
    registry: Registry
    is_default: bool = False  # whether the model is the one that is taken if none is named
    _pace: Pace = field(init=False)
    _calibrated: dict[int, list[tuple[str, Selection, float]]] = field(default_factory=dict)  # by size

    def guesses(self, finished: Callable[[Sequence[Guess], float], None] | None = None) -> Guesses:
        """Run every estimator that is named, or that suits the model and applies."""
        # This checks them before anything is opened.
        asked = choice.planned(self.options.estimators, self.registry, self.options.isolation)
        target = self._target
        self._check(asked)
        applicable = [one for one in asked if self._applies(one)]
        if not applicable:
            raise InputError("no estimator applies. Give labelled ID data with --calibration")
        self._features(target)  # an image that cannot be read ends the session at once
        rows: list[Guess] = []
        sets = [1 + (len(self._shifts) + 1) * self._wants_curve(one) for one in applicable]
        with self._loader.cache.in_use(), Pace(applicable, sets, self.options.progress) as self._pace:
            for one in applicable:
                found = self._rows(one, target)
                self._pace.finish(one)
                rows += found
                if finished is not None:
                    finished(found, self._pace.seconds_left)
        return Guesses(self.model, self.data, len(target), list(target.skipped), rows)

    def _check(self, asked: Sequence[Planned]) -> None:
        """Raise HarnessError for options that cannot be met, before the model is loaded."""
        curves, known = self.options.curves, self._id_data
        if curves is not None and curves.exists() and not curves.is_dir():
            raise InputError(f"--curves {str(curves)!r} is a file. Name a folder")
        if self._given_calibration is not None or (known is not None and known.is_labelled):
            return
        for planned in asked if self.options.estimators else ():
            if VALIDATION in planned.needs:
                raise InputError(
                    f"the estimator {planned.label!r} needs validation data, and none are known. Give labelled ID data "
                    "with --calibration"
                )

    @cached_property
    def _given_calibration(self) -> Selection | None:
        """The labelled ID data of --calibration."""
        if self.options.calibration is None:
            return None
        found = self._open(self.options.calibration, self.options.calibration_split)
        if found.labels.min() < 0:
            raise DatasetError(
                f"the calibration data {self.options.calibration!r} have images without a label. Give labelled ID data"
            )
        return found

    # Model and data ---------------------------------------------------------------------------------------------

    @cached_property
    def _loader(self) -> Loader:
        cache, device = Cache(self.options.cache or default_root()), resolve_device(self.options.device)
        return Loader(self.registry, cache, device, self.options.progress)

    @cached_property
    def _id_data(self) -> IdData | None:
        """The model's ID data, if they are known: from a suite, or from the recipe."""
        if self.options.suite is not None:
            entry, file = (
                load_id(self.options.suite, self.registry),
                self.registry.path("suite", self.options.suite),
            )
            return open_id(entry, self.registry, folder=file.parent)
        family, _, name = self._model_name.partition(":")
        if self.registry.get("model", family).spec.takes != "recipe":
            return None
        recipe = load_recipe(name, self.registry)
        if recipe.data is None:
            raise InputError(
                f"the recipe {recipe.name!r} has no [data] of its own. Name a suite with --suite"
            )
        return open_id(recipe.data, self.registry, folder=recipe.folder)

    @cached_property
    def _model_name(self) -> str:
        """The model as a suite names it: FAMILY:NAME; by default a folder, if it is one, else a recipe."""
        if self.model.partition(":")[0] in self.registry.names("model"):
            return self.model
        takes = "folder" if Path(self.model).is_dir() else "recipe"
        if takes == "recipe":
            try:
                self.registry.path("recipe", self.model)
            except HarnessError as error:
                raise type(error)(f"there is no folder {self.model!r}, and {error}") from None
        fitting = names_where(self.registry, "model", lambda spec: spec.takes == takes)
        return f"{fitting[0]}:{self.model}" if fitting else self.model

    @cached_property
    def _bench(self) -> Workbench:
        name, progress = self._model_name, self.options.progress
        planned = PlannedModel(self.model, self.registry.get("model", name), name, self.options.seed, {})
        loaded = self._load(planned)
        if not loaded.model.num_classes:
            raise InputError(
                f"the model {self.model!r} is an encoder, which has no accuracy. Name a classifier"
            )
        validation = self._validation(loaded.model)
        parts = {} if validation is None else {VALIDATION: validation}
        counts, clock, cache = self._loader.counts, Clock(loaded.device), self._loader.cache
        return Workbench(
            self.model, loaded, parts, BATCH_SIZE, cache, counts, clock,
            progress=progress, isolation=self.options.isolation,
        )  # fmt: skip

    def _load(self, planned: PlannedModel) -> LoadedModel:
        """Load the model. Raises InputError that says how to name another, if this one was not named."""
        try:
            return self._loader.load(planned, self._id_data)
        except HarnessError as error:
            if not self.is_default:
                raise
            raise InputError(
                f"the default model {self.model!r} is not at hand ({error}). Name a model with --model"
            ) from None

    @cached_property
    def _target(self) -> Selection:
        return self._readable(self._open(self.data, self.options.split).limited(self.options.size))

    def _validation(self, model: Model) -> Selection | None:
        """Open labelled ID data to fit estimators on; if none are given, the model's validation or test part."""
        found = self._given_calibration
        if found is None:
            return own_validation(self._id_data, model, name=self.model)
        return labelled(found, self._id_data, model)

    def _open(self, name: str, split: str | None) -> Selection:
        """Open a dataset by the name that a plugin gave it, or a folder."""
        return open_dataset(name, name, self.registry, split=split)

    def _readable(self, selection: Selection) -> Selection:
        """Leave out the images that cannot be read, if they are skipped."""
        if not self.options.skip_unreadable:
            return selection
        kept = selection.readable()
        if not len(kept):
            raise DatasetError(
                f"none of the {len(selection)} images of {self.data!r} can be read: {kept.skipped[0]}"
            )
        return kept

    def _applies(self, planned: Planned) -> bool:
        missing = self._bench.missing(frozenset({"logits", *planned.needs}))
        if not self.options.estimators:
            return not missing and choice.suits(planned, self._bench.loaded.model.num_classes)
        if missing:
            fix = ". Give labelled ID data with --calibration" if VALIDATION in missing else ""
            raise InputError(
                f"the estimator {planned.label!r} needs {', '.join(missing)}, which model and data do not offer{fix}"
            )
        return True

    # Estimates --------------------------------------------------------------------------------------------------

    def _rows(self, planned: Planned, target: Selection) -> list[Guess]:
        """Return the accuracy by the estimator itself, and by its curve, as far as there are any."""
        seen = "clean ID" if VALIDATION in planned.needs else UNSEEN
        try:
            fitted = self._fitted(planned)
            found = self._estimate(planned, fitted, target)
        except RAISED as error:
            return [Guess(planned.label, seen, error=describe(error))]
        rows = []
        if found.accuracy is not None:
            said = found.accuracy, found.lo, found.hi
            rows.append(Guess(planned.label, seen, *said, definition=found.definition))
        if self._wants_curve(planned):
            label = f"{planned.label}-fitted" if rows else planned.label
            rows += self._by_curve(label, planned, fitted, found, len(target))
        if not rows:
            fix = "a curve needs labelled ID data. Give some with --calibration"
            rows.append(
                Guess(planned.label, seen, error=f"gives a score of {found.score:.4g} and no accuracy: {fix}")
            )
        return rows

    def _by_curve(
        self, label: str, planned: Planned, fitted: Estimator, found: Estimate, size: int
    ) -> list[Guess]:
        """Return the accuracy by a curve, or the reason why none can be fitted; nothing if no data are labelled."""
        try:
            curve = self._curve(planned, fitted, size)
        except _RefusedError as refused:
            raise InputError(str(refused)) from None
        except RAISED as error:  # on one of the sets that the curve needs
            return [Guess(label, "shifted ID", error=describe(error))]
        if curve is None:
            return []
        accuracy, interval = curve.accuracy(found.score), curve.interval(found.lo, found.hi)
        beyond = curve.extrapolates(found.score)
        return [Guess(label, "shifted ID", accuracy, *interval, beyond, found.definition)]

    def _fitted(self, planned: Planned) -> Estimator:
        fitted: Estimator | Failure = self._bench.fitted(planned, also=FITTED_WITH)
        if isinstance(fitted, Failure):
            raise InputError(fitted.message)
        return fitted

    def _estimate(self, planned: Planned, fitted: Estimator, selection: Selection) -> Estimate:
        stream = Stream.of(selection, batch_size=BATCH_SIZE)
        found = asked(self._bench, planned, fitted, stream, selection.name)
        self._pace.step(planned)
        return found

    def _features(self, selection: Selection) -> FeatureSet:
        return self._bench.features(selection.name, Stream.of(selection, batch_size=BATCH_SIZE))

    # Curves -----------------------------------------------------------------------------------------------------

    def _wants_curve(self, planned: Planned) -> bool:
        """Return whether a curve is due: not for an estimator that takes long, unless it is named."""
        return bool(self.options.estimators) or not choice.is_long(planned)

    @cached_property
    def _kept(self) -> KeptCurves:
        return KeptCurves(self._bench.loaded, self.options.curves, self._loader.cache.root)

    def _curve(self, planned: Planned, fitted: Estimator, size: int) -> Curve | None:
        """Return the kept curve of this model and estimator, or a new one. Raises _RefusedError for that of another."""
        try:
            kept = self._kept.find(planned, size)
        except InputError as error:
            raise _RefusedError(str(error)) from None
        return kept or self._new_curve(planned, fitted, size)

    def _new_curve(self, planned: Planned, fitted: Estimator, size: int) -> Curve | None:
        """Fit a curve on labelled ID data, and keep it; None without such data, or if all scores are the same."""
        if VALIDATION not in self._bench.parts:
            return None
        points = [
            Point(kind, self._estimate(planned, fitted, chosen).score, accuracy)
            for kind, chosen, accuracy in self._calibration(size)
        ]
        try:
            return self._kept.new(planned, size, points)
        except InputError as error:
            logger.warning("%s: %s", planned.label, error)
            return None

    def _calibration(self, size: int) -> list[tuple[str, Selection, float]]:
        """List the calibration sets: the kind of shift, the labelled set, and the model's accuracy on it."""
        if size not in self._calibrated:
            sets = calibration_sets(self._bench.parts[VALIDATION].limited(size), self._shifts, self.registry)
            self._calibrated[size] = [(kind, chosen, self._accuracy(chosen)) for kind, chosen in sets]
        return self._calibrated[size]

    @cached_property
    def _shifts(self) -> list[SetEntry]:
        """The shifts that are set aside for curves; none without labelled data to shift."""
        if VALIDATION not in self._bench.parts:
            return []
        return calibration_entries(None, EstimationTable().severity, self.registry)

    def _accuracy(self, selection: Selection) -> float:
        value = measures.model_accuracy(self._features(selection), among=selection.competing)["value"]
        assert value is not None
        return value


class _RefusedError(Exception):
    """A kept curve of another model or estimator, which ends the session."""
