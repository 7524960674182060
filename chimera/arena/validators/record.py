"""What a validator remembers between rounds: the throne, and how far it has seen each chain."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field, ValidationError

from chimera.arena.duel.types import DuelResult
from chimera.arena.types import Count, HexHash, Hotkey
from chimera.arena.validators.sampler import MAX_DUELS, RoundPlan
from chimera.arena.validators.throne import Ruling, Throne
from chimera.core.errors import StorageError
from chimera.core.types import Frozen
from chimera.storage.state import StateStore


class Head(Frozen):
    """The last block of a chain that was found good. A chain that has lost it was rewritten."""

    index: Count
    hash: HexHash


class Record(Frozen):
    """The throne after the last ruling, the duels that are on, and the heads of all chains as they were then.

    The champion's duels with all contenders began at `opened_s` (seconds since the epoch): only evidence from then on
    counts in them, and the ratio to beat is what it was then. `ended` are those that are over. `settled_s` is the time
    of the last ruling, and `weights_set` whether the chain has taken its weights.
    """

    throne: Throne
    opened_s: Count = 0
    ended: Annotated[tuple[DuelResult, ...], Field(max_length=MAX_DUELS)] = ()
    settled_s: Count = 0
    weights_set: bool = False
    heads: Annotated[dict[Hotkey, Head], Field(max_length=256)] = Field(default_factory=dict)

    @property
    def p0(self) -> float:
        """The ratio to beat, as it was when the duels began."""
        return self.throne.ratchet.ratio_at(self.opened_s)

    def at(self, now_s: int, plan: RoundPlan, champion_id: str) -> Record:
        """This record as it is at `now_s`: one that never settled is in the window of duels that everybody is in, and a
        champion that has left the subnet leaves the throne to `champion_id`."""
        record = self if self.settled_s else self.model_copy(update={"opened_s": now_s - now_s % plan.window_s})
        if any(miner.miner_id == self.throne.champion for miner in plan.miners):
            return record
        throne = Throne(champion=champion_id, since_s=self.throne.since_s, round=self.throne.round)
        return record.model_copy(update={"throne": throne, "ended": ()})

    def after(self, ruling: Ruling, plan: RoundPlan, heads: Mapping[str, Head]) -> Record:
        """What to remember after a ruling, and of the chains.

        The duels are over with the reign, when each has ended, or with their window. Then the next ones begin, with
        evidence of their own, and a ratio that has decayed since. Windows are the same for all validators, also for one
        that has missed a ruling.
        """
        throne, now_s = self.throne.after(ruling), ruling.decided_s
        duels = [duel for total in ruling.duels for duel in total.duels]
        ended = tuple(duel for duel in duels if duel.decision != "inconclusive" or duel.decisive >= duel.rule.budget)
        most = len(plan.contenders(self.throne.champion)) * len(plan.env_ids)
        opened_s = max(self.opened_s, now_s - now_s % plan.window_s)
        if throne.champion != self.throne.champion or len(ended) >= most:
            opened_s = max(self.opened_s, now_s)
        if opened_s > self.opened_s:
            ended = ()
        return Record(throne=throne, opened_s=opened_s, ended=ended, settled_s=now_s, heads=dict(heads))

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
