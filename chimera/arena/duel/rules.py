"""When a duel stops: three rules, each a boundary on the contender's wins, and each with its exact chance of error.

All look after every decisive sample. Looking often is what makes a 95 % interval wrong far more often than 5 %, so a
rule says how often it is: at p = p0, where a claim for either side is as wrong as it can be (docs/duels.md).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist
from typing import get_args

from chimera.arena.duel.exits import Boundary, Exits, Side, exits, trace
from chimera.arena.duel.types import MAX_BUDGET, RuleName, RuleRecord
from chimera.core.errors import InputError
from chimera.core.stats import wilson_interval

MAX_CALIBRATED = 20_000
"""The greatest budget of a `calibrated` rule: finding its z takes some twenty passes over the whole budget."""

MIN_ALPHA = 1e-9

Z_STEPS = 10_000
"""A calibrated z is a whole number of these parts of 1, so that all machines find the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoppingRule(ABC):
    """When to stop a duel that has to show whether the contender's win rate is over or under `p0`.

    `alpha` is the error that is meant, both sides together; `z` the normal quantile of the interval that is looked at,
    None for a rule that has none; `budget` the most samples. Make one with `make_rule`.
    """

    name: RuleName
    p0: float
    alpha: float
    budget: int
    z: float | None

    @abstractmethod
    def decide(self, wins: int, n: int) -> Side | None:
        """For whom to stop after `wins` of `n` decisive samples, or None. Raises ValueError for impossible counts."""

    @abstractmethod
    def interval(self, wins: int, n: int) -> tuple[float, float]:
        """What the samples leave possible of the win rate, `(low, high)` in 0..1: past p0 exactly when it stops."""

    def boundary(self) -> Boundary:
        """For each number of decisive samples, the wins that stop a duel."""
        return _boundary(self)

    def exits(self, p: float) -> Exits:
        """How a duel without ties ends, exactly, when the contender's true win rate is `p`."""
        if not 0.0 <= p <= 1.0:
            raise ValueError(f"a win rate is in 0..1, not {p}")
        return _exits(self, p)

    def errors(self) -> tuple[float, float]:
        """The exact chances at p = p0 of stopping for the (contender, champion) within the budget.

        Each is the most that it can be while the claim is false: a lower p makes every walk lower, and one that stays
        above the lower boundary as long as it did is not the more likely to reach the upper one.
        """
        found = self.exits(self.p0)
        return found.contender, found.champion

    def record(self) -> RuleRecord:
        """This rule as a verdict records it."""
        contender, champion = self.errors()
        return RuleRecord(
            name=self.name,
            z=self.z,
            p0=self.p0,
            alpha=self.alpha,
            budget=self.budget,
            error_contender=contender,
            error_champion=champion,
        )

    def _check(self, wins: int, n: int) -> None:
        if not 0 <= wins <= n <= self.budget:
            raise ValueError(f"wins must be in 0..n and n in 0..{self.budget}, got {wins} of {n}")


@dataclass(frozen=True, slots=True, kw_only=True)
class WilsonRule(StoppingRule):
    """`wilson` and `calibrated`: stop when Wilson's interval at `z` leaves p0 on one side."""

    z: float

    def decide(self, wins: int, n: int) -> Side | None:
        low, high = self.interval(wins, n)
        if low > self.p0:
            return "contender"
        return "champion" if high < self.p0 else None

    def interval(self, wins: int, n: int) -> tuple[float, float]:
        self._check(wins, n)
        return wilson_interval(wins, n, self.z)


@dataclass(frozen=True, slots=True, kw_only=True)
class MixtureRule(StoppingRule):
    """`mixture`: stop when a bet against p0 has multiplied its stake by 2 / alpha. Valid whenever one stops.

    One bet a side: that the rate is q, for every q beyond p0 alike. If p0 is right, or the truth is on its other side,
    what the bet is worth is a supermartingale from 1, and has chance alpha / 2 at most of ever reaching 2 / alpha.
    `interval` is the confidence sequence of these bets: all p0 that neither has refused. The worth falls as p0 rises
    towards wins / n (shown in docs/duels.md), so what is refused is all that lies beyond one number.

    Sources: H. Robbins, "Statistical Methods Related to the Law of the Iterated Logarithm", Ann. Math. Stat. 41 (1970);
    J. Ville, "Etude critique de la notion de collectif" (1939).
    """

    z: None = None

    def decide(self, wins: int, n: int) -> Side | None:
        self._check(wins, n)
        enough = math.log(2.0 / self.alpha)
        if log_worth(wins, n, self.p0) > enough:
            return "contender"
        return "champion" if log_worth(n - wins, n, 1.0 - self.p0) > enough else None

    def interval(self, wins: int, n: int) -> tuple[float, float]:
        self._check(wins, n)
        enough = math.log(2.0 / self.alpha)
        return _refused_below(wins, n, enough), 1.0 - _refused_below(n - wins, n, enough)


def log_worth(wins: int, n: int, p0: float) -> float:
    """The logarithm of what a bet of 1 on a rate over `p0` has become; -inf where the wins do not even exceed n * p0.

    The mean, over q uniform in (p0, 1), of the likelihood ratio of q to p0:
    B(wins + 1, losses + 1) * P(Beta(wins + 1, losses + 1) > p0) / ((1 - p0) * p0^wins * (1 - p0)^losses).
    At or under n * p0 wins every such ratio is at most 1, so the bet is worth no more than its stake.
    """
    if wins <= n * p0:
        return -math.inf
    from scipy.special import betaincc, betaln

    losses = n - wins
    mass = betaln(wins + 1, losses + 1) + math.log(betaincc(wins + 1, losses + 1, p0))
    return float(mass - wins * math.log(p0) - (losses + 1) * math.log1p(-p0))


def _refused_below(wins: int, n: int, enough: float) -> float:
    """The greatest p0 that a bet on higher rates refuses, by bisection; 0 when it refuses none."""
    if wins == 0:
        return 0.0
    low, high = 0.0, wins / n
    while high - low > 1e-15 * high:
        middle = (low + high) / 2
        if log_worth(wins, n, middle) > enough:
            low = middle
        else:
            high = middle
    return low


def make_rule(name: RuleName, *, p0: float, budget: int, alpha: float = 0.05) -> StoppingRule:
    """The stopping rule `name` for a duel of at most `budget` samples against the ratio `p0`.

    `alpha` is the error that is meant over both sides. `wilson` takes the z of one look at the end, and errs more;
    `calibrated` takes the smallest z at which either side errs at most alpha / 2 over the whole budget; `mixture` errs
    no more than that whatever the budget. Raises InputError for what is out of range, saying what is in it.
    """
    if not 0.0 < p0 < 1.0:
        raise InputError(f"the ratio to beat lies between 0 and 1, not at {p0}")
    if isinstance(budget, bool) or not isinstance(budget, int) or not 1 <= budget <= MAX_BUDGET:
        raise InputError(f"a duel's budget is a number of samples from 1 to {MAX_BUDGET}, not {budget}")
    if not MIN_ALPHA <= alpha < 0.5:
        raise InputError(f"alpha, the error that is meant, is from {MIN_ALPHA} to under 0.5, not {alpha}")
    if name == "mixture":
        return MixtureRule(name=name, p0=p0, alpha=alpha, budget=budget)
    if name == "wilson":
        return WilsonRule(name=name, p0=p0, alpha=alpha, budget=budget, z=normal_z(alpha))
    if name == "calibrated":
        if budget > MAX_CALIBRATED:
            raise InputError(f"a calibrated rule takes a budget up to {MAX_CALIBRATED}, not {budget}: use mixture")
        return _calibrated(p0, budget, alpha)
    raise InputError(f"there is no stopping rule {name!r}; there are {', '.join(get_args(RuleName))}")


def normal_z(alpha: float) -> float:
    """The two-sided normal quantile to six decimals: 1.959964 for 0.05."""
    return round(-NormalDist().inv_cdf(alpha / 2), 6)


@lru_cache(maxsize=128)
def _calibrated(p0: float, budget: int, alpha: float) -> WilsonRule:
    """The rule of the smallest z, in steps of 1 / Z_STEPS from that of one look, whose sides err alpha / 2 at most.

    By bisection: the rule's own errors are checked, and those one step below are too great (or it is the least z).
    """

    def at(step: int) -> WilsonRule:
        return WilsonRule(name="calibrated", p0=p0, alpha=alpha, budget=budget, z=step / Z_STEPS)

    def errs(step: int) -> bool:
        found = exits(trace(at(step).decide, budget), p0)
        return max(found.contender, found.champion) > alpha / 2

    least = math.ceil(normal_z(alpha) * Z_STEPS)
    if not errs(least):
        return at(least)
    low, high = least, least + Z_STEPS
    while errs(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if errs(middle) else (low, middle)
    return at(high)


@lru_cache(maxsize=16)
def _boundary(rule: StoppingRule) -> Boundary:
    return trace(rule.decide, rule.budget)


@lru_cache(maxsize=256)
def _exits(rule: StoppingRule, p: float) -> Exits:
    return exits(_boundary(rule), p)
