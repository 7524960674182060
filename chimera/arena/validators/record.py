"""What a validator remembers between rounds: the throne, and how far it has seen each chain."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field, ValidationError

from chimera.arena.types import Count, HexHash, Hotkey
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

    The champion's duels with all contenders began at `opened_s` (seconds since the epoch), and had `rulings` since.
    Only evidence from then on counts in them, and the ratio to beat is what it was then.
    """

    throne: Throne
    opened_s: Count = 0
    rulings: Count = 0
    heads: Annotated[dict[Hotkey, Head], Field(max_length=256)] = Field(default_factory=dict)

    @property
    def p0(self) -> float:
        """The ratio to beat, as it was when the duels began."""
        return self.throne.ratchet.ratio_at(self.opened_s)

    def after(self, ruling: Ruling, *, rounds: int, heads: Mapping[str, Head]) -> Record:
        """What to remember after a ruling. Duels end with the reign, or undecided after so many `rounds`; with the next
        ones the ratio is set anew, and evidence begins anew."""
        throne = self.throne.after(ruling)
        over = throne.champion != self.throne.champion or self.rulings + 1 >= rounds
        return Record(
            throne=throne,
            opened_s=max(self.opened_s, ruling.decided_s) if over else self.opened_s,
            rulings=0 if over else self.rulings + 1,
            heads={**self.heads, **heads},
        )


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
