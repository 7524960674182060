"""Challenges are drawn from a stream of bytes that is the same on every machine and under every version.

NumPy's and Python's generators promise that only for some of their methods. Source of the stream: BLAKE3 in its
extendable-output mode (section 2.6 of the BLAKE3 paper); uniform numbers come from it by rejection sampling.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from blake3 import blake3

T = TypeVar("T")

SEED_PREFIX = "seed:"
"""`seed:42` is the challenge that `reset(seed=42)` deals."""

MAX_SEED = 2**63 - 1

_SEED = "chimera.arena 2026-11 challenge id to seed"
_STREAM = "chimera.arena 2026-11 seed to challenge"


def seed_of(challenge_id: str) -> int:
    """The seed, 0..2^63-1, of a challenge. `seed:N` has seed N; any other id is hashed."""
    text = challenge_id.removeprefix(SEED_PREFIX)
    if text != challenge_id and text.isascii() and text.isdigit() and text == str(int(text[:20])):
        seed = int(text)
        if seed <= MAX_SEED:
            return seed
    hashed = blake3(challenge_id.encode(), derive_key_context=_SEED).digest(8)
    return int.from_bytes(hashed, "big") & MAX_SEED


class Stream:
    """Uniform random draws for one challenge of one environment: equal arguments give equal draws, everywhere."""

    def __init__(self, env_id: str, seed: int) -> None:
        self._hash = blake3(f"{env_id}\n{seed}".encode(), derive_key_context=_STREAM)
        self._at = 0

    def bytes(self, count: int) -> bytes:
        """The next `count` bytes."""
        drawn = self._hash.digest(count, seek=self._at)
        self._at += count
        return drawn

    def below(self, limit: int) -> int:
        """A number from 0 to `limit - 1`, each as likely. Raises ValueError for a limit under 1."""
        if limit < 1:
            raise ValueError(f"a limit is at least 1, not {limit}")
        size = (limit.bit_length() + 14) // 8  # at least seven bits to spare: less than one draw in 128 is refused
        fair = (1 << 8 * size) // limit * limit
        while (drawn := int.from_bytes(self.bytes(size), "big")) >= fair:
            pass
        return drawn % limit

    def between(self, low: int, high: int) -> int:
        """A number from `low` to `high`, both included."""
        return low + self.below(high - low + 1)

    def choice(self, values: Sequence[T]) -> T:
        """One of `values`, each as likely."""
        return values[self.below(len(values))]

    def shuffled(self, values: Sequence[T]) -> list[T]:
        """`values` in a random order, each as likely (Fisher and Yates)."""
        order = list(values)
        for at in range(len(order) - 1, 0, -1):
            other = self.below(at + 1)
            order[at], order[other] = order[other], order[at]
        return order
