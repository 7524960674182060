"""One duel in one environment: outcomes in, a result out as soon as the stopping rule has one. Pure: asks nobody."""

from __future__ import annotations

from pydantic import ValidationError

from chimera.arena.duel.rules import StoppingRule
from chimera.arena.duel.types import Decision, DuelResult, Outcome
from chimera.core.errors import InputError


class SequentialDuel:
    """Counts outcomes until the rule decides or the budget is spent.

    A tie uses up budget and is not a decisive sample, so a duel of nothing but ties ends inconclusive at its budget.
    Ties only take looks away: a duel with ties is one without, cut short, so it errs no more than the rule says.
    Raises InputError for names that no result could hold.
    """

    def __init__(self, rule: StoppingRule, *, env_id: str, champion: str, contender: str) -> None:
        try:  # names are checked before anything is spent on them
            self._begun = DuelResult(
                env_id=env_id,
                champion=champion,
                contender=contender,
                decision="inconclusive",
                wins=0,
                losses=0,
                ties=0,
                low=0.0,
                high=1.0,
                rule=rule.record(),
            )
        except ValidationError as error:
            first = error.errors()[0]
            raise InputError(f"no duel can be held: {first['loc'][0]} {first['input']!r}: {first['msg']}") from error
        self.rule = rule
        self.wins = 0
        self.losses = 0
        self.ties = 0
        self._result: DuelResult | None = None

    @property
    def samples(self) -> int:
        """Challenges so far, ties among them."""
        return self.wins + self.losses + self.ties

    @property
    def interval(self) -> tuple[float, float]:
        """What the samples so far leave possible of the contender's win rate."""
        return self.rule.interval(self.wins, self.wins + self.losses)

    @property
    def result(self) -> DuelResult | None:
        """How the duel ended; None while it goes on."""
        return self._result

    def record(self, outcome: Outcome) -> DuelResult | None:
        """Count the outcome of the next challenge; the result, if this ends the duel.

        Raises ValueError once the duel has ended: what comes later must not change what was decided.
        """
        if self._result is not None:
            raise ValueError(f"the duel has ended ({self._result.decision}): nothing more can be recorded")
        if outcome == "tie":
            self.ties += 1
        elif outcome == "win":
            self.wins += 1
        elif outcome == "loss":
            self.losses += 1
        else:
            raise ValueError(f"an outcome is win, loss or tie, not {outcome!r}")
        side = None if outcome == "tie" else self.rule.decide(self.wins, self.wins + self.losses)
        if side is not None:
            self._end(side)
        elif self.samples == self.rule.budget:
            self._end("inconclusive")
        return self._result

    def _end(self, decision: Decision) -> None:
        low, high = self.interval
        counts = {"wins": self.wins, "losses": self.losses, "ties": self.ties}
        self._result = self._begun.model_copy(update={"decision": decision, "low": low, "high": high, **counts})
