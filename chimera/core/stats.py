"""Small statistics that more than one package needs."""

from __future__ import annotations

import math
from collections.abc import Sequence


def wilson_interval(wins: int, n: int, z: float = 1.959964) -> tuple[float, float]:
    """The Wilson score interval of a proportion, `(low, high)` in 0..1.

    `z` is the normal quantile; the default gives 95 %. With `n == 0` nothing is known: `(0.0, 1.0)`.
    Source: E. B. Wilson, "Probable Inference, the Law of Succession, and Statistical Inference", JASA 22 (1927).
    """
    if n < 0 or not 0 <= wins <= n:
        raise ValueError(f"wins must be in 0..n, got {wins} of {n}")
    if n == 0:
        return 0.0, 1.0
    share, z2 = wins / n, z * z
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = z / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    low = 0.0 if wins == 0 else max(0.0, centre - half)
    high = 1.0 if wins == n else min(1.0, centre + half)
    return low, high


def beta_binomial_tail(least: int, n: int, alpha: float, beta: float) -> float:
    """The chance of `least` or more successes in `n` trials whose common rate is Beta(alpha, beta).

    Source: N. L. Johnson, A. W. Kemp, S. Kotz, "Univariate Discrete Distributions", 3rd ed. (2005), section 6.2.2.
    """
    if least <= 0:
        return 1.0
    log_beta = math.lgamma(alpha) + math.lgamma(beta) - math.lgamma(alpha + beta)
    total = 0.0
    for k in range(least, n + 1):
        ways = math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
        rate = math.lgamma(k + alpha) + math.lgamma(n - k + beta) - math.lgamma(n + alpha + beta)
        total += math.exp(ways + rate - log_beta)
    return min(1.0, total)


def percentile(values: Sequence[float], share: float) -> float:
    """The `share` (0..1) percentile of `values` by linear interpolation. Raises ValueError when empty."""
    if not values:
        raise ValueError("no values")
    if not 0.0 <= share <= 1.0:
        raise ValueError(f"share must be in 0..1, got {share}")
    ordered = sorted(values)
    at = share * (len(ordered) - 1)
    low = math.floor(at)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (at - low)
