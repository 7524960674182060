"""All that was ever released of one data set, and what it comes to: one ledger for every mechanism.

Scalers, class counts, moments, steps of a discriminator, the choice of a model: each looks at the same records, so each
is an entry here, and epsilon is that of all of them composed. Epsilons do not add up; releases compose.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Annotated

from pydantic import Field, FiniteFloat

from chimera.core.errors import InputError, PrivacyError
from chimera.core.types import Frozen
from chimera.sandbox.privacy.accountants import Accountant, Estimate, Steps, estimate, history

MAX_STEPS = 10**9

MAX_RELEASES = 100_000
"""Entries of one ledger; equal ones that follow each other are one."""

MOST_AHEAD = 4_096
"""Steps that are cleared at once near the budget's end, where each of them would ask PRV, which is slow."""

LEAST_NOISE = 1e-2
MOST_NOISE = 1e5
CLOSE = 0.99
"""A noise multiplier is the least one when it spends this part of its epsilon."""


class Release(Frozen):
    """A statistic of the records with Gaussian noise on it: noise of `noise_multiplier` L2 sensitivities.

    A noise multiplier of 0 is no noise. `sample_rate` is the chance of each record to be looked at in one of the
    `steps`, each drawn anew (Poisson sampling); 1 is the whole set.
    """

    what: Annotated[str, Field(min_length=1, max_length=200)]
    noise_multiplier: Annotated[FiniteFloat, Field(ge=0.0)]
    sample_rate: Annotated[FiniteFloat, Field(gt=0.0, le=1.0)] = 1.0
    steps: Annotated[int, Field(ge=1, le=MAX_STEPS)] = 1

    def follows(self, other: Release) -> bool:
        """Whether it is more of the same, so that both are one entry."""
        return self.model_copy(update={"steps": other.steps}) == other


class PrivacyLedger:
    """Everything that was ever released of one data set. `delta` is the chance that epsilon says nothing.

    No release that would pass `budget` is added; `releases` are history, which stands whatever the budget is.
    Neighbours are data sets of which one has a record that the other lacks. For one thread.
    """

    def __init__(self, *, delta: float, budget: float = math.inf, releases: Iterable[Release] = ()) -> None:
        if not 0.0 < delta < 1.0:
            raise InputError(f"delta {delta} must lie between 0 and 1, and well below 1 / records")
        if not budget > 0.0:
            raise InputError(f"a privacy budget of {budget} must be positive; infinity is no limit")
        self.delta = delta
        self.budget = budget
        self._releases: list[Release] = []
        self._cleared: Release | None = None
        self._estimates: dict[Accountant, Estimate] = {}
        for release in releases:
            self._count(release)

    @property
    def releases(self) -> tuple[Release, ...]:
        """In the order in which they were made."""
        return tuple(self._releases)

    def add(self, release: Release) -> None:
        """Enter `release`; what it describes may be done after this, and not before.

        Raises PrivacyError, which says what is left, if the budget would be passed: nothing is entered then.
        """
        self._admit(release)
        self._keep(release)
        self._count(release)

    def epsilon(self, accountant: Accountant = "prv") -> float:
        """An upper bound of the epsilon of all releases together; 0 if there are none, infinite if one has no noise."""
        return self.estimate(accountant).epsilon

    def estimate(self, accountant: Accountant = "prv") -> Estimate:
        """The same, and which accountant found it: PRV cannot do every history, and RDP steps in."""
        if accountant not in self._estimates:
            self._estimates[accountant] = estimate(_steps(self._releases), self.delta, accountant)
        return self._estimates[accountant]

    def parts(self) -> dict[str, float]:
        """What each `what` would cost alone. They do not add up to `epsilon`, which is less than their sum."""
        names = dict.fromkeys(release.what for release in self._releases)
        return {
            name: estimate(_steps(each for each in self._releases if each.what == name), self.delta).epsilon
            for name in names
        }

    def _admit(self, release: Release) -> None:
        """Raises PrivacyError if `release` is too much. What PRV cleared before is not computed again."""
        if len(self._releases) >= MAX_RELEASES:
            raise PrivacyError(f"the ledger has {MAX_RELEASES} entries, and takes no more: release more at a time")
        cleared, self._cleared = self._cleared, None
        if math.isinf(self.budget):
            return
        if cleared is not None and cleared.follows(release) and release.steps <= cleared.steps:
            rest = cleared.steps - release.steps
            self._cleared = cleared.model_copy(update={"steps": rest}) if rest else None
            return
        after = [*self._releases, release]
        if estimate(_steps(after), self.delta, "rdp").epsilon <= self.budget:
            return
        epsilon = estimate(_steps(after), self.delta).epsilon
        if epsilon > self.budget:
            spent = self.epsilon()
            raise PrivacyError(
                f"{release.what!r} would take epsilon from {spent:.6g} to {epsilon:.6g}, and the budget is"
                f" {self.budget:g}: {max(self.budget - spent, 0.0):.4g} is left at delta {self.delta:g}."
                " Release less often, or with more noise"
            )
        if ahead := self._ahead(after, release):
            self._cleared = release.model_copy(update={"steps": ahead})

    def _ahead(self, after: list[Release], release: Release) -> int:
        """How many more steps of the same would fit as well: doubled while they do, then bisected."""

        def fits(steps: int) -> bool:
            more = release.model_copy(update={"steps": steps})
            return estimate(_steps([*after, more]), self.delta).epsilon <= self.budget

        fit, miss = 0, 1
        while miss <= MOST_AHEAD and fits(miss):
            fit, miss = miss, miss * 2
        while miss <= MOST_AHEAD and miss - fit > 1:
            middle = (fit + miss) // 2
            fit, miss = (middle, miss) if fits(middle) else (fit, middle)
        return fit

    def _keep(self, release: Release) -> None:
        """For a ledger that lasts: write it down before it is counted."""

    def _count(self, release: Release) -> None:
        last = self._releases[-1] if self._releases else None
        if last is not None and last.follows(release) and last.steps + release.steps <= MAX_STEPS:
            self._releases[-1] = release.model_copy(update={"steps": last.steps + release.steps})
        else:
            self._releases.append(release)
        self._estimates.clear()


def noise_for(*, epsilon: float, delta: float, sample_rate: float, steps: int, beside: Iterable[Release] = ()) -> float:
    """The least noise multiplier with which `steps` more releases, composed with `beside`, stay within `epsilon` (PRV).

    0 for an infinite epsilon. Raises PrivacyError if `beside` alone leaves too little, InputError for what is out of
    range.
    """
    if not epsilon > 0.0:
        raise InputError(f"epsilon {epsilon} must be positive")
    if math.isinf(epsilon):
        return 0.0
    before = [(each.noise_multiplier, each.sample_rate, each.steps) for each in beside]
    Release(what="asked", noise_multiplier=1.0, sample_rate=sample_rate, steps=steps)

    def spent(noise: float) -> float:
        return estimate(history([*before, (noise, sample_rate, steps)]), delta).epsilon

    enough = 1.0
    while spent(enough) > epsilon:
        enough *= 2.0
        if enough > MOST_NOISE:
            found = estimate(history(before), delta).epsilon
            raise PrivacyError(f"what was released costs {found:.4g}: epsilon {epsilon:g} leaves nothing for more")
    while enough > LEAST_NOISE and spent(enough / 2.0) <= epsilon:
        enough /= 2.0
    return _least(spent, enough / 2.0, enough, epsilon) if enough > LEAST_NOISE else enough


def _least(spent: Callable[[float], float], scarce: float, enough: float, epsilon: float) -> float:
    """Between a noise that is too little and one that is enough: the least of the latter, by bisection."""
    for _ in range(40):
        if spent(enough) >= CLOSE * epsilon:
            break
        middle = math.sqrt(scarce * enough)
        if spent(middle) <= epsilon:
            enough = middle
        else:
            scarce = middle
    return enough


def _steps(releases: Iterable[Release]) -> Steps:
    return history((each.noise_multiplier, each.sample_rate, each.steps) for each in releases)
