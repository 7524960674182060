"""What a validator remembers between rounds: the throne, and how far it has seen each chain."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field, ValidationError

from chimera.arena.duel.aggregate import MAX_ENVIRONMENTS
from chimera.arena.duel.types import DuelResult
from chimera.arena.types import Count, HexHash, Hotkey
from chimera.arena.validators.sampler import MAX_MINERS, RoundPlan
from chimera.arena.validators.throne import Ruling, Throne
from chimera.core.errors import StorageError
from chimera.core.types import Frozen
from chimera.storage.state import StateStore

MAX_ENDED = MAX_MINERS * MAX_ENVIRONMENTS


class Head(Frozen):
    """The last block of a chain that was found good. A chain that has lost it was rewritten."""

    index: Count
    hash: HexHash


class Record(Frozen):
    """The throne after the last ruling, the duels that are on, and the heads of all chains as they were then.

    The champion's duels with all contenders began at `opened_s` (seconds since the epoch), and had `rulings` since.
    Only evidence from then on counts in them, and the ratio to beat is what it was then. `ended` are those decided.
    """

    throne: Throne
    opened_s: Count = 0
    rulings: Count = 0
    ended: Annotated[tuple[DuelResult, ...], Field(max_length=MAX_ENDED)] = ()
    heads: Annotated[dict[Hotkey, Head], Field(max_length=256)] = Field(default_factory=dict)

    @property
    def p0(self) -> float:
        """The ratio to beat, as it was when the duels began."""
        return self.throne.ratchet.ratio_at(self.opened_s)

    def among(self, plan: RoundPlan, champion_id: str) -> Record:
        """This record, unless the champion has left the subnet: then `champion_id` reigns, and new duels begin."""
        if any(miner.miner_id == self.throne.champion for miner in plan.miners):
            return self
        throne = Throne(champion=champion_id, since_s=self.throne.since_s, round=self.throne.round)
        return Record(throne=throne, opened_s=self.opened_s, heads=self.heads)

    def after(self, ruling: Ruling, plan: RoundPlan, heads: Mapping[str, Head]) -> Record:
        """What to remember after a ruling.

        The duels are over with the reign, when each has ended, or after `plan.rounds` rulings. Then the next ones
        begin, with evidence of their own, and a ratio that has decayed since.
        """
        throne, rulings = self.throne.after(ruling), self.rulings + 1
        duels = [duel for total in ruling.duels for duel in total.duels]
        ended = tuple(duel for duel in duels if duel.decision != "inconclusive" or duel.decisive >= duel.rule.budget)
        most = len(plan.contenders(self.throne.champion)) * len(plan.env_ids)
        seen = {**self.heads, **heads}
        if throne.champion != self.throne.champion or len(ended) >= most or rulings >= plan.rounds:
            return Record(throne=throne, opened_s=max(self.opened_s, ruling.decided_s), heads=seen)
        return Record(throne=throne, opened_s=self.opened_s, rulings=rulings, ended=ended, heads=seen)

    def has_ended(self, env_id: str, contender_id: str) -> bool:
        """Whether the duel of the champion with a contender is over in an environment."""
        return any((duel.env_id, duel.contender) == (env_id, contender_id) for duel in self.ended)


def key_of(netuid: int, hotkey: str) -> str:
    """Where a validator's record is kept in a state store."""
    return f"arena/{netuid}/{hotkey}"


async def read_record(store: StateStore, key: str) -> tuple[Record | None, int]:
    """What is kept under `key`, and its version (0 for nothing). Raises StorageError for what is no record."""
    kept = await store.get(key)
    if kept is None:
        return None, 0
    try:
        return Record.model_validate(kept.value), kept.version
    except ValidationError as error:
        raise StorageError(f"{key} is not a validator's record: {error.errors()[0]['msg']}; delete it") from error


async def write_record(store: StateStore, key: str, record: Record, *, expected: int) -> int:
    """Keep `record`, if nobody has changed it since it was read; its version. Raises StateConflict."""
    return await store.put(key, record.model_dump(mode="json"), expected=expected)
