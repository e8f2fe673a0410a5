"""What a plugin's hooks return: frozen descriptions that name a thing, cite it, and know how to build it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from harness.base.errors import unknown_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

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

STREAM = "stream"  # the need of a scorer that looks at a whole mixture at once
NEEDS = frozenset(
    {
        "logits",
        "penultimate",
        "layers",
        "labels",
        "head",
        "linear",
        "train",
        "validation",
        "images",
        "gradients",
        "normalisation",
        STREAM,
    }
)
AUXILIARY = "auxiliary"  # the only need of an objective
FEATURE_FIELDS = frozenset({"logits", "penultimate", "layers", "labels"})
PROBE_NEEDS = FEATURE_FIELDS | {"train"}
PEER = "peer"  # another training of the same model
ESTIMATOR_NEEDS = frozenset(
    {"logits", "penultimate", "validation", "head", "linear", "images", "normalisation", PEER}
)
ADAPTER_NEEDS = frozenset({"train", "normalisation", "batchnorm"})


@dataclass(frozen=True)
class ScorerSpec:
    """A scorer: its name, what builds it from hyperparameters, and what its cells need.

    A need is any of logits, penultimate, layers (fields of Features), labels, train, validation, head, linear (for
    `fit`), images, gradients (for `score_images`), stream (for `score_stream`) and normalisation (the network has
    normalisation layers with weights). A model that does not offer all of them is not applicable.
    """

    name: str
    build: Callable[..., AnyScorer]
    needs: Iterable[str] = frozenset({"logits"})
    cite: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "needs", frozenset(self.needs))
        for need in sorted(self.needs):
            if need not in NEEDS:
                raise unknown_name("need", need, NEEDS, valid_label="Valid")


@dataclass(frozen=True)
class DatasetRequest:
    """What a suite asks of a dataset plugin."""

    name: str  # as the suite writes it, "hf:mnist"
    argument: str = ""  # what follows the colon, "mnist"
    split: str | None = None
    revision: str | None = None
    data_root: Path | None = None  # OOD_HARNESS_DATA
    base: Selection | None = None  # the ID test samples that a shift changes

    @classmethod
    def parse(cls, name: str, **rest: Any) -> DatasetRequest:
        """Build a request from a suite's name for a dataset, with what follows its colon as the argument."""
        return cls(name=name, argument=name.partition(":")[2], **rest)


@dataclass(frozen=True)
class DatasetSpec:
    """A dataset, or a family of them (`hf:NAME`): `build(request, **params)` opens it."""

    name: str
    build: Callable[..., ImageDataset]
    cite: str = ""
    argument: str = ""  # what may follow the colon, for `ood-harness plugins`; "" where nothing may
    shifts: bool = (
        False  # whether it is a family that shifts the images of another, by the kind after the colon
    )
    calibration: tuple[str, ...] = ()  # of such a family: kinds that are set aside for calibration
    opens_folders: bool = False  # whether what follows the colon may be a plain folder of images


@dataclass(frozen=True)
class Model:
    """A classifier with all that is needed to use it rightly."""

    classifier: Classifier
    preprocessing: Preprocessing
    num_classes: int  # classes that it was trained for; it may have more outputs
    source: str = ""  # digest of code in its forward pass that is not the builder's own
    facts: Mapping[str, object] = field(default_factory=dict)  # how it was made, for run.json
    outliers: tuple[str, ...] = ()  # datasets that it was trained to reject


@dataclass(frozen=True)
class TrainingData:
    """The suite's ID data, for a model that is trained on first use."""

    train: Selection
    validation: Selection | None
    num_classes: int


@dataclass(frozen=True)
class ModelRequest:
    """What a suite asks of a model plugin."""

    name: str  # as the suite writes it, "timm:resnet18.a1_in1k"
    argument: str = ""  # what follows the colon
    seed: int = 0
    data: TrainingData | None = None
    device: str = "cpu"
    store: Path | None = None  # a folder where trained models are kept; None keeps nothing
    progress: bool = False
    catalogue: Catalogue | None = None  # the installed plugins, for a model made of their parts
    num_outputs: int | None = None  # of an architecture: the logits that it shall have, C
    input_size: tuple[int, int, int] | None = None  # of an architecture: channels, height, width
    pretrained: bool = True  # of an architecture: whether it may start from weights of its own


@dataclass(frozen=True)
class ModelSpec:
    """A model, or a family of them (`timm:NAME`): `build(request, **params)` loads or trains it.

    An architecture can be built for any number of outputs and size of images, which makes it trainable by a recipe.
    """

    name: str
    build: Callable[..., Model]
    cite: str = ""
    argument: str = ""
    architecture: bool = False
    takes: Literal["name", "folder", "recipe"] = "name"  # what follows the colon is


@dataclass(frozen=True)
class SuiteSpec:
    """A suite that a distribution ships, as a TOML file."""

    name: str
    path: Path


@dataclass(frozen=True)
class RecipeSpec:
    """A recipe that a distribution ships, as a TOML file: how to train a model."""

    name: str
    path: Path


@dataclass(frozen=True)
class ObjectiveSpec:
    """A training objective: its name, and what builds it from hyperparameters.

    An objective that needs `auxiliary` data finds them in every batch, with the target -1.
    """

    name: str
    build: Callable[..., Objective]
    needs: Iterable[str] = frozenset()
    cite: str = ""
    is_default: bool = False  # whether a recipe that names no objective means this one

    def __post_init__(self) -> None:
        object.__setattr__(self, "needs", frozenset(self.needs))
        for need in sorted(self.needs):
            if need != AUXILIARY:
                raise unknown_name("need", need, [AUXILIARY], valid_label="Valid")


@dataclass(frozen=True)
class AdapterSpec:
    """A test-time adapter: its name, and what builds it from hyperparameters.

    A need is any of train (it is prepared on clean ID training images before it meets a stream), normalisation (the
    network has normalisation layers with weights) and batchnorm (it has BatchNorm layers with statistics). A model that
    does not offer all of them is not applicable.
    """

    name: str
    build: Callable[..., Adapter]
    needs: Iterable[str] = frozenset()
    cite: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "needs", frozenset(self.needs))
        for need in sorted(self.needs):
            if need not in ADAPTER_NEEDS:
                raise unknown_name("need", need, ADAPTER_NEEDS, valid_label="Valid")


@dataclass(frozen=True)
class ProbeSpec:
    """A probe, which sums up the features of a set in one number: its name, what builds it, and what it reads.

    A need is any of logits, penultimate, layers, labels (fields of Features) and train (for `fit`). A probe that needs
    labels is measured where they are ID's: on ID test and on shifted ID.
    """

    name: str
    build: Callable[..., AnyProbe]
    needs: Iterable[str] = frozenset({"penultimate"})
    cite: str = ""
    unit: str = ""  # of the number, as in "bits"

    def __post_init__(self) -> None:
        object.__setattr__(self, "needs", frozenset(self.needs))
        for need in sorted(self.needs):
            if need not in PROBE_NEEDS:
                raise unknown_name("need", need, PROBE_NEEDS, valid_label="Valid")


@dataclass(frozen=True)
class EstimatorSpec:
    """An estimator of accuracy: its name, what builds it, and what it needs.

    A need is any of logits, penultimate (fields of Features), validation (for `fit`: clean ID with labels), head,
    linear (for `fit`), images (it may forward them, and change a copy of the model), normalisation (as an adapter's)
    and peer (another training of the model).
    """

    name: str
    build: Callable[..., AnyEstimator]
    needs: Iterable[str] = frozenset({"logits"})
    cite: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "needs", frozenset(self.needs))
        for need in sorted(self.needs):
            if need not in ESTIMATOR_NEEDS:
                raise unknown_name("need", need, ESTIMATOR_NEEDS, valid_label="Valid")


@dataclass(frozen=True)
class EvaluationSpec:
    """A kind of evaluation: its name, and what builds it (harness.engine.evaluation.Evaluation)."""

    name: str
    build: Callable[[], Any]
    cite: str = ""


Spec = (
    ScorerSpec
    | DatasetSpec
    | ModelSpec
    | SuiteSpec
    | RecipeSpec
    | ObjectiveSpec
    | ProbeSpec
    | AdapterSpec
    | EstimatorSpec
    | EvaluationSpec
)
