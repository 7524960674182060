"""Columns without their correlations, so that a distance counts each way of varying once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from chimera.core.errors import InputError
from chimera.sandbox.schema import Floats
from chimera.sandbox.threats.kinds import Reference


@dataclass(frozen=True, eq=False)
class Whitening:
    """`(values - means) @ matrix` is uncorrelated and of unit variance on the records that this was fitted to."""

    means: Floats
    """(columns,)"""
    matrix: Floats
    """(columns, k)"""

    @classmethod
    def of(cls, values: Floats) -> Whitening:
        """Fit to records (n, columns).

        Correlations are shrunk towards none by columns / (columns + n): with few records the narrowest ways look
        narrower than they are (O. Ledoit and M. Wolf, "A well-conditioned estimator", J. Multivariate Anal. 88, 2004).
        """
        if len(values) < 2:
            raise InputError(f"{len(values)} records are too few to learn how columns vary together: give 2 or more")
        n, columns = values.shape
        means = values.mean(axis=0)
        scale = Reference(means, values.std(axis=0)).scale
        standard = (values - means) / scale
        correlation = standard.T @ standard / n
        little = columns / (columns + n)
        variances, ways = np.linalg.eigh((1.0 - little) * correlation + little * np.eye(columns))
        return cls(means, ways / np.sqrt(variances) / scale[:, None])

    def __call__(self, values: Floats) -> Floats:
        """(..., columns) -> (..., k)."""
        white: Floats = (values - self.means) @ self.matrix
        return white
