"""The kinds of evaluation, in the order in which they run: scores first, whose image scorers run within the pass."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from harness.evaluations.accuracy import Accuracy
from harness.evaluations.adaptation.measure import Adaptation
from harness.evaluations.curves.measure import Curves
from harness.evaluations.estimation.measure import Estimation
from harness.evaluations.mixtures.measure import Mixtures
from harness.evaluations.probes.measure import Probes
from harness.evaluations.scores.scoring import Scores
from harness.evaluations.scores.streams import Transductive

if TYPE_CHECKING:
    from harness.engine.evaluation import Evaluation

KINDS: tuple[Evaluation[Any], ...] = (
    Scores(),
    Accuracy(),
    Probes(),
    Curves(),
    Transductive(),
    Adaptation(),
    Mixtures(),
    Estimation(),
)
