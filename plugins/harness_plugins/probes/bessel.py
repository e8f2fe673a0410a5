"""The logarithm of the modified Bessel function of the first kind, also if the function over- or underflows."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from scipy.special import gammaln, logsumexp

_REACH = 12  # standard deviations of the terms around the largest
_FEWEST_TERMS = 60


@lru_cache(maxsize=256)
def log_bessel(order: float, kappa: float) -> float:
    """Compute ln I_v(κ) for an order v ≥ 0 and κ > 0, in float64, by its power series in logarithms.

    ln I_v(κ) = v ln(κ/2) + ln Σ_m exp(2m ln(κ/2) - ln m! - ln Γ(v+m+1)) (DLMF 10.25.2). All terms are positive, and
    around their largest, at m(v + m) = κ²/4, they fall off faster than a normal density.
    """
    half = kappa / 2
    largest = (math.sqrt(order**2 + kappa**2) - order) / 2
    reach = _REACH * math.sqrt(largest) + _FEWEST_TERMS
    terms = np.arange(max(0, math.floor(largest - reach)), math.ceil(largest + reach) + 1, dtype=np.float64)
    logs = 2 * terms * math.log(half) - gammaln(terms + 1) - gammaln(order + terms + 1)
    return order * math.log(half) + float(logsumexp(logs))
