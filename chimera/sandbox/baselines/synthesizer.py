"""What every synthesizer can do, so that they are compared on the same terms."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

from chimera.core.errors import InputError
from chimera.sandbox.privacy.gaussian import sigma_for
from chimera.sandbox.privacy.ledger import PrivacyLedger
from chimera.sandbox.schema import Table

MOST_RECORDS = 1_000_000


class Synthesizer(Protocol):
    """Learns from a table once, and makes records like its own. `ledger` has all that it released of the table."""

    name: str
    ledger: PrivacyLedger

    def fit(self, table: Table, *, epsilon: float, delta: float, seed: int) -> None:
        """Learn from `table` within that budget; an infinite epsilon is no noise."""

    def sample(self, n: int, seed: int) -> Table:
        """`n` records. Raises InputError before `fit`."""


def shared_noise(*, epsilon: float, delta: float, shares: Sequence[float]) -> tuple[float, ...]:
    """The noise multipliers of full-batch releases that together cost `epsilon`; `shares` of it, which come to 1.

    Gaussian releases of noise multipliers s_i compose to one of (sum of s_i^-2)^-1/2 (Dong, Roth, Su 2022), so one
    analytic Gaussian is calibrated and its squared signal-to-noise ratio divided. All 0 for an infinite epsilon.
    """
    if abs(sum(shares) - 1.0) > 1e-9 or min(shares) <= 0.0:
        raise InputError(f"shares {tuple(shares)} must be positive, and come to 1")
    together = sigma_for(epsilon=epsilon, delta=delta)
    return tuple(together / math.sqrt(share) for share in shares)


def check_table(table: Table) -> None:
    """Raises InputError where there is nothing to learn from."""
    if not len(table):
        raise InputError("an empty table has nothing to learn from")


def check_count(n: int) -> None:
    """Raises InputError for more records than are made at once."""
    if not 0 <= n <= MOST_RECORDS:
        raise InputError(f"{n} records: 0 to {MOST_RECORDS} are made at once")
