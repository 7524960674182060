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
