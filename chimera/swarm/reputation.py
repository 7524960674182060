"""Reputation: how good an agent is at a skill, and who of several is asked.

A belief is the Beta posterior Beta(1 + good, 1 + bad) over the chance that the agent's next attempt is good. It
forgets (Jøsang and Ismail, "The Beta Reputation System", 2002), so that it follows an agent that changes: the counts
halve every `HALF_LIFE_S`, and never exceed `MEMORY` attempts together.

The choice is the power of two choices (Mitzenmacher 2001) over Thompson samples (Thompson 1933): of two agents drawn
at random each is taken with the chance that it is the better one. That chance is known in closed form with the normal
approximation of a Beta, so that one uniform number does for both samples.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol, TypeVar

HALF_LIFE_S = 3600.0
MEMORY = 20.0
"""Attempts that a belief holds at most: some forty good ones make up for whatever was bad before."""
TRIES = 8
"""Candidates looked at in one choice, at most."""
EXPLORATION = 0.02
"""Share of choices by work done alone. Any free agent is drawn for these, and one that starves wins them."""
NEAR_TIE = 0.05
"""Means this close count as equal: then whoever has done less is taken, which spreads the work."""

Standing = dict[str, tuple[float, float, float]]
"""Skill -> `(alpha, beta, at)`: an agent's reputation as plain data; `at` is the time in seconds it is true of."""


@dataclass(slots=True)
class Belief:
    """What is known of an agent at one skill: how often it was good and bad, as of `at` seconds."""

    good: float = 0.0
    bad: float = 0.0
    at: float = 0.0

    def appraise(self, good: float, now: float) -> None:
        """Count one attempt, `good` from 0 to 1. Raises ValueError outside of it."""
        if not 0.0 <= good <= 1.0:
            raise ValueError(f"an appraisal is from 0 to 1, not {good}")
        goods, bads = self.counts(now)
        goods, bads = goods + good, bads + 1.0 - good
        kept = min(1.0, MEMORY / (goods + bads))
        self.good, self.bad, self.at = goods * kept, bads * kept, now

    def counts(self, now: float) -> tuple[float, float]:
        """How many attempts were good and bad, the older the less."""
        left = 1.0 if now <= self.at else 0.5 ** ((now - self.at) / HALF_LIFE_S)
        return self.good * left, self.bad * left

    def estimate(self, now: float) -> tuple[float, float]:
        """Mean and variance of the posterior."""
        left = 1.0 if now <= self.at else 0.5 ** ((now - self.at) / HALF_LIFE_S)
        alpha = 1.0 + self.good * left
        total = alpha + 1.0 + self.bad * left
        mean = alpha / total
        return mean, mean * (1.0 - mean) / (total + 1.0)


UNKNOWN = Belief()


class Candidate(Protocol):
    """Who can be chosen: `done` attempts so far, and beliefs by skill ("" is the role's own)."""

    done: int
    beliefs: dict[str, Belief]


C = TypeVar("C", bound=Candidate)


def choose(candidates: Iterable[C], skill: str, now: float, rng: random.Random) -> C | None:
    """One of these candidates, who come in random order; None when there are none.

    The first two are compared; a third and more are looked at only while the best so far fails more than it succeeds.
    In a busy swarm bad agents pile up among the free ones, and two draws alone would often both be bad.
    """
    if rng.random() < EXPLORATION:
        return least_done(candidates)
    best: C | None = None
    mean = variance = 0.0
    for candidate in candidates:
        other, spread = candidate.beliefs.get(skill, UNKNOWN).estimate(now)
        if best is None:
            best, mean, variance = candidate, other, spread
            continue
        if abs(other - mean) < NEAR_TIE:
            takes = candidate.done < best.done
        else:
            takes = rng.random() < chance_better(other, spread, mean, variance)
        if takes:
            best, mean, variance = candidate, other, spread
        if mean >= 0.5:
            break
    return best


def chance_better(mean: float, variance: float, other_mean: float, other_variance: float) -> float:
    """Chance that a sample of the first belief is above one of the second: two normals, whose difference is one."""
    return 0.5 + 0.5 * math.erf((mean - other_mean) / math.sqrt(2.0 * (variance + other_variance)))


def least_done(candidates: Iterable[C]) -> C | None:
    """Of the first two candidates the one that has done less; None when there are none."""
    several = iter(candidates)
    first = next(several, None)
    second = next(several, None) if first is not None else None
    return second if first is not None and second is not None and second.done < first.done else first


def summary(beliefs: Iterable[Belief], now: float) -> tuple[float, float]:
    """Mean and number of trials over all these skills together."""
    counts = [belief.counts(now) for belief in beliefs]
    good, bad = sum(good for good, _ in counts), sum(bad for _, bad in counts)
    return (1.0 + good) / (2.0 + good + bad), good + bad


def standing(beliefs: dict[str, Belief]) -> Standing:
    """These beliefs as plain data."""
    return {skill: (1.0 + belief.good, 1.0 + belief.bad, belief.at) for skill, belief in beliefs.items()}


def beliefs_of(stood: Standing) -> dict[str, Belief]:
    """The beliefs that `standing` gave."""
    return {skill: Belief(alpha - 1.0, beta - 1.0, at) for skill, (alpha, beta, at) in stood.items()}
