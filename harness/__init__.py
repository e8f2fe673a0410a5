"""A benchmark harness for out-of-distribution detection, built of plugins.

Everything a plugin needs is here. Importing it loads no torch; what computes is imported when it is first touched.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from harness.deferred import Deferred as Deferred
from harness.errors import DatasetError as DatasetError
from harness.errors import HarnessError as HarnessError
from harness.errors import InputError as InputError
from harness.errors import NotDeclaredError as NotDeclaredError
from harness.errors import unknown_name as unknown_name
from harness.hookspecs import hookimpl as hookimpl
from harness.preprocessing import Preprocessing as Preprocessing
from harness.progress import progress_bar as progress_bar
from harness.protocols import Adapter as Adapter
from harness.protocols import Classifier as Classifier
from harness.protocols import Estimator as Estimator
from harness.protocols import FittableEstimator as FittableEstimator
from harness.protocols import FittableProbe as FittableProbe
from harness.protocols import FittableScorer as FittableScorer
from harness.protocols import ImageDataset as ImageDataset
from harness.protocols import ImageScorer as ImageScorer
from harness.protocols import Objective as Objective
from harness.protocols import PreparedAdapter as PreparedAdapter
from harness.protocols import Probe as Probe
from harness.protocols import Scorer as Scorer
from harness.protocols import StreamScorer as StreamScorer
from harness.protocols import ViewObjective as ViewObjective
from harness.seeding import seeded as seeded
from harness.specs import AdapterSpec as AdapterSpec
from harness.specs import DatasetRequest as DatasetRequest
from harness.specs import DatasetSpec as DatasetSpec
from harness.specs import EstimatorSpec as EstimatorSpec
from harness.specs import Model as Model
from harness.specs import ModelRequest as ModelRequest
from harness.specs import ModelSpec as ModelSpec
from harness.specs import ObjectiveSpec as ObjectiveSpec
from harness.specs import ProbeSpec as ProbeSpec
from harness.specs import RecipeSpec as RecipeSpec
from harness.specs import ScorerSpec as ScorerSpec
from harness.specs import SuiteSpec as SuiteSpec
from harness.specs import TrainingData as TrainingData
from harness.types import Adapted as Adapted
from harness.types import Estimate as Estimate
from harness.types import Features as Features
from harness.types import FeatureSet as FeatureSet
from harness.types import FitData as FitData
from harness.types import LinearHead as LinearHead
from harness.types import Measurement as Measurement
from harness.types import StreamScores as StreamScores
from harness.types import Unlabelled as Unlabelled

if TYPE_CHECKING:
    from harness import metrics as metrics
    from harness import statistics as statistics
    from harness.api import run as run
    from harness.api import scorer as scorer
    from harness.api import train as train
    from harness.registry import Registry as Registry
    from harness.selection import Selection as Selection
    from harness.training.checkpoint import load_checkpoint as load_checkpoint
    from harness.training.checkpoint import opened as opened
    from harness.training.store import build_recipe as build_recipe

_LAZY = {
    "Registry": "harness.registry",
    "Selection": "harness.selection",
    "build_recipe": "harness.training.store",
    "load_checkpoint": "harness.training.checkpoint",
    "opened": "harness.training.checkpoint",
    "run": "harness.api",
    "scorer": "harness.api",
    "train": "harness.api",
}


def __getattr__(name: str) -> Any:
    if name in ("metrics", "statistics"):
        return importlib.import_module(f"harness.{name}")
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'harness' has no attribute {name!r}")
