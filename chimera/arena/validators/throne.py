"""Who is champion, since when, and what it takes to beat it; and how a round is ruled."""

from __future__ import annotations

from collections.abc import Iterable

from chimera.arena.duel.aggregate import AggregateResult
from chimera.arena.duel.ratchet import Ratchet
from chimera.arena.duel.types import Probability
from chimera.arena.types import Count, MinerId
from chimera.core.errors import InputError
from chimera.core.types import Frozen


class Ruling(Frozen):
    """Who has the throne after a round: `winner`, which is `champion` if it stays.

    `duels` are the contenders' results, by their ids; `p0` is the ratio that they had to beat. `win_rates` are the new
    champion's in the environments that it won.
    """

    round: Count
    champion: MinerId
    winner: MinerId
    decided_s: Count
    p0: Probability
    duels: tuple[AggregateResult, ...]
    win_rates: tuple[Probability, ...] = ()

    def weights(self, miners: Iterable[str]) -> dict[str, float]:
        """Winner takes all: 1.0, and 0.0 for the rest of `miners`. All are 0.0 when the winner is not among them."""
        return {miner: float(miner == self.winner) for miner in sorted(miners)}


class Throne(Frozen):
    """A reign. Evidence from before `since_s` (seconds since the epoch) is of another reign, and counts no more.

    `round` is the number of rulings there were: validators in the same round have the same throne.
    """

    champion: MinerId
    ratchet: Ratchet = Ratchet()
    since_s: Count = 0
    round: Count = 0

    def after(self, ruling: Ruling) -> Throne:
        """The throne after a ruling on it. Raises InputError for a ruling on another."""
        if (ruling.champion, ruling.round) != (self.champion, self.round):
            raise InputError(
                f"this ruling is on {ruling.champion} in round {ruling.round},"
                f" and the throne is {self.champion}'s in round {self.round}"
            )
        if ruling.winner == self.champion:
            return self.model_copy(update={"round": self.round + 1})
        since_s = max(self.since_s, ruling.decided_s)
        ratchet = self.ratchet.after_win(ruling.win_rates, since_s)
        return Throne(champion=ruling.winner, ratchet=ratchet, since_s=since_s, round=self.round + 1)
