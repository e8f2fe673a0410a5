"""Pictures of a finished run: of its scores, its curves, and its model's features, read again through the cache."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from harness.base.cache import Cache, default_root
from harness.base.errors import HarnessError, InputError, PluginError, RecordsError, unknown_name
from harness.contract.registry import Registry
from harness.engine.guard import Failure, attempt
from harness.engine.loading import Loader
from harness.engine.sets import OpenSets
from harness.evaluations.curves.picture import lines
from harness.evaluations.probes.picture import dots
from harness.evaluations.run import plan_suite
from harness.models.extract import Counts
from harness.models.loaded import resolve_device
from harness.reports.plots import drawing
from harness.reports.plots.curves import Choice, chosen_sets, histograms, one_of, rocs
from harness.reports.record import ID
from harness.reports.records import MANIFEST, read_manifest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from harness.contract.features import Features
    from harness.engine.plan import Plan, PlannedModel

    Array = NDArray[np.float64]

HIST, ROC, FEATURES, CURVES, PROBES = "hist", "roc", "features2d", "curves", "probes"
KINDS = (HIST, ROC, FEATURES, CURVES, PROBES)
METHODS = {"tsne": "t-SNE", "pca": "PCA"}
SAMPLES = 1000
_SAMPLING_SEED = 0
_FEWEST_SAMPLES = 3
_PERPLEXITY = 30.0  # t-SNE's usual number of neighbours

logger = logging.getLogger("ood_harness")
T = TypeVar("T")


@dataclass(frozen=True)
class FeatureOptions:
    """How features are gathered and laid out in the plane."""

    method: str | None = None  # None: the first of METHODS
    samples: int | None = None  # of each set, at most; None: SAMPLES
    cache: Path | None = None
    device: str = "auto"
    plugins: Sequence[Path] = ()
    progress: bool = False
    counts: Counts = field(default_factory=Counts)


def draw(
    kind: str,
    folder: Path,
    output: Path,
    choice: Choice,
    *,
    log: bool = False,
    options: FeatureOptions | None = None,
) -> str:
    """Draw one picture of a run into a file, and return its title.

    Raises UnknownNameError for an unknown kind, format, model, seed, scorer, set or method, InputError for an option of
    another kind of picture or a file that cannot be written, RecordsError for a folder without the picture's records.
    """
    options = options or FeatureOptions()
    _require_known(kind, choice, options, log=log)
    drawing.require_writable(output)
    if kind == FEATURES:
        picture: drawing.Picture = scatters(folder, choice, options)
    elif kind == CURVES:
        picture = lines(folder, choice)
    elif kind == PROBES:
        picture = dots(folder, choice)
    else:
        picture = (histograms if kind == HIST else rocs)(folder, choice, log=log)
    drawing.write(picture, output)
    return picture.title


def _require_known(kind: str, choice: Choice, options: FeatureOptions, *, log: bool) -> None:
    if kind not in KINDS:
        raise unknown_name("kind of picture", kind, KINDS, valid_label="Valid")
    of_features = {"--method": options.method is not None, "--samples": options.samples is not None}
    of_scores = {"--log": log, "--scorer": bool(choice.scorers)}
    of_one = {"--model": choice.model is not None, "--seed": choice.seed is not None}
    others = tuple(one for one in KINDS if one != PROBES)  # which show all models beside each other
    for given, kinds in ((of_features, (FEATURES,)), (of_scores, (HIST, ROC)), (of_one, others)):
        option = next((option for option, is_given in given.items() if is_given), None)
        if option is not None and kind not in kinds:
            raise InputError(
                f"{option} does not apply to {kind}. Leave it out; it is for {' and '.join(kinds)}"
            )


def scatters(folder: Path, choice: Choice, options: FeatureOptions) -> drawing.Scatters:
    """Lay penultimate features of ID test and of each set out in one plane, one panel per set.

    By default all near and far sets. The plan comes from run.json, the features from the cache if it holds them.
    """
    method = options.method or next(iter(METHODS))
    if method not in METHODS:
        raise unknown_name("method", method, METHODS, valid_label="Valid")
    samples = SAMPLES if options.samples is None else options.samples
    if samples < _FEWEST_SAMPLES:
        raise InputError(f"--samples {samples} is too few for a plane. Give {_FEWEST_SAMPLES} or more")
    manifest, registry = read_manifest(folder), Registry.load(options.plugins)
    plan = _plan(folder, manifest, registry)
    model = _model(plan, choice)
    groups = {entry.name: entry.group for entry in plan.sets}
    for name in choice.sets:
        one_of("set", name, list(groups))
    names = chosen_sets(choice, groups)
    drawn = _Gatherer(plan, model, registry, manifest, options).features([ID, *names], samples)
    points, axes = project([f.penultimate.cpu().double().numpy() for f in drawn.values()], method)
    title = f"{plan.suite.name}: {model.label} (seed {model.seed}), {METHODS[method]} of penultimate features"
    panels = {f"{name} ({groups[name]})": of_set for name, of_set in zip(names, points[1:], strict=True)}
    return drawing.Scatters(title, points[0], drawn[ID].labels.cpu().numpy(), panels, axes)


def project(features: Sequence[Array], method: str) -> tuple[list[Array], tuple[str, str]]:
    """Lay several sets' features, (N_k, D) each, out in one plane: (N_k, 2) each, and the names of its axes.

    PCA and t-SNE (van der Maaten & Hinton, JMLR 2008) see all sets together, so their positions are comparable. One
    thread only, since another order of summation would move every point.
    """
    import numpy as np
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # scikit-learn's own

    joined = np.concatenate(features)
    _require_a_plane(joined)
    with threadpool_limits(1):
        points, axes = _pca(joined) if method == "pca" else (_tsne(joined), ("", ""))
    return np.split(points, np.cumsum([len(of_set) for of_set in features])[:-1]), axes


def _pca(features: Array) -> tuple[Array, tuple[str, str]]:
    from sklearn.decomposition import PCA

    fitted = PCA(n_components=2, svd_solver="covariance_eigh")
    points: Array = fitted.fit_transform(features)
    first, second = (
        f"PC {n + 1} ({share:.0%} of variance)" for n, share in enumerate(fitted.explained_variance_ratio_)
    )
    return points, (first, second)


def _tsne(features: Array) -> Array:
    from sklearn.manifold import TSNE

    perplexity = min(_PERPLEXITY, (len(features) - 1) / 3)
    points: Array = TSNE(init="pca", perplexity=perplexity, random_state=0).fit_transform(features)
    return points


def _require_a_plane(features: Array) -> None:
    import numpy as np

    if features.shape[1] < 2:
        raise InputError("the model's penultimate features have one column; a plane needs two or more")
    if not np.isfinite(features).all():
        raise InputError("the model's penultimate features are infinite for some images. Check its dtype")
    if not np.ptp(features, axis=0).any():
        raise InputError(
            "the model's penultimate features are the same for every image: there is nothing to draw"
        )


def _plan(folder: Path, manifest: Mapping[str, Any], registry: Registry) -> Plan:
    if "definition" not in manifest:
        raise RecordsError(
            f"{str(folder)!r} is no run's folder, or of an interrupted run: {MANIFEST} does not hold the suite. "
            "Run the suite again: records are kept"
        )
    try:
        return plan_suite(manifest["definition"], registry, source=str(folder / MANIFEST))
    except HarnessError as error:
        absent = [name for name in manifest.get("plugins", {}) if name not in registry.versions]
        fix = (
            f". The run had the plugins {', '.join(absent)}: give their files with --plugin" if absent else ""
        )
        raise type(error)(f"{error}{fix}") from None


def _model(plan: Plan, choice: Choice) -> PlannedModel:
    label = one_of("model", choice.model, list(dict.fromkeys(model.label for model in plan.models)))
    by_seed = {model.seed: model for model in plan.models if model.label == label}
    return by_seed[one_of("seed", choice.seed, sorted(by_seed))]


@dataclass(frozen=True)
class _Gatherer:
    """Opens the data and the model of a run again, and takes the features from the cache."""

    plan: Plan
    model: PlannedModel
    registry: Registry
    manifest: Mapping[str, Any]
    options: FeatureOptions

    def features(self, names: Sequence[str], samples: int) -> dict[str, Features]:
        """Draw penultimate features and labels of the named sets, ID test among them, with a fixed seed."""
        cache, device = Cache(self.options.cache or default_root()), resolve_device(self.options.device)
        loader = Loader(self.registry, cache, device, self.options.progress, self.options.counts)
        sets = OpenSets(self.plan)
        _ = sets.id_data  # an error of the data is not one of the model
        bench = _result(f"model {self.model.label!r}", attempt(loader.bench, self.plan, self.model, sets))
        recorded = self.manifest.get("models", {}).get(self.model.title, {})
        self._warn_of_change(self.model.title, recorded.get("digest"), bench.loaded.digest)
        drawn = {}
        for name in names:
            stream = sets.stream(name)
            self._warn_of_change(name, self.manifest.get("data", {}).get(name), stream.parts[0].digest)
            features = _result(f"set {name!r}", attempt(bench.features, name, stream))
            read = features.only(frozenset({"penultimate", "labels"}))
            drawn[name] = read.sample(samples, _SAMPLING_SEED)
        return drawn

    def _warn_of_change(self, name: str, recorded: str | None, digest: str) -> None:
        if recorded not in (None, digest):
            logger.warning("%s has changed since the run: the picture shows its present state", name)


def _result(what: str, found: T | Failure) -> T:
    """Return a result. Raises the harness's own error as it was, PluginError for another, which names its place."""
    if not isinstance(found, Failure):
        return found
    raise PluginError(f"{what}: {found.message}") if found.error_type is HarnessError else found.error()
