"""Who is champion, since when, and what it takes to beat it."""

from __future__ import annotations

from chimera.arena.duel.ratchet import Ratchet
from chimera.arena.types import Count, MinerId
from chimera.arena.validators.decide import Ruling
from chimera.core.errors import InputError
from chimera.core.types import Frozen


class Throne(Frozen):
    """A reign. Evidence from before `since_s` (seconds since the epoch) is of another reign, and counts no more.

    `round` is the number of rulings there were: validators that are in the same round have the same throne.
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
