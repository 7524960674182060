"""What right guesses say about epsilon.

Steinke, Nasr, Jagielski, "Privacy auditing with one (1) training run" (NeurIPS 2023, arXiv 2305.08846): each canary is
in the data by the toss of a fair coin, all in one training. A guess of a coin of an (epsilon, 0)-private mechanism is
right with a chance of at most e^epsilon / (1 + e^epsilon), whatever the other coins were, so that a binomial dominates
the number of right guesses; delta adds a term (theorem 5.2).
"""

from __future__ import annotations

import math

import numpy as np
from scipy.stats import binom

from chimera.core.errors import InputError

BISECTIONS = 40

MOST_EPSILON = 64.0
"""The chance of a right guess rounds to 1 before this."""


def chance_of(*, canaries: int, guesses: int, right: int, epsilon: float, delta: float) -> float:
    """At most how likely `right` or more of `guesses` are right, where (epsilon, delta) holds: a p-value."""
    if not 0 <= right <= guesses <= canaries or not canaries:
        raise InputError(f"{right} right of {guesses} guesses on {canaries} canaries cannot be")
    if not (epsilon >= 0.0 and 0.0 <= delta <= 1.0):
        raise InputError(f"epsilon {epsilon} must not be negative, and delta {delta} lie between 0 and 1")
    alone = 1.0 / (1.0 + math.exp(-epsilon))
    pure = float(binom.sf(right - 1, guesses, alone))
    just_below = np.cumsum(binom.pmf(np.arange(right - 1, -1, -1), guesses, alone))
    most = float(np.max(just_below / np.arange(1, right + 1), initial=0.0))
    return min(1.0, pure + 2.0 * canaries * delta * most)


def lower_bound(*, canaries: int, guesses: int, right: int, delta: float, confidence: float) -> float:
    """The largest epsilon that these guesses refute at `confidence`; 0 where they refute none.

    How many canaries are guessed must have been settled before they were scored. Raises InputError.
    """
    if not 0.5 <= confidence < 1.0:
        raise InputError(f"confidence {confidence} must be at least 0.5 and less than 1")

    def refuted(epsilon: float) -> bool:
        found = chance_of(canaries=canaries, guesses=guesses, right=right, epsilon=epsilon, delta=delta)
        return found <= 1.0 - confidence

    if not refuted(0.0):
        return 0.0
    low, high = 0.0, 1.0
    while high < MOST_EPSILON and refuted(high):
        low, high = high, 2.0 * high
    for _ in range(BISECTIONS):
        middle = (low + high) / 2.0
        low, high = (middle, high) if refuted(middle) else (low, middle)
    return low
