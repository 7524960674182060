"""How long to wait before everybody is asked again: exponential backoff with full jitter. It never sleeps itself.

Source: M. Brooker, "Timeouts, retries, and backoff with jitter", Amazon Builders' Library.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from chimera.core.errors import InputError

MAX_ROUNDS = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """At most so many `rounds`, and between them pauses of up to `base_s`, twice that, four times ... `longest_s`."""

    rounds: int = 4
    base_s: float = 0.5
    longest_s: float = 20.0

    def __post_init__(self) -> None:
        if not 1 <= self.rounds <= MAX_ROUNDS or not 0.0 <= self.base_s <= self.longest_s < float("inf"):
            raise InputError(f"{self}: give 1 to {MAX_ROUNDS} rounds, and 0 <= base_s <= longest_s")

    def pause_s(self, failed: int, rng: random.Random, at_least_s: float = 0.0) -> float | None:
        """Seconds to wait after the `failed`-th round that failed (from 1); None to give up.

        `at_least_s` is what the other side asked for. What is drawn comes on top of it, or all who were told the same
        would come back at the same moment. So it is from `at_least_s` to `at_least_s + longest_s`.
        """
        if failed >= self.rounds:
            return None
        return at_least_s + rng.uniform(0.0, min(self.longest_s, self.base_s * 2.0 ** (failed - 1)))
