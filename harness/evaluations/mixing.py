"""The streams of ID and OOD of a run, for evaluations that look at more than one sample at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.data.mixtures import Mixer

if TYPE_CHECKING:
    from harness.engine.evaluation import Job


def mixer(job: Job) -> Mixer:
    """Return what makes the streams of a run's mixtures, by the suite's [adaptation]."""
    suite = job.plan.suite
    size = suite.adaptation.batch_size or suite.batch_size
    return Mixer(job.sets.id_data.test, job.catalogue, size, suite.adaptation.size)
