"""Specs, which the hooks of a plugin return: frozen descriptions with a name, a citation and a builder."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from harness.base.errors import InputError, unknown_name
from harness.base.paths import beside

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from torch import Tensor

    from harness.contract.preprocessing import Preprocessing
    from harness.contract.protocols import (
        Adapter,
        AnyEstimator,
        AnyProbe,
        AnyScorer,
        Catalogue,
        Classifier,
        ImageDataset,
        Objective,
    )
    from harness.contract.selection import Selection

STREAM = "stream"  # the need of a scorer that scores a whole mixture at once
DATA_NEEDS = frozenset({"train", "validation", "labels"})  # the needs that the ID data satisfy
FEATURE_FIELDS = frozenset({"logits", "penultimate", "layers", "labels"})
NEEDS = FEATURE_FIELDS | {
    "head",
    "linear",
    "train",
    "validation",
    "images",
    "gradients",
    "classifier",
    "normalisation",
    STREAM,
}
Cost = Literal["pass", "passes", "gradients", "adapts"]
AUXILIARY = "auxiliary"  # the only need of an objective
INPUTS = "inputs"  # the need of a probe that reads the images' pixels beside their features
PROBE_NEEDS = FEATURE_FIELDS | {"train", INPUTS}
PEER = "peer"  # another training of the same model
ESTIMATOR_NEEDS = frozenset(
    {"logits", "penultimate", "validation", "head", "linear", "images", "normalisation", PEER}
)
ADAPTER_NEEDS = frozenset({"train", "normalisation", "batchnorm"})


def _freeze_needs(spec: Any, valid: Iterable[str]) -> None:
    object.__setattr__(spec, "needs", frozenset(spec.needs))
    for need in sorted(spec.needs):
        if need not in valid:
            raise unknown_name("need", need, valid, valid_label="Valid")


@dataclass(frozen=True)
class ScorerSpec:
    """A scorer: its name, its builder, which takes the hyperparameters, and the needs of its cells.

    Valid needs: logits, penultimate, layers (fields of Features), labels, train, validation, head, linear (for `fit`),
    images, gradients (for `score_images`), stream (for `score_stream`), classifier (the network has classes, so that
    what it gives for images are logits; an encoder has none) and normalisation (it has normalisation layers with
    weights). The scorer is not applicable to a model that does not offer all its needs.

    `passes` are the forward passes of its own per image, with default hyperparameters. Default: none for a scorer that
    reads features, one for any other.

    `unstable` states that its order of ID and OOD turns with its parameters. Records, boards and the catalogue say so.
    """

    name: str
    build: Callable[..., AnyScorer]
    needs: Iterable[str] = frozenset({"logits"})
    cite: str = ""
    passes: int | None = None
    unstable: bool = False

    def __post_init__(self) -> None:
        _freeze_needs(self, NEEDS)
        if self.passes is None:
            object.__setattr__(self, "passes", 0 if self.cost == "pass" else 1)
        elif (self.passes > 0) != (self.cost != "pass"):
            raise InputError(
                f"the scorer {self.name!r} needs {', '.join(sorted(self.needs))} and declares {self.passes} passes of "
                "its own. Give 1 or more if it needs images or stream, else leave passes out"
            )

    @property
    def cost(self) -> Cost:
        """What it costs beside the pass that all scorers share, from its needs.

        pass: nothing. passes: forward passes of its own. gradients: backward passes as well. adapts: it adapts a copy
        of the model to a stream.
        """
        if STREAM in self.needs:
            return "adapts"
        if "gradients" in self.needs:
            return "gradients"
        return "passes" if "images" in self.needs else "pass"

    @property
    def is_default(self) -> bool:
        """Whether a suite's `*` stands for it: it neither adapts the model nor is unstable."""
        return self.cost != "adapts" and not self.unstable


@dataclass(frozen=True)
class DatasetRequest:
    """A suite's request to a dataset plugin."""

    name: str  # as in the suite, "hf:mnist"
    argument: str = ""  # the part after the colon, "mnist"
    split: str | None = None
    revision: str | None = None
    data_root: Path | None = None  # OOD_HARNESS_DATA
    folder: Path | None = None  # of the suite's file: relative paths start there
    base: Selection | None = None  # the ID samples that a shift is applied to
    labelled: bool = True  # whether labels are read; if not, data without a clear labelling are fine, too

    @classmethod
    def parse(cls, name: str, **rest: Any) -> DatasetRequest:
        """Build a request from a dataset's name in a suite; the argument is the part after the colon."""
        return cls(name=name, argument=name.partition(":")[2], **rest)


@dataclass(frozen=True)
class DatasetSpec:
    """A dataset, or a family of them (`hf:NAME`): `build(request, **params)` opens it."""

    name: str
    build: Callable[..., ImageDataset]
    cite: str = ""
    argument: str = ""  # describes the part after the colon, for `ood-harness plugins`; "" if there is none
    shifts: bool = False  # whether it is a family that shifts other images, by the kind after the colon
    calibration: tuple[str, ...] = ()  # for such a family: the kinds that are reserved for calibration
    opens_folders: bool = False  # whether the part after the colon may be a plain folder of images


@dataclass(frozen=True)
class Model:
    """A classifier with everything that is needed to use it correctly."""

    classifier: Classifier
    preprocessing: Preprocessing
    num_classes: int  # classes that it was trained for; it may have more outputs
    source: str = ""  # digest of code in its forward pass that is not the builder's own
    facts: Mapping[str, object] = field(default_factory=dict)  # how it was made, for run.json
    outliers: tuple[str, ...] = ()  # datasets that it was trained to reject
    class_names: tuple[str, ...] | None = None  # by output, if they are known
    class_synonyms: tuple[str, ...] | None = None  # other names of each class, separated by commas
    trained_on: str = ""  # digest of the train part, if the harness trained it


@dataclass(frozen=True)
class TrainingData:
    """The suite's ID data, for a model that is trained on first use."""

    train: Selection
    validation: Selection | None
    num_classes: int
    class_names: tuple[str, ...] | None = None  # by label, if they are known; no weight depends on them


@dataclass(frozen=True)
class ModelRequest:
    """A suite's request to a model plugin."""

    name: str  # as in the suite, "timm:resnet18.a1_in1k"
    argument: str = ""  # the part after the colon
    seed: int = 0
    data: TrainingData | None = None
    device: str = "cpu"
    store: Path | None = None  # the folder for trained models; None stores nothing
    progress: bool = False
    catalogue: Catalogue | None = None  # the installed plugins, for a model built from their parts
    num_outputs: int | None = None  # for an architecture: the number of logits, C
    input_size: tuple[int, int, int] | None = None  # for an architecture: channels, height, width
    pretrained: bool = True  # for an architecture: whether it may start from pretrained weights
    preprocessing: Mapping[str, Any] = field(
        default_factory=dict
    )  # what the suite states: size, mean, std, ...
    folder: Path | None = None  # of the suite's file
    epoch: int | None = None  # the weights after this epoch of its training; None: those that it ends with

    def found(self, path: str) -> Path:
        """Find a relative path beside the suite's file, else in the working folder; the latter if it is in neither."""
        return beside(self.folder, path)


@dataclass(frozen=True)
class ModelSpec:
    """A model, or a family of them (`timm:NAME`): `build(request, **params)` loads or trains it.

    An architecture can be built for any number of outputs and any image size, so that a recipe can train it.

    `check(request, **params)` raises HarnessError for a request that `build` would refuse, as far as that can be told
    without training or fetching anything: a run calls it for all models before it trains or loads the first. If it had
    to build the model, it returns it, and its classes are matched to the data's at once. A family of folders may give
    `rebuild(config, weights, *, size)`: it builds the network that a foreign config.json describes and loads the
    weights, by name, into it; `size`, (height, width) or None, is another size of images. The command `import` uses it.
    It uses `translate(weights)` of an architecture, too: this renames the weights of published code, and leaves names
    that it does not know as they are.

    A family whose trainings keep weights along the way gives `epochs(request)`: the numbers of those epochs, in order,
    told without opening data. `build` then loads the weights of `request.epoch`.
    """

    name: str
    build: Callable[..., Model]
    cite: str = ""
    argument: str = ""
    architecture: bool = False
    takes: Literal["name", "folder", "recipe"] = "name"  # meaning of the part after the colon
    check: Callable[..., Model | None] | None = None
    rebuild: Callable[..., Model] | None = None
    translate: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]] | None = None
    epochs: Callable[..., Sequence[int]] | None = None


@dataclass(frozen=True)
class SuiteSpec:
    """A suite that a plugin ships as a TOML file."""

    name: str
    path: Path


@dataclass(frozen=True)
class RecipeSpec:
    """A training recipe that a plugin ships as a TOML file."""

    name: str
    path: Path


@dataclass(frozen=True)
class ObjectiveSpec:
    """A training objective: its name, and its builder, which takes the hyperparameters.

    An objective that needs `auxiliary` data receives auxiliary samples in every batch, with target -1.
    """

    name: str
    build: Callable[..., Objective]
    needs: Iterable[str] = frozenset()
    cite: str = ""
    is_default: bool = False  # whether a recipe that names no objective uses this one

    def __post_init__(self) -> None:
        _freeze_needs(self, [AUXILIARY])


@dataclass(frozen=True)
class AdapterSpec:
    """A test-time adapter: its name, and its builder, which takes the hyperparameters.

    Valid needs: train (it is prepared on clean ID training images before the stream), normalisation (the network has
    normalisation layers with weights) and batchnorm (the network has BatchNorm layers with statistics). The adapter is
    not applicable to a model that does not offer all its needs.
    """

    name: str
    build: Callable[..., Adapter]
    needs: Iterable[str] = frozenset()
    cite: str = ""

    def __post_init__(self) -> None:
        _freeze_needs(self, ADAPTER_NEEDS)


@dataclass(frozen=True)
class ProbeSpec:
    """A probe, which summarises the features of a set in one number: its name, its builder and its needs.

    Valid needs: logits, penultimate, layers, labels, inputs (fields of Features) and train (for `fit`). A probe that
    needs labels is measured only on sets with ID labels: ID test and shifted ID.
    """

    name: str
    build: Callable[..., AnyProbe]
    needs: Iterable[str] = frozenset({"penultimate"})
    cite: str = ""
    unit: str = ""  # of the number, such as "bits"

    def __post_init__(self) -> None:
        _freeze_needs(self, PROBE_NEEDS)


@dataclass(frozen=True)
class ReferenceModel:
    """The models on which an estimator's own curve was fitted: the number of their classes, and one by its name."""

    name: str  # as in a suite, "timm:resnet50.tv_in1k"
    classes: int


@dataclass(frozen=True)
class EstimatorSpec:
    """An estimator of accuracy: its name, its builder and its needs.

    Valid needs: logits, penultimate (fields of Features), validation (for `fit`: clean ID with labels), head, linear
    (for `fit`), images (it may forward them, and change a copy of the model), normalisation (as for an adapter) and
    peer (another training of the model).

    `passes` are its own forward passes per image of a set of 1,000 by default; a backward pass counts
    as two. An estimator with a `reference` was fitted elsewhere, and is for models with as many classes. The
    command `estimate` starts with the cheapest estimators, takes its model from the first reference if none is named,
    and leaves out estimators that take long or have another reference, unless they are named.
    """

    name: str
    build: Callable[..., AnyEstimator]
    needs: Iterable[str] = frozenset({"logits"})
    cite: str = ""
    passes: int = 0
    reference: ReferenceModel | None = None

    def __post_init__(self) -> None:
        _freeze_needs(self, ESTIMATOR_NEEDS)


@dataclass(frozen=True)
class EvaluationSpec:
    """A kind of evaluation: its name, and the builder of its harness.engine.evaluation.Evaluation."""

    name: str
    build: Callable[[], Any]
    cite: str = ""
