"""What a history of Gaussian releases costs: upper bounds of epsilon at a given delta, by Opacus' accountants.

PRV composes the privacy loss numerically (Gopi, Lee, Wutschitz 2021, arXiv 2106.02848) and is tight; RDP composes
Renyi divergences (Mironov, Talwar, Zhang 2019, arXiv 1908.10530) and is cheap and a little larger. Both take two data
sets as neighbours if one has a record that the other lacks (add/remove), and batches drawn by Poisson sampling.
"""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from chimera.core.errors import InputError, MissingExtra
from chimera.core.types import Frozen

Accountant: TypeAlias = Literal["prv", "rdp"]

Steps: TypeAlias = tuple[tuple[float, float, int], ...]
"""Opacus' form of a history: (noise multiplier, sample rate, steps) of each kind of release."""

PRV_ERROR = 0.004
"""How wide of the truth PRV may be, as a part of epsilon. Its upper end is taken, so the error is on the safe side."""

WORST_PRV_ERROR = 0.02
MAX_PRV_POINTS = 2**23
MAX_PRV_KINDS = 64
MAX_PRV_EPSILON = 100.0
"""Where PRV would pass one of these it takes minutes, or says no more than RDP: RDP is used."""

FINEST = 4
"""How often PRV is tried again with half the error, where its grid is too coarse for the releases."""


class Estimate(Frozen):
    """An upper bound of epsilon, whose it is, and why where it is not that of the accountant that was asked."""

    epsilon: float
    accountant: Accountant
    reason: str = ""


def history(releases: Iterable[tuple[float, float, int]]) -> Steps:
    """The same releases in one order, equal ones counted together: the order of a composition changes nothing."""
    counts: Counter[tuple[float, float]] = Counter()
    for noise_multiplier, sample_rate, steps in releases:
        counts[noise_multiplier, sample_rate] += steps
    return tuple((noise, rate, steps) for (noise, rate), steps in sorted(counts.items()))


@lru_cache(maxsize=4_096)
def estimate(steps: Steps, delta: float, accountant: Accountant = "prv") -> Estimate:
    """The epsilon of that history (as `history` makes it) at `delta`; infinite if any release had no noise.

    The lower of two upper bounds is one too: where RDP's is below PRV's, which happens at tiny epsilons, it is taken.
    Raises InputError if `delta` is not between 0 and 1, and MissingExtra without Opacus.
    """
    if not 0.0 < delta < 1.0:
        raise InputError(f"delta {delta} must lie between 0 and 1, and well below 1 / records")
    if not steps:
        return Estimate(epsilon=0.0, accountant=accountant)
    if any(noise == 0.0 for noise, _, _ in steps):
        return Estimate(epsilon=math.inf, accountant=accountant)
    bound = _rdp(steps, delta)
    if accountant == "rdp":
        return Estimate(epsilon=bound, accountant="rdp")
    if bound > MAX_PRV_EPSILON:
        why = f"PRV is not asked above an epsilon of {MAX_PRV_EPSILON:g}"
    elif len(steps) > MAX_PRV_KINDS:
        why = f"PRV is not asked for more than {MAX_PRV_KINDS} kinds of releases"
    else:
        error = max(PRV_ERROR * bound, _error_of_grid(steps, delta))
        if error > WORST_PRV_ERROR * bound:
            why = "PRV's grid would be too large for so many steps"
        else:
            found, why = _prv(steps, delta, error)
            if found <= bound:
                return Estimate(epsilon=found, accountant="prv")
            why = why or "RDP's bound is lower here"
    return Estimate(epsilon=bound, accountant="rdp", reason=why)


def _rdp(steps: Steps, delta: float) -> float:
    """What `RDPAccountant.get_epsilon` finds, with the divergences of one step kept from call to call."""
    try:
        from opacus.accountants import RDPAccountant
        from opacus.accountants.analysis.rdp import get_privacy_spent
    except ModuleNotFoundError as error:
        raise MissingExtra("opacus", "sandbox") from error
    orders = tuple(RDPAccountant.DEFAULT_ALPHAS)
    total = sum(_divergences(noise, rate, orders) * count for noise, rate, count in steps)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the best order is the first or last: the bound holds, it is only loose
        epsilon, _ = get_privacy_spent(orders=orders, rdp=total, delta=delta)
    return max(float(epsilon), 0.0)


@lru_cache(maxsize=4_096)
def _divergences(noise_multiplier: float, sample_rate: float, orders: tuple[float, ...]) -> npt.NDArray[Any]:
    """(orders,) of one step. Where the sum for a subsample leaves the floats, the whole set's, which is larger."""
    from opacus.accountants.analysis.rdp import compute_rdp

    whole = np.array(orders) / (2.0 * noise_multiplier**2)
    if sample_rate == 1.0:
        return whole
    try:
        with np.errstate(all="ignore"):
            found = compute_rdp(q=sample_rate, noise_multiplier=noise_multiplier, steps=1, orders=orders)
    except (ValueError, OverflowError):
        return whole
    return np.where(np.isfinite(found) & (found >= 0.0), np.minimum(found, whole), whole)


def _error_of_grid(steps: Steps, delta: float) -> float:
    """The error of PRV on a grid of `MAX_PRV_POINTS` points: the sizes are those of Gopi et al., theorem 5.5."""
    delta_error = delta / 1000.0
    reach = _rdp(steps, delta_error / 4.0) + 3.0
    count = sum(count for _, _, count in steps)
    return 2.0 * reach * math.sqrt(count * math.log(12.0 / delta_error) / 2.0) / MAX_PRV_POINTS


def _prv(steps: Steps, delta: float, error: float) -> tuple[float, str]:
    """PRV's upper estimate, with an error of at most `error`; or infinity, and why there is none."""
    from opacus.accountants import PRVAccountant

    why = ""
    for _ in range(FINEST):
        accountant = PRVAccountant()
        accountant.history = list(steps)
        try:
            with warnings.catch_warnings(), np.errstate(all="ignore"):
                warnings.simplefilter("ignore")  # as above; and log(1 - sample_rate) is -infinity for a whole set
                found = float(accountant.get_epsilon(delta, eps_error=error))
        except (RuntimeError, ValueError, OverflowError, MemoryError) as failure:
            why = f"PRV: {failure}"
            error /= 2.0
            continue
        if math.isfinite(found):
            return max(found, 0.0), ""
        why = "PRV leaves the floating-point numbers"
    return math.inf, why
