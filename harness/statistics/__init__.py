"""Metrics, intervals, tests and ranks."""

from harness.statistics.inference import FEWEST_SEEDS as FEWEST_SEEDS
from harness.statistics.inference import ROUNDING as ROUNDING
from harness.statistics.inference import MeanAccumulator as MeanAccumulator
from harness.statistics.inference import MeanEstimate as MeanEstimate
from harness.statistics.inference import Placements as Placements
from harness.statistics.inference import holm as holm
from harness.statistics.inference import paired_p_values as paired_p_values
from harness.statistics.inference import paired_t_p_values as paired_t_p_values
from harness.statistics.inference import placements as placements
from harness.statistics.inference import rank_ranges as rank_ranges
from harness.statistics.inference import weighted_mean as weighted_mean
