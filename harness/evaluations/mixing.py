"""The mixed streams of ID and OOD of a run, for evaluations that see more than one sample at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.data.mixtures import Mixer
from harness.evaluations.adaptation.section import batch_size, settings

if TYPE_CHECKING:
    from harness.engine.evaluation import Job


def mixer(job: Job) -> Mixer:
    """Return the maker of a run's mixed streams, with the size and batches of the suite's [adaptation]."""
    suite, test = job.plan.suite, job.sets.id_data.test
    return Mixer(test, job.plan.registry, batch_size(suite), settings(suite).size)
