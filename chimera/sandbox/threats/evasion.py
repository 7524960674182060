"""The search for a batch that a detector sees least of: it needs the detector's scores and nothing else of it.

A (1 + tries) evolution strategy over a bias's direction, the choice of records and their spread: I. Rechenberg,
"Evolutionsstrategie" (1973). Detectors have no gradient here, and attackers seldom have one.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from chimera.core.errors import InputError
from chimera.sandbox.schema import Floats, Integers
from chimera.sandbox.threats.kinds import Mask

TRIES = 16
"""Candidates of one round."""

NEW_ROWS = 0.15
"""The share of records that a candidate chooses anew."""

TIGHTEST, WIDEST = 0.7, 1.3
"""How far the records' spread may be changed."""

CALMER, BOLDER = 0.8, 1.25
"""What becomes of the step after a round without and with a gain."""


def unit(directions: Floats, rooms: Floats, live: Mask) -> Floats:
    """`directions` (tries, columns) with a root mean square of 1 over the `live` columns, none beyond its room.

    `rooms` is (2, columns): how far down and up. What a bound cuts off, the other columns take over.
    Raises InputError where the bounds do not allow it.
    """
    down, up = -rooms[0] * live, rooms[1] * live
    found = np.clip(np.where(live, directions, 0.0), down, up)
    norm = np.sqrt(max(int(live.sum()), 1))
    for _ in range(50):
        length = np.linalg.norm(found, axis=1, keepdims=True)
        if (np.abs(length - norm) <= 1e-9 * norm).all() or not live.any():
            return found
        found = np.clip(found * norm / np.maximum(length, 1e-12), down, up)
    stuck = np.abs(np.linalg.norm(found, axis=1) - norm) > 1e-6 * norm
    farthest = np.where(-down > up, down, up)
    most = float(np.linalg.norm(farthest))
    if most < norm:
        raise InputError(
            f"the ranges do not allow so large a bias: the largest is {most / norm:.4g} times what was asked for"
        )
    found[stuck] = farthest * norm / most
    return found


class Search:
    """Proposes candidates, and is told their scores."""

    def __init__(
        self, rows: int, pool: int, bounded: Callable[[Floats], Floats], rng: np.random.Generator, tries: int = TRIES
    ) -> None:
        self.tries = tries
        self._rows, self._pool, self._bounded, self._rng = rows, pool, bounded, rng
        self._asked: tuple[Floats, Integers, Floats] | None = None
        self._best: tuple[Floats, Integers, float] | None = None
        self._lowest = np.inf
        self._step = 0.5

    def ask(self, tries: int, natural: Floats) -> tuple[Floats, Integers, Floats]:
        """Directions (tries, columns), records (tries, rows) of the pool, and spreads (tries,).

        The first round tries `natural` directions (k, columns) and signs by chance; later ones vary the best.
        """
        rng, columns = self._rng, natural.shape[1]
        if self._best is None:
            directions = rng.choice([-1.0, 1.0], (tries, columns))
            told = min(len(natural), tries // 2)
            directions[:told] = natural[:told] * rng.choice([-1.0, 1.0], (told, 1))
            rows = rng.integers(self._pool, size=(tries, self._rows))
            spreads = np.ones(tries)
        else:
            direction, chosen, spread = self._best
            directions = direction + self._step * rng.standard_normal((tries, columns))
            anew = rng.random((tries, self._rows)) < NEW_ROWS
            rows = np.where(anew, rng.integers(self._pool, size=anew.shape), chosen)
            spreads = np.clip(spread + 0.1 * self._step * rng.standard_normal(tries), TIGHTEST, WIDEST)
        self._asked = self._bounded(directions), rows, spreads
        return self._asked

    def tell(self, scores: Floats) -> None:
        """The scores (tries,) of what was asked last."""
        if self._asked is None:
            raise InputError("scores of candidates that nobody asked for")
        best = int(scores.argmin())
        gained = scores[best] < self._lowest
        if gained or self._best is None:
            directions, rows, spreads = self._asked
            self._best, self._lowest = (directions[best], rows[best], float(spreads[best])), float(scores[best])
        self._step = float(np.clip(self._step * (BOLDER if gained else CALMER), 0.02, 1.0))
