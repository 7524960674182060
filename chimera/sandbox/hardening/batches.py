"""Clean records in three parts that share none, and clean batches drawn from each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from chimera.core.errors import InputError
from chimera.sandbox.schema import Floats, Table

AT_ONCE = 512
"""Batches held in memory at a time."""

SHARES = (0.4, 0.3, 0.3)
"""Of the records: to fit, to calibrate, to measure."""

LEAST = 20
"""Records of a part."""


@dataclass(frozen=True, eq=False)
class Parts:
    """What is learnt from, what thresholds are set on, and what nobody looks at before the end. No record is in two.

    Records that are alike because they overlap, such as windows of one metric, must not be parted by chance: build
    the parts from stretches of time with gaps between, as `in_order` does.
    """

    fit: Table
    calibrate: Table
    measure: Table

    def __post_init__(self) -> None:
        for name, part in (("fit", self.fit), ("calibrate", self.calibrate), ("measure", self.measure)):
            if len(part) < LEAST:
                raise InputError(f"{len(part)} records to {name} on are too few: each part needs {LEAST}")
            if part.schema != self.fit.schema:
                raise InputError("the parts' schemas differ")

    @classmethod
    def by_chance(cls, clean: Table, rng: np.random.Generator) -> Parts:
        """Each record in a part by chance. For records that are independent."""
        first, second = _cuts(len(clean))
        order = rng.permutation(len(clean))
        return cls(clean.take(order[:first]), clean.take(order[first:second]), clean.take(order[second:]))

    @classmethod
    def in_order(cls, clean: Table, gap: int) -> Parts:
        """The earliest records to fit, the latest to measure; `gap` records between parts are left out."""
        if gap < 0:
            raise InputError(f"a gap is 0 or more records, not {gap}")
        first, second = _cuts(len(clean))
        rows = np.arange(len(clean))
        return cls(clean.take(rows[:first]), clean.take(rows[first + gap : second]), clean.take(rows[second + gap :]))


def _cuts(n: int) -> tuple[int, int]:
    return round(n * SHARES[0]), round(n * (SHARES[0] + SHARES[1]))


def resampled(table: Table, count: int, rows: int, rng: np.random.Generator, *, twice: bool) -> Iterator[Floats]:
    """`count` clean batches of `rows` records, drawn with replacement, some (b, rows, columns) at a time.

    With `twice` each AT_ONCE of them come from a resample of the table first: so batches vary as they would between
    tables of this size, and a threshold set on them is good for another table of the same source (the double
    bootstrap: R. Beran, Biometrika 74, 1987).
    """
    for start in range(0, count, AT_ONCE):
        values = table.values
        if twice:
            values = values[rng.integers(len(values), size=len(values))]
        yield values[rng.integers(len(values), size=(min(AT_ONCE, count - start), rows))]
