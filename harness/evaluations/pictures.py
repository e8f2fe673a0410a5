"""Pictures of a finished run: of its scores, and of its model's features, gathered again through the cache."""

from __future__ import annotations

import contextlib
import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from harness.base.cache import Cache, default_root
from harness.base.errors import HarnessError, InputError, PluginError, RecordsError, unknown_name
from harness.contract.registry import Registry
from harness.data.opening import open_id, open_set
from harness.data.streams import Stream
from harness.engine.guard import describe
from harness.engine.loading import load_model
from harness.evaluations.run import plan_suite
from harness.models.extract import Counts, extract
from harness.models.loaded import resolve_device
from harness.reports.plots import drawing
from harness.reports.plots.curves import Choice, chosen_sets, histograms, one_of, rocs
from harness.reports.record import ID
from harness.reports.records import MANIFEST, read_manifest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from harness.contract.features import Features
    from harness.contract.selection import Selection
    from harness.data.opening import IdData
    from harness.engine.plan import Plan, PlannedModel
    from harness.models.loaded import LoadedModel

    Array = NDArray[np.float64]

HIST, ROC, FEATURES = "hist", "roc", "features2d"
KINDS = (HIST, ROC, FEATURES)
METHODS = {"tsne": "t-SNE", "pca": "PCA"}
SAMPLES = 1000
_SAMPLING_SEED = 0
_FEWEST_SAMPLES = 3
_PERPLEXITY = 30.0  # t-SNE's usual number of neighbours

logger = logging.getLogger("ood_harness")


@dataclass(frozen=True)
class FeatureOptions:
    """How features are gathered and laid out in the plane."""

    method: str | None = None  # the first of METHODS where it is None
    samples: int | None = None  # at most, of each set; SAMPLES where it is None
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

    Raises:
        UnknownNameError: a kind, format, model, seed, scorer, set or method that is not there.
        InputError: an option that says nothing of this kind, or a file that cannot be written.
        RecordsError: no run's folder, or one without what the picture is made of.

    """
    options = options or FeatureOptions()
    _require_known(kind, choice, options, log=log)
    drawing.require_writable(output)
    if kind == FEATURES:
        picture: drawing.Picture = scatters(folder, choice, options)
    else:
        picture = (histograms if kind == HIST else rocs)(folder, choice, log=log)
    drawing.write(picture, output)
    return picture.title


def _require_known(kind: str, choice: Choice, options: FeatureOptions, *, log: bool) -> None:
    if kind not in KINDS:
        raise unknown_name("kind of picture", kind, KINDS, valid_label="Valid")
    of_features = {"--method": options.method is not None, "--samples": options.samples is not None}
    of_scores = {"--log": log, "--scorer": bool(choice.scorers)}
    mute, kinds = (of_scores, f"{HIST} and {ROC}") if kind == FEATURES else (of_features, FEATURES)
    option = next((option for option, is_given in mute.items() if is_given), None)
    if option is not None:
        raise InputError(f"{option} says nothing of {kind}. Leave it out; it is for {kinds}")


def scatters(folder: Path, choice: Choice, options: FeatureOptions) -> drawing.Scatters:
    """Lay penultimate features of ID test and of each set out in one plane, one panel a set.

    By default all near and far sets. The plan comes from run.json, the features from the cache where it holds them.
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
    points, axes = project([_array(features) for features in drawn.values()], method)
    title = f"{plan.suite.name}: {model.label} (seed {model.seed}), {METHODS[method]} of penultimate features"
    panels = {f"{name} ({groups[name]})": of_set for name, of_set in zip(names, points[1:], strict=True)}
    return drawing.Scatters(title, points[0], drawn[ID].labels.cpu().numpy(), panels, axes)


def project(features: Sequence[Array], method: str) -> tuple[list[Array], tuple[str, str]]:
    """Lay several sets' features, (N_k, D) each, out in one plane: (N_k, 2) each, and the names of its axes.

    PCA and t-SNE (van der Maaten & Hinton, JMLR 2008) see all sets together, so that every set is in its place among
    the others. One thread, since sums in another order would move every point.
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


def _array(features: Features) -> Array:
    array: Array = features.penultimate.cpu().double().numpy()
    return array


def _plan(folder: Path, manifest: Mapping[str, Any], registry: Registry) -> Plan:
    if "definition" not in manifest:
        raise RecordsError(
            f"{str(folder)!r} is no run's folder, or of an interrupted run: {MANIFEST} does not say what was run. "
            "Run the suite again: records are kept"
        )
    return plan_suite(manifest["definition"], registry, source=str(folder / MANIFEST))


def _model(plan: Plan, choice: Choice) -> PlannedModel:
    label = one_of("model", choice.model, list(dict.fromkeys(model.label for model in plan.models)))
    by_seed = {model.seed: model for model in plan.models if model.label == label}
    return by_seed[one_of("seed", choice.seed, sorted(by_seed))]


@dataclass(frozen=True)
class _Gatherer:
    """Opens what a run opened and takes its features from the cache."""

    plan: Plan
    model: PlannedModel
    registry: Registry
    manifest: Mapping[str, Any]
    options: FeatureOptions

    def features(self, names: Sequence[str], samples: int) -> dict[str, Features]:
        """Draw penultimate features and labels of the named sets, ID test among them, with a fixed seed."""
        cache = Cache(self.options.cache or default_root())
        id_data = open_id(self.plan.suite.id, self.registry)
        loaded = self._load(id_data, cache)
        layers = self._has_layers(loaded, id_data)
        drawn = {}
        for name, selection in self._selections(names, id_data).items():
            stream = Stream.of(selection, batch_size=self.plan.suite.batch_size)
            with _told(f"set {name!r}"):
                extraction = extract(
                    loaded,
                    stream,
                    cache,
                    layers=layers,
                    counts=self.options.counts,
                    progress=self.options.progress,
                )
            read = extraction.features.only(frozenset({"penultimate", "labels"}))
            drawn[name] = read.sample(samples, _SAMPLING_SEED)
        return drawn

    def _load(self, id_data: IdData, cache: Cache) -> LoadedModel:
        with _told(f"model {self.model.label!r}"):
            loaded = load_model(
                self.model,
                id_data,
                self.registry,
                device=resolve_device(self.options.device),
                dtype=self.plan.suite.dtype,
                store=cache.models,
                progress=self.options.progress,
            )
        place = f"{self.model.label} (seed {self.model.seed})"
        self._warn_of_change(
            place, self.manifest.get("models", {}).get(place, {}).get("digest"), loaded.digest
        )
        return loaded

    def _selections(self, names: Sequence[str], id_data: IdData) -> dict[str, Selection]:
        entries = {entry.name: entry for entry in self.plan.sets}
        opened = {
            name: id_data.test if name == ID else open_set(entries[name], id_data, self.registry)
            for name in names
        }
        for name, selection in opened.items():
            self._warn_of_change(name, self.manifest.get("data", {}).get(name), selection.digest)
        return opened

    def _has_layers(self, loaded: LoadedModel, id_data: IdData) -> bool:
        """Say whether the run kept the layers beside the features, under a key of their own."""
        offers = loaded.offers | id_data.offers
        return any("layers" in w.needs and w.needs <= offers for of in self.plan.workers.values() for w in of)

    def _warn_of_change(self, name: str, recorded: str | None, digest: str) -> None:
        if recorded not in (None, digest):
            logger.warning("%s has changed since the run: the picture is of what it is now", name)


@contextlib.contextmanager
def _told(what: str) -> Iterator[None]:
    """Turn what a stranger's plugin raises into one line."""
    try:
        yield
    except HarnessError:
        raise
    except Exception as error:  # a stranger's model or dataset may raise anything
        raise PluginError(f"{what}: {describe(error)}") from error
