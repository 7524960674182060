"""The analytic Gaussian mechanism: exactly the noise that one release of a given sensitivity needs.

Balle & Wang, "Improving the Gaussian mechanism for differential privacy" (ICML 2018, arXiv 1805.06530), theorem 8. The
noise is drawn in floating point. Its lowest bits may tell more than theory says (Mironov 2012; Canonne, Kamath, Steinke
2020 have a discrete Gaussian that does not): what is released here is rounded on its way to the lattice of the data,
but that is no proof, so whoever must withstand an attack on single bits needs another sampler.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.special import log_ndtr, ndtr

from chimera.core.errors import InputError
from chimera.sandbox.schema import Floats

BISECTIONS = 200


def delta_of(*, epsilon: float, noise_multiplier: float) -> float:
    """The least delta of one Gaussian release: Phi(1/2s - es) - exp(e) Phi(-1/2s - es) for s, the noise multiplier."""
    if noise_multiplier <= 0.0:
        return 1.0
    middle, reach = -epsilon * noise_multiplier, 0.5 / noise_multiplier
    return float(ndtr(middle + reach) - math.exp(min(epsilon + float(log_ndtr(middle - reach)), 0.0)))


def sigma_for(*, epsilon: float, delta: float, sensitivity: float = 1.0) -> float:
    """The least standard deviation for one release of that L2 sensitivity; 0 for an infinite epsilon.

    Raises InputError for what is out of range.
    """
    if not (epsilon > 0.0 and 0.0 < delta < 1.0 and 0.0 <= sensitivity < math.inf):
        raise InputError(
            f"epsilon {epsilon} must be positive, delta {delta} between 0 and 1, sensitivity {sensitivity} not negative"
        )
    if math.isinf(epsilon):
        return 0.0
    low, high = 1e-9, 1.0
    while delta_of(epsilon=epsilon, noise_multiplier=high) > delta:
        low, high = high, high * 2.0
    for _ in range(BISECTIONS):
        middle = (low + high) / 2.0
        if delta_of(epsilon=epsilon, noise_multiplier=middle) > delta:
            low = middle
        else:
            high = middle
        if high - low <= 1e-12 * high:
            break
    return high * sensitivity


def with_noise(statistic: Floats, *, sensitivity: float, noise_multiplier: float, rng: np.random.Generator) -> Floats:
    """`statistic`, each number with independent noise of `noise_multiplier` times its L2 `sensitivity`."""
    return statistic + rng.normal(0.0, 1.0, statistic.shape) * (noise_multiplier * sensitivity)
