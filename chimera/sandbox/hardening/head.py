"""What a detector learns from threats: a logistic regression on what can be seen of a batch.

Batches are seen along the few directions in which threats stand out most: the principal axes of threats' whitened
means, as in a discriminant analysis, but both ways along each (R. A. Fisher, Annals of Eugenics 7, 1936).

No weight is negative, so to be odd in one way never makes up for being odd in another, and a batch that is closer to
the usual than chance would have it is no threat: else the head would learn how threats are made, not what is wrong
with them, and whoever knows it could cancel one oddness by another.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Self

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit

from chimera.sandbox.hardening.whitening import Whitening
from chimera.sandbox.schema import Floats

AXES = 24
"""Directions that are looked along."""

LEAST_ROWS = 4
"""Rows of a batch from which slopes and spreads are looked at."""

FAR = 30.0
"""Clean standard deviations beyond which a statistic says no more."""

PENALTY = 3e-3
"""Of the squared weights, beside a mean loss: ridge regression."""

OUTWARD = 6
"""The last of the statistics: of these, less than usual is not odd."""

TINY = 1e-9


@dataclass(frozen=True, eq=False)
class Head:
    """Log odds that a batch is a threat. All of it is arrays, so that it can be kept without any code."""

    means: Floats
    """(columns,) of clean records."""
    scale: Floats
    """(columns,) their standard deviations."""
    matrix: Floats
    """(columns, k) whitens."""
    axes: Floats
    """(k, a) orthonormal: where threats stand out."""
    centre: Floats
    """(f,) means of the statistics over clean batches."""
    spread: Floats
    """(f,) their standard deviations."""
    weights: Floats
    """(f,) none negative: how much it says that a statistic is far from usual."""
    offset: Floats
    """()"""

    @classmethod
    def fit(
        cls,
        records: Floats,
        clean: tuple[Floats, Floats],
        threats: Sequence[tuple[Floats, Floats]],
    ) -> Self:
        """Learn from clean records (n, columns), and from batches with the detector's `view` of them.

        `clean` and each of `threats` are (b, rows, columns) with (b, k + 1). Each of `threats` counts the same in all,
        and together they count as much as `clean`.
        """
        white = Whitening.of(records)
        scale = records.std(axis=0)
        scale = np.where(scale > 0.0, scale, 1.0)
        shifts = np.concatenate([white(batches.mean(axis=1)) for batches, _ in threats])
        shifts /= np.maximum(np.linalg.norm(shifts, axis=1, keepdims=True), TINY)  # a direction counts, not how far
        axes = np.linalg.eigh(shifts.T @ shifts)[1][:, ::-1][:, :AXES]
        known = white.means, scale, white.matrix, axes
        usual = statistics(*clean, *known)
        spread = usual.std(axis=0)
        centre, spread = usual.mean(axis=0), np.where(spread > TINY, spread, 1.0)
        odd = [_inputs(statistics(*each, *known), centre, spread) for each in threats]
        inputs = np.concatenate([_inputs(usual, centre, spread), *odd])
        answers = np.repeat([0.0, 1.0], [len(usual), len(inputs) - len(usual)])
        counts = np.concatenate(
            [np.full(len(usual), 1.0 / len(usual)), *(np.full(len(each), 1.0 / len(odd) / len(each)) for each in odd)]
        )
        weights = logistic(inputs, answers, counts)
        return cls(*known, centre, spread, weights[:-1], weights[-1:].reshape(()))

    def score(self, batches: Floats, view: Floats) -> Floats:
        """(b,) log odds of batches (b, rows, columns) with the detector's `view` of them (b, k + 1)."""
        seen = statistics(batches, view, self.means, self.scale, self.matrix, self.axes)
        odds: Floats = _inputs(seen, self.centre, self.spread) @ self.weights + self.offset
        return odds

    def arrays(self) -> dict[str, Floats]:
        """Everything, by name: what `Head(**arrays)` takes."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


def statistics(batches: Floats, view: Floats, means: Floats, scale: Floats, matrix: Floats, axes: Floats) -> Floats:
    """What is looked at in each batch, (b, f).

    Its means, and where there are enough rows its slopes over time and its spreads, along the axes; the detector's
    evidence. Then OUTWARD of which only more is odd: how far means and slopes are in all; how far its records and its
    cells lie out; the detector's score.
    """
    rows = batches.shape[1]
    centred = batches - means
    shift = centred.mean(axis=1) @ matrix * math.sqrt(rows)
    found, slope = [shift @ axes], np.zeros_like(shift)
    if rows >= LEAST_ROWS:
        ramp = np.arange(rows) - (rows - 1) / 2.0
        slope = np.einsum("r,brc->bc", ramp / np.linalg.norm(ramp), centred) @ matrix
        along = centred @ (matrix @ axes)
        found += [slope @ axes, np.log(along.var(axis=1) + TINY)]
    squares = (centred / scale) ** 2
    records = squares.mean(axis=2)
    out = np.log1p(np.stack([records.mean(axis=1), records.max(axis=1), squares.max(axis=(1, 2))], axis=1))
    return np.concatenate([*found, view[:, :-1], _energy(shift), _energy(slope), out, view[:, -1:]], axis=1)


def _energy(white: Floats) -> Floats:
    """(b, 1) the logarithm of the mean square, which is 1 by chance; less is not told apart."""
    energy: Floats = np.log(np.maximum((white**2).mean(axis=1, keepdims=True), 1.0))
    return energy


def _inputs(seen: Floats, centre: Floats, spread: Floats) -> Floats:
    """How far each statistic is from usual: a parabola near it, a line far out, as the log odds of a shift are."""
    z = np.clip((seen - centre) / spread, -FAR, FAR)
    z[:, -OUTWARD:] = np.maximum(z[:, -OUTWARD:], 0.0)
    far: Floats = np.sqrt(1.0 + z * z) - 1.0
    return far


def logistic(inputs: Floats, answers: Floats, counts: Floats) -> Floats:
    """Weights of a ridge logistic regression, none negative; the last is the offset, which is free: (f + 1,).

    `inputs` (n, f); `answers` (n,) 0 or 1; `counts` (n,) how much each counts.
    """

    def loss(weights: Floats) -> tuple[float, Floats]:
        odds = inputs @ weights[:-1] + weights[-1]
        value = counts @ (np.logaddexp(0.0, odds) - answers * odds) + 0.5 * PENALTY * weights[:-1] @ weights[:-1]
        slope = counts * (expit(odds) - answers)
        return float(value), np.append(inputs.T @ slope + PENALTY * weights[:-1], slope.sum())

    features = inputs.shape[1]
    bounds = [(0.0, None)] * features + [(None, None)]
    start = np.zeros(features + 1)
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": 300})
    weights: Floats = found.x
    return weights
