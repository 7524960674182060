"""How right the confidence is, and which thresholds keep errors below a wanted rate (pure).

What goes on by itself has no label unless somebody checked it, so every number here weighs a decision by the inverse of
the chance that it was looked at (Horvitz and Thompson, JASA 47, 1952). A threshold is proposed only where the upper
confidence bound of its error rate is at most the one wanted, and thresholds are tried one after another, the highest
first, until the first that fails: so looking at many of them needs no correction (fixed-sequence testing, as in
Angelopoulos, Bates, Candès, Jordan and Lei, "Learn then Test", 2021).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Literal, NamedTuple

from chimera.core.errors import InputError
from chimera.core.stats import wilson_interval
from chimera.core.types import Frozen, Share
from chimera.review.outcomes import Judged

BINS = 10
GRID = tuple(percent / 100 for percent in range(99, 49, -1))
"""Thresholds that are tried, the highest first: fixed before anybody has looked at a decision."""

ALPHA = 0.05
"""The chance that one of the proposed thresholds lets more errors through than it says."""


class Bin(Frozen):
    """The proposals with a confidence from `low` to below `high` (the last one has 1.0 too).

    `approved` is the share that people agree to as it is, and `interval` where that may be at 95 % (Wilson, with the
    effective size of a weighted sample: Kish, "Survey Sampling", 1965). None where nobody has looked at any.
    """

    low: Share
    high: Share
    count: int
    labelled: int
    confidence: Share | None = None
    approved: Share | None = None
    interval: tuple[Share, Share] | None = None


class Proposed(Frozen):
    """A threshold, or why there is none. At it the error rate is at most `bound`, at the level that was asked for.

    `state`: it was `found`; there are `too_few` decisions to say so of any; or there are `too_many_errors`.
    """

    wanted: Share
    state: Literal["found", "too_few", "too_many_errors"]
    threshold: Share | None = None
    bound: Share | None = None
    labelled: int = 0
    errors: int = 0
    why: str


class Calibration(Frozen):
    """`ece` is the expected calibration error (Guo et al., ICML 2017), `brier` the mean squared error of the confidence
    (Brier, 1950): 0 is best for both, and None says that nobody has decided anything yet.

    `automatic` is for what goes on untold (a confidence above it), `person` for all that goes on (at least it).
    """

    count: int
    labelled: int
    ece: float | None
    brier: float | None
    bins: tuple[Bin, ...]
    automatic: Proposed
    person: Proposed


def calibrate(found: Sequence[Judged], *, automatic_error: float, person_error: float) -> Calibration:
    """What past decisions say. An edited one counts as an error: as it was, people did not want it.

    Each of the two thresholds has half of ALPHA. Raises InputError for rates that are not between 0 and 1.
    """
    for wanted in (automatic_error, person_error):
        if not 0.0 < wanted < 1.0:
            raise InputError(f"an error rate is between 0 and 1, such as 0.05; this is {wanted:g}")
    labelled = [each for each in found if each.verdict is not None]
    weights = math.fsum(_weight(each) for each in labelled)
    bins = reliability(found)
    ece = brier = None
    if labelled:
        brier = math.fsum(_weight(each) * (each.confidence - _right(each)) ** 2 for each in labelled) / weights
        ece = _ece(labelled, weights)
    return Calibration(
        count=len(found),
        labelled=len(labelled),
        ece=ece,
        brier=brier,
        bins=bins,
        automatic=propose(found, automatic_error, lambda confidence, at: confidence > at),
        person=propose(found, person_error, lambda confidence, at: confidence >= at),
    )


def reliability(found: Sequence[Judged]) -> tuple[Bin, ...]:
    """The reliability table, in BINS bins of equal width."""
    groups: dict[int, list[Judged]] = defaultdict(list)
    for each in found:
        groups[_bin(each.confidence)].append(each)
    return tuple(_summed(number, groups[number]) for number in range(BINS))


def propose(
    found: Sequence[Judged], wanted: float, goes_on: Callable[[float, float], bool], alpha: float = ALPHA / 2
) -> Proposed:
    """The lowest threshold at which what `goes_on(confidence, threshold)` has at most `wanted` errors.

    It begins where there are enough decisions to show that with half the errors wanted, or else with none at all; that
    depends on how many there are and not on what they say, as the test requires.
    """
    looked = _tries(found, goes_on, alpha)
    start = next((n for n, each in enumerate(looked) if each.could_show(wanted, wanted / 2)), None)
    if start is None:
        start = next((n for n, each in enumerate(looked) if each.could_show(wanted, 0.0)), None)
    if start is None:
        return _too_few(looked, wanted, alpha)
    best: _Tried | None = None
    for each in looked[start:]:
        if each.bound() > wanted:
            break
        best = each
    if best is None:
        first = looked[start]
        why = f"{first.errors} of {first.labelled} decisions from {first.at:g} on were no: {first.bound():.1%} may be"
        return _proposed(wanted, "too_many_errors", first, why)
    why = f"{best.errors} of {best.labelled} decisions were no: {best.bound():.1%} of all at most, at {1 - alpha:.1%}"
    return _proposed(wanted, "found", best, why).model_copy(update={"threshold": best.at, "bound": best.bound()})


def _proposed(wanted: float, state: Literal["found", "too_few", "too_many_errors"], at: _Tried, why: str) -> Proposed:
    return Proposed(wanted=wanted, state=state, labelled=at.labelled, errors=at.errors, why=why)


def clopper_pearson_upper(errors: int, n: int, alpha: float) -> float:
    """The upper bound of a rate, which is above the true one with a chance of 1 - `alpha` at least; 1 without data.

    Source: C. J. Clopper, E. S. Pearson, Biometrika 26 (1934).
    """
    if errors >= n:
        return 1.0
    from scipy.special import betaincinv

    return float(betaincinv(errors + 1, n - errors, 1.0 - alpha))


class _Stratum(NamedTuple):
    """Those of one share of checks: all, those that people looked at, and those that they wanted otherwise."""

    total: int = 0
    labelled: int = 0
    errors: int = 0

    def and_also(self, each: Judged) -> _Stratum:
        return _Stratum(
            self.total + 1,
            self.labelled + (each.verdict is not None),
            self.errors + (each.verdict in ("edited", "rejected")),
        )


class _Tried:
    """One threshold, and what would go on at it."""

    def __init__(self, at: float, strata: Collection[_Stratum], alpha: float) -> None:
        self.at = at
        self.count = sum(each.total for each in strata)
        self.labelled = sum(each.labelled for each in strata)
        self.errors = sum(each.errors for each in strata)
        self._strata = tuple(strata)
        self._alpha = alpha / max(1, len(strata))  # all their bounds hold at once (Bonferroni)

    def bound(self) -> float:
        """Of the error rate of all that would go on."""
        return self._bound(each.errors for each in self._strata)

    def could_show(self, wanted: float, rate: float) -> bool:
        """Whether so many decisions are enough, if that were their rate of errors."""
        return self._bound(math.floor(each.labelled * rate) for each in self._strata) <= wanted

    def _bound(self, errors: Iterable[int]) -> float:
        if not self.count:
            return 1.0
        uppers = (
            each.total * clopper_pearson_upper(wrong, each.labelled, self._alpha)
            for wrong, each in zip(errors, self._strata, strict=True)
        )
        return math.fsum(uppers) / self.count


def _tries(found: Sequence[Judged], goes_on: Callable[[float, float], bool], alpha: float) -> list[_Tried]:
    """Every threshold of the grid, in one pass: what goes on at a high one goes on at a lower one."""
    tries, strata, passed = [], dict[float, _Stratum](), 0
    ordered = sorted(found, key=lambda each: each.confidence, reverse=True)
    for at in GRID:
        while passed < len(ordered) and goes_on(ordered[passed].confidence, at):
            each = ordered[passed]
            strata[each.share] = strata.get(each.share, _Stratum()).and_also(each)
            passed += 1
        tries.append(_Tried(at, list(strata.values()), alpha))
    return tries


def _too_few(looked: Sequence[_Tried], wanted: float, alpha: float) -> Proposed:
    most = max(looked, key=lambda each: each.labelled)
    needed = math.ceil(math.log(alpha) / math.log1p(-wanted))
    why = f"not enough decisions: {most.labelled} of {most.count} proposals from {most.at:g} on have been looked at"
    why += f"; {needed} or more are needed, of each kind of route"
    return _proposed(wanted, "too_few", most, why)


def _summed(number: int, found: Sequence[Judged]) -> Bin:
    low, high = number / BINS, (number + 1) / BINS
    labelled = [each for each in found if each.verdict is not None]
    if not labelled:
        return Bin(low=low, high=high, count=len(found), labelled=0)
    weights = [_weight(each) for each in labelled]
    total = math.fsum(weights)
    approved = math.fsum(weight * _right(each) for weight, each in zip(weights, labelled, strict=True)) / total
    size = max(1, math.floor(total**2 / math.fsum(weight**2 for weight in weights)))
    return Bin(
        low=low,
        high=high,
        count=len(found),
        labelled=len(labelled),
        confidence=min(1.0, math.fsum(w * each.confidence for w, each in zip(weights, labelled, strict=True)) / total),
        approved=min(1.0, approved),
        interval=wilson_interval(min(size, round(approved * size)), size),
    )


def _ece(labelled: Sequence[Judged], weights: float) -> float:
    """The mean over bins of how far the confidence is from the share that is right."""
    gaps: dict[int, list[float]] = defaultdict(list)
    for each in labelled:
        gaps[_bin(each.confidence)].append(_weight(each) * (each.confidence - _right(each)))
    return math.fsum(abs(math.fsum(gap)) for gap in gaps.values()) / weights


def _bin(confidence: float) -> int:
    return min(BINS - 1, int(confidence * BINS))


def _right(each: Judged) -> float:
    return 1.0 if each.verdict == "approved" else 0.0


def _weight(each: Judged) -> float:
    return 1.0 / each.share if each.share else 1.0
