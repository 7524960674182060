"""Where a duel stops, and how likely: the boundary of a stopping rule and its exact chances of crossing it.

A duel is a walk: n decisive samples, of which `wins` went to the contender. A rule stops it where the wins reach a
boundary above, or fall to one below. How likely each is follows exactly, one sample after another, with no simulation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

Side: TypeAlias = Literal["contender", "champion"]

Decide: TypeAlias = Callable[[int, int], Side | None]
"""(wins, decisive samples) -> for whom to stop there, or None."""

Counts: TypeAlias = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Boundary:
    """The counts of wins that stop a duel, by the number n of decisive samples: arrays of shape (budget + 1,).

    `contender[n]` is the fewest wins that stop it for the contender, n + 1 where none do; `champion[n]` the most wins
    that stop it for the champion, -1 where none do.
    """

    contender: Counts
    champion: Counts

    @property
    def budget(self) -> int:
        return len(self.contender) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Exits:
    """How a duel ends: the chance of stopping for either side within the budget, and the expected number of samples."""

    contender: float
    champion: float
    samples: float

    @property
    def inconclusive(self) -> float:
        return max(0.0, 1.0 - self.contender - self.champion)


def trace(decide: Decide, budget: int) -> Boundary:
    """The boundary of a rule, in 2 * budget questions and memory in proportion to the budget.

    One question a side and sample is enough for a sensible rule: where so many wins stop a duel, as many and one more
    stop it one won sample later; where they do not, they do not after one more sample that is lost. So each boundary
    rises by 0 or by 1.
    """
    contender = np.empty(budget + 1, dtype=np.int32)
    champion = np.empty(budget + 1, dtype=np.int32)
    fewest, most = 1, -1
    contender[0], champion[0] = fewest, most
    for n in range(1, budget + 1):
        if decide(fewest, n) != "contender":
            fewest += 1
        if decide(most + 1, n) == "champion":
            most += 1
        contender[n], champion[n] = fewest, most
    contender.flags.writeable = champion.flags.writeable = False
    return Boundary(contender=contender, champion=champion)


def exits(boundary: Boundary, p: float) -> Exits:
    """How a duel ends whose every decisive sample is the contender's with chance `p`, when none is a tie. Exact.

    Dynamic programming over (n, wins): the chance of every count of wins that has not stopped yet is carried from n to
    n + 1, and what crosses the boundary is taken out. As boundaries rise by 0 or 1, that is one count a side at most.
    Source: P. Armitage, C. K. McPherson, B. C. Rowe, "Repeated Significance Tests on Accumulating Data", JRSS A 132
    (1969).
    """
    alive = np.ones(1)
    least = 0  # the wins of alive[0]
    won = held = samples = 0.0
    for n in range(1, boundary.budget + 1):
        grown = np.empty(len(alive) + 1)
        np.multiply(alive, 1.0 - p, out=grown[:-1])
        grown[-1] = 0.0
        grown[1:] += alive * p
        first, last = 0, len(grown)
        if least + last > boundary.contender[n]:
            last -= 1
            won += float(grown[last])
            samples += n * float(grown[last])
        if last > 0 and least <= boundary.champion[n]:
            first = 1
            held += float(grown[0])
            samples += n * float(grown[0])
        alive = grown[first:last]
        least += first
    samples += boundary.budget * float(alive.sum())
    return Exits(contender=min(1.0, won), champion=min(1.0, held), samples=samples)
