"""Detectors of odd batches of records: the simple ones that ship, as a start and as the rivals of the hardened."""

from __future__ import annotations

import math
from typing import Self

import numpy as np

from chimera.core.errors import InputError
from chimera.sandbox.hardening.whitening import Whitening
from chimera.sandbox.schema import Floats, Table
from chimera.sandbox.threats.kinds import BatchDetector, Reference

__all__ = ["BatchDetector", "MarginalDetector", "MomentsDetector", "batches_of", "view"]

LEAST_SPREAD = 1e-6
"""Variances are taken as at least this share of the usual, so that their logarithm is finite."""


class MarginalDetector:
    """The largest |z| of a column mean: one test for each column, as dashboards and data checks have them.

    It sees none of what columns do together: a small bias in all of them passes it.
    """

    name = "marginal"

    def __init__(self, reference: Reference) -> None:
        self._reference = reference

    def evidence(self, batches: Floats) -> Floats:
        """(b, columns) z of each mean."""
        rows = batches_of(batches, len(self._reference.means)).shape[1]
        z: Floats = (batches.mean(axis=1) - self._reference.means) / self._reference.scale * math.sqrt(rows)
        return z

    def score(self, batches: Floats) -> Floats:
        largest: Floats = np.abs(self.evidence(batches)).max(axis=1)
        return largest


class MomentsDetector:
    """How far means and spreads are, all columns together, from those of clean records.

    The means by Hotelling's T^2 (H. Hotelling, Ann. Math. Stat. 2, 1931), the logarithms of the variances as if
    they were independent.
    """

    name = "moments"

    def __init__(self, whitening: Whitening, variances: Floats, kurtoses: Floats) -> None:
        self._whitening, self._variances, self._kurtoses = whitening, variances, kurtoses

    @classmethod
    def of(cls, clean: Table) -> Self:
        """Learn from clean records."""
        whitening = Whitening.of(clean.values)
        centred = clean.values - whitening.means
        variances = centred.var(axis=0)
        safe = np.where(variances > 0.0, variances, 1.0)
        return cls(whitening, variances, np.where(variances > 0.0, (centred**4).mean(axis=0) / safe**2, 3.0))

    def evidence(self, batches: Floats) -> Floats:
        """(b, 2 columns) the whitened means, and z of the log variances (0 for one row, which has none)."""
        rows = batches_of(batches, len(self._variances)).shape[1]
        means = self._whitening(batches.mean(axis=1)) * math.sqrt(rows)
        live = (self._variances > 0.0) & (rows > 1)
        usual = np.where(live, self._variances, 1.0)
        ratio = np.where(live, batches.var(axis=1) * rows / max(rows - 1, 1) / usual, 1.0)
        error = np.sqrt(np.maximum(self._kurtoses - 1.0, 0.1) / rows)  # of a log variance: the delta method
        return np.concatenate([means, np.log(np.maximum(ratio, LEAST_SPREAD)) / error], axis=1)

    def score(self, batches: Floats) -> Floats:
        squares: Floats = (self.evidence(batches) ** 2).sum(axis=1)
        return squares


def view(detector: BatchDetector, batches: Floats) -> Floats:
    """(b, k + 1) all that a detector says of each batch: its evidence, and last its score."""
    return np.concatenate([detector.evidence(batches), detector.score(batches)[:, None]], axis=1)


def batches_of(batches: Floats, columns: int) -> Floats:
    """The same. Raises InputError where they are no batches of so many columns."""
    if batches.ndim != 3 or batches.shape[1] < 1 or batches.shape[2] != columns:
        raise InputError(f"an array of shape {batches.shape} holds no batches of records of {columns} columns")
    return batches
