"""A benchmark harness for out-of-distribution detection, built of plugins.

Everything a plugin needs is here. Importing it loads no torch; what computes is imported when it is first touched.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from harness.base.code import script_digest as script_digest
from harness.base.code import source_digest as source_digest
from harness.base.deferred import Deferred as Deferred
from harness.base.errors import DatasetError as DatasetError
from harness.base.errors import HarnessError as HarnessError
from harness.base.errors import InputError as InputError
from harness.base.errors import NotDeclaredError as NotDeclaredError
from harness.base.errors import shortened as shortened
from harness.base.errors import unknown_name as unknown_name
from harness.base.inside import DataFolder as DataFolder
from harness.base.progress import progress_bar as progress_bar
from harness.base.seeding import seeded as seeded
from harness.contract.features import Adapted as Adapted
from harness.contract.features import Estimate as Estimate
from harness.contract.features import Features as Features
from harness.contract.features import FeatureSet as FeatureSet
from harness.contract.features import FitData as FitData
from harness.contract.features import LinearHead as LinearHead
from harness.contract.features import Measurement as Measurement
from harness.contract.features import StreamScores as StreamScores
from harness.contract.features import Unlabelled as Unlabelled
from harness.contract.hooks import hookimpl as hookimpl
from harness.contract.preprocessing import Preprocessing as Preprocessing
from harness.contract.protocols import Adapter as Adapter
from harness.contract.protocols import BatchedImages as BatchedImages
from harness.contract.protocols import Classifier as Classifier
from harness.contract.protocols import Described as Described
from harness.contract.protocols import Estimator as Estimator
from harness.contract.protocols import FittableEstimator as FittableEstimator
from harness.contract.protocols import FittableProbe as FittableProbe
from harness.contract.protocols import FittableScorer as FittableScorer
from harness.contract.protocols import ImageDataset as ImageDataset
from harness.contract.protocols import ImageScorer as ImageScorer
from harness.contract.protocols import NamedClasses as NamedClasses
from harness.contract.protocols import Objective as Objective
from harness.contract.protocols import PreparedAdapter as PreparedAdapter
from harness.contract.protocols import Probe as Probe
from harness.contract.protocols import Scorer as Scorer
from harness.contract.protocols import StreamScorer as StreamScorer
from harness.contract.protocols import ViewObjective as ViewObjective
from harness.contract.specs import AdapterSpec as AdapterSpec
from harness.contract.specs import DatasetRequest as DatasetRequest
from harness.contract.specs import DatasetSpec as DatasetSpec
from harness.contract.specs import EstimatorSpec as EstimatorSpec
from harness.contract.specs import EvaluationSpec as EvaluationSpec
from harness.contract.specs import Model as Model
from harness.contract.specs import ModelRequest as ModelRequest
from harness.contract.specs import ModelSpec as ModelSpec
from harness.contract.specs import ObjectiveSpec as ObjectiveSpec
from harness.contract.specs import ProbeSpec as ProbeSpec
from harness.contract.specs import RecipeSpec as RecipeSpec
from harness.contract.specs import ReferenceModel as ReferenceModel
from harness.contract.specs import ScorerSpec as ScorerSpec
from harness.contract.specs import SuiteSpec as SuiteSpec
from harness.contract.specs import TrainingData as TrainingData

if TYPE_CHECKING:
    from harness import statistics as statistics
    from harness.cli.python import load as load
    from harness.cli.python import run as run
    from harness.cli.python import scorer as scorer
    from harness.cli.python import train as train
    from harness.contract.registry import Registry as Registry
    from harness.contract.selection import Selection as Selection
    from harness.engine.evaluation import Cell as Cell
    from harness.engine.evaluation import Evaluation as Evaluation
    from harness.engine.evaluation import Job as Job
    from harness.engine.evaluation import Measured as Measured
    from harness.engine.evaluation import NotApplicable as NotApplicable
    from harness.engine.evaluation import Sitting as Sitting
    from harness.engine.guard import Failure as Failure
    from harness.engine.suite import Section as Section
    from harness.models.training.checkpoint import load_checkpoint as load_checkpoint
    from harness.models.training.checkpoint import opened as opened
    from harness.models.training.store import build_recipe as build_recipe
    from harness.models.training.store import check_recipe as check_recipe
    from harness.models.training.store import recipe_epochs as recipe_epochs
    from harness.models.training.weights import load_weights as load_weights
    from harness.statistics import metrics as metrics

_LAZY = {
    name: module
    for module, names in {
        "harness.cli.python": "load run scorer train",
        "harness.contract.registry": "Registry",
        "harness.contract.selection": "Selection",
        "harness.engine.evaluation": "Cell Evaluation Job Measured NotApplicable Sitting",
        "harness.engine.guard": "Failure",
        "harness.engine.suite": "Section",
        "harness.models.training.checkpoint": "load_checkpoint opened",
        "harness.models.training.store": "build_recipe check_recipe recipe_epochs",
        "harness.models.training.weights": "load_weights",
    }.items()
    for name in names.split()
}
_LAZY_MODULES = {"metrics": "harness.statistics.metrics", "statistics": "harness.statistics"}


def __getattr__(name: str) -> Any:
    if name in _LAZY_MODULES:
        return importlib.import_module(_LAZY_MODULES[name])
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'harness' has no attribute {name!r}")
