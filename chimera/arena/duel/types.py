"""What a duel is told and what it says: outcomes, rules on record, results."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from chimera.arena.types import EnvId, MinerId, Verdict
from chimera.core.types import Frozen

Outcome = Literal["win", "loss", "tie"]
"""Of one challenge, from the contender's side. A tie: both were right, or both were wrong."""

Decision = Literal["contender", "champion", "inconclusive"]
"""`contender`: it beats the ratio. `champion`: it does not. `inconclusive`: the budget is spent."""

RuleName = Literal["wilson", "calibrated", "mixture"]

MAX_BUDGET = 100_000
"""Challenges in one duel."""

Probability = Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False)]


def outcome(champion: Verdict, contender: Verdict) -> Outcome:
    """Who was better at one challenge."""
    if champion.ok == contender.ok:
        return "tie"
    return "win" if contender.ok else "loss"


class RuleRecord(Frozen):
    """A stopping rule as a verdict records it.

    `z` is the normal quantile of the interval that is looked at after each sample (None for `mixture`, which has none);
    `p0` the ratio to beat; `error_contender` and `error_champion` the exact chances, at p = p0, of stopping for that
    side within the budget.
    """

    name: RuleName
    z: float | None
    p0: Probability
    alpha: Probability
    budget: Annotated[int, Field(ge=1)]
    error_contender: Probability
    error_champion: Probability


class DuelResult(Frozen):
    """How one duel in one environment ended. `low` and `high` bound the contender's win rate among decisive samples."""

    env_id: EnvId
    champion: MinerId
    contender: MinerId
    decision: Decision
    wins: Annotated[int, Field(ge=0)]
    losses: Annotated[int, Field(ge=0)]
    ties: Annotated[int, Field(ge=0)]
    low: Probability
    high: Probability
    rule: RuleRecord

    @property
    def decisive(self) -> int:
        """Samples that were no ties."""
        return self.wins + self.losses
