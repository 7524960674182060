"""Names of challenges that say who may draw them and in what order, so that nobody can choose the easy ones.

A validator's own challenges are counted: `own/HOTKEY/COUNTER`. The shared ones, which all validators meet, follow from
a public beacon: `beacon/ROUND/RANDOMNESS/I`. Both counts have no gaps, so a sample that was left out shows.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from chimera.arena.canonical import MAX_INT
from chimera.core.errors import InputError

MAX_SHARED = 256
"""Shared challenges of one beacon round, in one environment, between the same two miners."""

_NUMBER = r"(0|[1-9][0-9]{0,15})"
_OWN = re.compile(rf"own/([1-9A-HJ-NP-Za-km-z]{{46,50}})/{_NUMBER}")
_SHARED = re.compile(rf"beacon/{_NUMBER}/([0-9a-f]{{64}})/{_NUMBER}")


@dataclass(frozen=True, slots=True)
class Own:
    """A challenge of one validator's own. `counter` is its number among that validator's in the environment, from 0."""

    hotkey: str
    counter: int


@dataclass(frozen=True, slots=True)
class Shared:
    """A challenge that a beacon's round deals to everybody. `index` counts from 0; `randomness` is 64 hex digits."""

    round: int
    randomness: str
    index: int


def own_id(hotkey: str, counter: int) -> str:
    """The id of a validator's own challenge. Raises InputError for what `parse` would not read."""
    return _checked(f"own/{hotkey}/{counter}")


def shared_id(round: int, randomness: str, index: int) -> str:
    """The id of a shared challenge. Raises InputError for what `parse` would not read, such as an index of 256."""
    return _checked(f"beacon/{round}/{randomness}/{index}")


def parse(challenge_id: str) -> Own | Shared | None:
    """What an id says; None for any id that no validator may draw. Each challenge has exactly one id."""
    if (own := _OWN.fullmatch(challenge_id)) and int(own[2]) <= MAX_INT:
        return Own(own[1], int(own[2]))
    shared = _SHARED.fullmatch(challenge_id)
    if shared and int(shared[1]) <= MAX_INT and int(shared[3]) < MAX_SHARED:
        return Shared(int(shared[1]), shared[2], int(shared[3]))
    return None


def _checked(challenge_id: str) -> str:
    if parse(challenge_id) is None:
        raise InputError(
            f"{challenge_id!r} names no challenge: use own/HOTKEY/COUNTER or beacon/ROUND/RANDOMNESS/I with 64"
            f" lower-case hex digits of randomness, whole numbers from 0, and I under {MAX_SHARED}"
        )
    return challenge_id
