"""What a threat is, what it is made from, and whom it is to get past."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from chimera.core.errors import InputError
from chimera.sandbox.schema import Floats, Table

MAX_CELLS = 50_000_000
"""Cells of one batch of threats."""

Mask: TypeAlias = npt.NDArray[np.bool_]

Synthetic: TypeAlias = Callable[[int, np.random.Generator], Table]
"""So many records that look like the data: a trained generator, a Gaussian, a bootstrap."""


class ThreatKind(StrEnum):
    """What is wrong with a batch of threats."""

    BIASED = "biased"
    """All means are off by `strength` standard deviations."""
    POISONED = "poisoned"
    """A share `strength` of the records (of the points of a window) is replaced by extreme ones."""
    DRIFTED = "drifted"
    """The bias grows from 0 at the first record (point) to `strength` at the last."""
    EVASIVE = "evasive"
    """A bias whose root mean square over the columns is `strength`, in the shape that a detector sees least of."""


class BatchDetector(Protocol):
    """Looks at whole batches: is this one like the clean ones? A batch is (rows, columns), rows in order of time."""

    @property
    def name(self) -> str:
        """A word for it in reports."""

    def evidence(self, batches: Floats) -> Floats:
        """What it sees of each batch: (b, rows, columns) -> (b, k)."""

    def score(self, batches: Floats) -> Floats:
        """How odd each batch is, higher is odder: (b, rows, columns) -> (b,)."""


@dataclass(frozen=True, eq=False)
class Reference:
    """Means and standard deviations that threats are measured against, each (columns,), in the columns' units.

    Public, or released with noise: whoever is given a threat may learn them.
    """

    means: Floats
    sds: Floats

    def __post_init__(self) -> None:
        if self.means.ndim != 1 or self.means.shape != self.sds.shape:
            raise InputError("reference means and standard deviations are one number each for every column")
        if not (np.isfinite(self.means).all() and np.isfinite(self.sds).all() and (self.sds >= 0.0).all()):
            raise InputError("reference means and standard deviations must be finite, and the latter not negative")

    @classmethod
    def of(cls, table: Table) -> Reference:
        """The statistics of these records themselves, without any noise: for data that may be shown."""
        if not len(table):
            raise InputError("a table without records has no means")
        return cls(table.values.mean(axis=0), table.values.std(axis=0))

    @property
    def scale(self) -> Floats:
        """(columns,) what a distance is divided by: a column that never varies is measured in its own unit."""
        return np.where(self.sds > 0.0, self.sds, 1.0)


@dataclass(frozen=True, kw_only=True, eq=False)
class Threats:
    """One batch of threats."""

    table: Table
    """(n, columns) on the lattice and in the ranges; the rows are in order of time."""
    before: Table
    """The same records as they were drawn."""
    kind: ThreatKind
    strength: float
    bias: Floats
    """(columns,) how far the means are off, in the columns' units: those of a table from the reference, those of
    windows from the same windows before."""
    changed: Mask
    """(n,) the records that are not as they were drawn."""
    queries: int = 0
    """Batches that the detector was asked about."""


def bootstrap(table: Table) -> Synthetic:
    """These very records, drawn with replacement."""
    if not len(table):
        raise InputError("there are no records to draw from")
    return lambda n, rng: table.take(rng.integers(len(table), size=n))


def drawn(synthetic: Synthetic, n: int, reference: Reference, rng: np.random.Generator) -> Table:
    """`n` records. Raises InputError where they are too many, too few came, or they are not the reference's."""
    if not 1 <= n * len(reference.means) <= MAX_CELLS:
        raise InputError(f"a batch of threats has 1 to {MAX_CELLS} cells, not {n} x {len(reference.means)}")
    table = synthetic(n, rng)
    if len(table) != n or len(table.schema) != len(reference.means):
        raise InputError(
            f"asked for {n} records of {len(reference.means)} columns, the source gave "
            f"{len(table)} of {len(table.schema)}"
        )
    return table


def checked(kind: ThreatKind, strength: float, detector: BatchDetector | None, queries: int) -> None:
    """Raises InputError for what cannot be made."""
    if not (np.isfinite(strength) and strength >= 0.0):
        raise InputError(f"a strength is 0 or more standard deviations, not {strength}")
    if kind is ThreatKind.POISONED and strength > 1.0:
        raise InputError(f"the share of poisoned records is 0 to 1, not {strength}")
    if kind is ThreatKind.EVASIVE and detector is None:
        raise InputError("evasive threats are made against a detector: give one")
    if not 1 <= queries <= MAX_QUERIES:
        raise InputError(f"the search for evasive threats asks 1 to {MAX_QUERIES} times, not {queries}")


QUERIES = 256
"""Batches that a search for an evasive one tries."""

MAX_QUERIES = 100_000
