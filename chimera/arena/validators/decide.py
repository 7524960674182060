"""The global duel: every contender against the champion, over the union of all that is believed; the winner takes all.

One look, by a rule whose error is bounded over *all* looks. Each validator may stop sampling when it likes: whose sample
comes next is settled by what came before, so the union is one walk whose every step wins with the same chance, seen at
one moment that the walk itself chose. `calibrated` bounds the chance that *any* moment within the budget deceives, so
looking at one, or at one in every round of a reign, deceives no more often. Weights that are not equal make this an
approximation, after Kish; see docs/evidence.md.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from fractions import Fraction
from typing import Annotated

from pydantic import Field

from chimera.arena.canonical import Plain
from chimera.arena.duel.aggregate import AggregateResult, total
from chimera.arena.duel.rules import StoppingRule, make_rule
from chimera.arena.duel.types import MAX_BUDGET, DuelResult, Probability, RuleName
from chimera.arena.types import Count, EnvId, MinerId
from chimera.arena.validators.merged import Merged, Tally
from chimera.core.errors import ChimeraError
from chimera.core.types import Frozen


class Terms(Frozen):
    """What a global duel is fought over, and by which rule. `alpha` is for one contender in one environment.

    `budget` is in decisive samples of the whole union: more than that do no harm, and help no further.
    """

    env_ids: Annotated[tuple[EnvId, ...], Field(min_length=1, max_length=64)]
    rule: RuleName = "calibrated"
    alpha: Probability = 0.05
    budget: Annotated[int, Field(ge=1, le=MAX_BUDGET)] = 2_000
    k: Annotated[int, Field(ge=0)] = 1


class Ruling(Frozen):
    """Who has the throne after a round. `duels` are the contenders' results, by their ids; `p0` the ratio to beat.

    `win_rates` are the winner's in the environments that it won, none where the champion stays.
    """

    round: Count
    champion: MinerId
    winner: MinerId
    decided_s: Count
    p0: Probability
    duels: tuple[AggregateResult, ...]
    win_rates: tuple[Probability, ...] = ()

    def weights(self, miners: Iterable[str]) -> dict[str, float]:
        """Winner takes all: 1.0, and 0.0 for the rest of `miners`; all 0.0 if the winner is none of them."""
        return {miner: float(miner == self.winner) for miner in sorted(miners)}
