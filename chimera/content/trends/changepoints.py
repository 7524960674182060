"""When the rate of a count changed: Bayesian online change points, for one series.

R. P. Adams, D. J. C. MacKay, "Bayesian Online Changepoint Detection" (arXiv:0710.3742, 2007), with counts that are
Poisson at a Gamma rate, so that the next count is negative binomial. An alternative to the automaton in `bursts` where
there is a volume and no documents to count it among.
"""

from __future__ import annotations

import math
from typing import Annotated, NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import Field
from scipy.special import gammaln

from chimera.core.errors import InputError
from chimera.core.types import Frozen

Floats = npt.NDArray[np.float64]


class ChangeOptions(Frozen):
    """`hazard` is the chance of a change at each count; a rate is Gamma(`shape`, `rate`) after one.

    Run lengths beyond `longest` are pooled, which bounds time and memory.
    """

    hazard: Annotated[float, Field(gt=0.0, lt=1.0)] = 1 / 200
    shape: Annotated[float, Field(gt=0.0, le=1e6)] = 1.0
    rate: Annotated[float, Field(gt=0.0, le=1e6)] = 0.1
    longest: Annotated[int, Field(ge=10, le=10_000)] = 500


class Change(NamedTuple):
    """What is known after a count: `fresh` is the chance that the rate changed within the last `recent` counts.

    `rate` is the expected count under the run lengths since, `before` the one that the count was expected to be.
    """

    fresh: float
    rate: float
    before: float


class ChangePoints:
    """The distribution over run lengths, one count at a time."""

    def __init__(self, options: ChangeOptions | None = None) -> None:
        self._options = options or ChangeOptions()
        self._log_runs: Floats = np.zeros(1)
        self._shape: Floats = np.array([self._options.shape])
        self._rate: Floats = np.array([self._options.rate])

    def observe(self, count: int, *, recent: int = 3) -> Change:
        """Take in a count. Raises InputError for one below zero."""
        if count < 0:
            raise InputError(f"a count is 0 or more, not {count}")
        options = self._options
        before = float(np.exp(self._log_runs) @ (self._shape / self._rate))
        grown = self._log_runs + _log_predictive(count, self._shape, self._rate)
        anew = np.logaddexp.reduce(grown) + math.log(options.hazard)
        runs = np.append(anew, grown + math.log1p(-options.hazard))
        self._log_runs = runs - np.logaddexp.reduce(runs)
        self._shape = np.append(options.shape, self._shape + count)
        self._rate = np.append(options.rate, self._rate + 1.0)
        if len(self._log_runs) > options.longest:
            self._pool()
        chances = np.exp(self._log_runs)
        return Change(float(chances[:recent].sum()), float(chances @ (self._shape / self._rate)), before)

    def _pool(self) -> None:
        """The two longest run lengths become one: the longest keeps what it knows."""
        self._log_runs[-2] = np.logaddexp(self._log_runs[-2], self._log_runs[-1])
        self._shape[-2], self._rate[-2] = self._shape[-1], self._rate[-1]
        self._log_runs, self._shape, self._rate = self._log_runs[:-1], self._shape[:-1], self._rate[:-1]


def _log_predictive(count: int, shape: Floats, rate: Floats) -> Floats:
    """ln of the negative binomial chance of `count`, for each Gamma(shape, rate)."""
    found: Floats = (
        gammaln(shape + count)
        - gammaln(shape)
        - math.lgamma(count + 1)
        + shape * np.log(rate / (rate + 1.0))
        - count * np.log1p(rate)
    )
    return found
