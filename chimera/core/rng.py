"""Random numbers come from a seeded generator handed in; a seed is derived from names, not from chance."""

from __future__ import annotations

import random

from chimera.core.hashing import digest


def derive_seed(*names: str | int) -> int:
    """A 64-bit seed from names. Equal names give equal seeds, in every process."""
    return int(digest(list(names), size_bytes=8), 16)


def rng(*names: str | int) -> random.Random:
    """A generator of its own for `names`: what one agent draws never shifts what another draws."""
    return random.Random(derive_seed(*names))
