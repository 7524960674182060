"""Autoregression in closed form: a forecast costs about a millisecond, and can be made for every metric.

The model predicts the next step's change, and the penalty pulls towards no change at all: with little to learn from,
the forecast is the last value and not the mean, which is the better guess after a shift of level. With `m[t]` for the
mean of the points about `t`:

    x[t] = x[t-1] + sum_i a[i] (x[t-i] - x[t-1]) + b + c x[t-1] + d (x[t-P] - x[t-1]) + e (m[t-P] - x[t-1])

Ridge regression (Hoerl and Kennard, 1970) with Huber's weights (1964), reweighted a few times, so that a spike in the
history is one point and not the fit. `P` is the season's period, if there is one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

ROUNDS = 4
"""How often the weights are renewed. More gains nothing that was measured."""

HUBER = 0.7
"""Where an error stops to count in full, in medians of the absolute error. Low: almost least absolute deviations."""

TINY = 1e-9

SMOOTH = 1
"""The season's second term is the mean of the points at most this far from one period ago."""


@dataclass(frozen=True, slots=True)
class Autoregression:
    """A fitted model of one series. `lags` (p,) is oldest first; `season` weighs one period ago, and the mean about it.

    `errors` (m,) are the one-step errors, each as if its own point had been left out of the fit (closed form:
    residual / (1 - leverage)), in the order of time and up to the last point of the history.
    """

    lags: Floats
    intercept: float
    season: tuple[float, float]
    period: int
    errors: Floats

    def extend(self, history: Floats, horizon: int) -> Floats:
        """The expected next `horizon` values (h,) of `history` (n,), each step built on the ones before."""
        p, n = self.lags.size, history.size
        path = np.empty(p + horizon)
        path[:p] = history[n - p :]
        drive = np.full(horizon, self.intercept)
        if self.period:
            ago = n - self.period + np.arange(horizon) % self.period
            drive += self.season[0] * history[ago] + self.season[1] * _about(history)[ago]
        for step in range(horizon):
            path[p + step] = path[step : step + p] @ self.lags + drive[step]
        return path[p:]

    def response(self, horizon: int) -> Floats:
        """How much of an error is still there 0, 1, ... `horizon` - 1 steps later (h,): the model's psi weights.

        The season's terms reach back a whole period, and are left out: no error comes back within a shorter horizon.
        """
        p = self.lags.size
        path = np.zeros(p + horizon)
        path[p - 1] = 1.0
        for step in range(horizon - 1):
            path[p + step] = path[step : step + p] @ self.lags
        return path[p - 1 : p - 1 + horizon]


def fit(history: Floats, *, lags: int, penalty: float, period: int = 0) -> Autoregression:
    """Fit `history` (n,), finite and of about unit scale, with n > lags + 2 and n > period + 3.

    `penalty` is in units of one observation's weight at unit scale. A `period` of 0, or within the lags, has no terms.
    """
    n, p = history.size, lags
    period = period if period > p else 0
    start = max(p, period + SMOOTH) if period else p
    windows = np.lib.stride_tricks.sliding_window_view(history[start - p : n - 1], p)
    last = history[start - 1 : n - 1]
    terms = np.empty((n - start, p + (3 if period else 1)))
    np.subtract(windows[:, : p - 1], last[:, None], out=terms[:, : p - 1])
    terms[:, p - 1] = last
    terms[:, p] = 1.0
    if period:
        terms[:, p + 1] = history[start - period : n - period] - last
        terms[:, p + 2] = _about(history)[start - period : n - period] - last
    weights, errors = _robust_ridge(terms, history[start:] - last, p, penalty)
    own = np.empty(p)
    own[: p - 1] = weights[: p - 1]
    own[p - 1] = 1.0 + weights[p - 1] - weights[: p - 1].sum() - weights[p + 1 :].sum()
    season = (float(weights[p + 1]), float(weights[p + 2])) if period else (0.0, 0.0)
    return Autoregression(own, float(weights[p]), season, period, errors)


def _robust_ridge(terms: Floats, target: Floats, free: int, penalty: float) -> tuple[Floats, Floats]:
    """The weights of `terms` and the leave-one-out errors. The column `free` is the intercept, and hardly penalised."""
    shrink = np.full(terms.shape[1], penalty)
    shrink[free] = 1e-6
    trust = np.ones(target.size)
    middle = target.size // 2
    for round_ in range(ROUNDS + 1):
        weighted = terms.T * trust
        gram = weighted @ terms
        gram.flat[:: gram.shape[0] + 1] += shrink * trust.mean()
        if round_ == ROUNDS:
            break
        size = np.abs(target - terms @ np.linalg.solve(gram, weighted @ target))
        edge = HUBER * float(np.partition(size, middle)[middle]) + TINY
        trust = edge / np.maximum(size, edge)
    inverse = np.linalg.inv(gram)
    weights = inverse @ (weighted @ target)
    leverage = np.einsum("ij,ij->i", terms @ inverse, terms) * trust
    spare = max(1.0 - terms.shape[1] / target.size, 0.1)
    return weights, (target - terms @ weights) / (np.maximum(1.0 - leverage, 0.1) * np.sqrt(spare))


def _about(history: Floats) -> Floats:
    """The mean of each point and its neighbours (n,). The ends are their own neighbours."""
    padded = np.pad(history, SMOOTH, mode="edge")
    width = 2 * SMOOTH + 1
    return np.asarray(np.convolve(padded, np.full(width, 1.0 / width), mode="valid"))
