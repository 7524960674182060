"""What a merge comes to: who stands how, what was done wrong, and the counts that a global duel is decided by.

Integers and strings only, in one order, so that whoever merges the same blocks writes the same bytes.
"""

from __future__ import annotations

from typing import Annotated, Literal, NamedTuple, TypeAlias

from pydantic import Field

from chimera.arena.canonical import encode
from chimera.arena.types import Count, EnvId, HexHash, Hotkey, MinerId
from chimera.arena.validators.audit import FaultKind
from chimera.core.types import Frozen

MILLION = 1_000_000
"""Trust is counted in parts of this."""

MAX_NODES = 2**28
"""Values in what a merge comes to: 256 validators with 32,768 duels each, and slices, of some ten values."""

Ppm = Annotated[int, Field(ge=0, le=MILLION, strict=True)]


class Pairing(NamedTuple):
    """Two miners in one environment: what one duel is about."""

    env_id: str
    champion: str
    contender: str


class Tally(NamedTuple):
    """Outcomes counted from the contender's side."""

    wins: int = 0
    losses: int = 0
    ties: int = 0

    @property
    def total(self) -> int:
        return self.wins + self.losses + self.ties

    @property
    def decisive(self) -> int:
        return self.wins + self.losses

    def plus(self, other: Tally) -> Tally:
        return Tally(self.wins + other.wins, self.losses + other.losses, self.ties + other.ties)


WIN, LOSS, TIE = Tally(wins=1), Tally(losses=1), Tally(ties=1)


OffenceKind: TypeAlias = FaultKind | Literal["fork", "truncated"]
"""What an audit finds in a chain, and beyond it: `fork`, two signed blocks of one index; `truncated`, a block that was
there is not any more. All of them are proved by what the validator has signed.
"""


class Offence(Frozen):
    """Why a validator's evidence counts for nothing. `block_index` is where in its chain it came to light."""

    kind: OffenceKind
    hotkey: Hotkey
    block_index: Count
    message: Annotated[str, Field(max_length=1_000)]


class SetAside(Frozen):
    """A validator whose own challenges between two miners are not counted; see `trust.set_aside`. It is no offence."""

    hotkey: Hotkey
    env_id: EnvId
    champion: MinerId
    contender: MinerId


class Standing(Frozen):
    """One validator: of `compared` verdicts on shared challenges that a consensus was found on, `agreed` are its.

    `stake_ppm` is its part of all stake, rounded down; `samples` are those that were counted. `head_index` and
    `head_hash` are the last block to remember (-1 and empty for none): of an offender, the one that was known before.
    """

    hotkey: Hotkey
    stake_ppm: Ppm
    trust_ppm: Ppm
    agreed: Count
    compared: Count
    samples: Count
    head_index: Annotated[int, Field(ge=-1, strict=True)]
    head_hash: HexHash | Literal[""]


class _Counted(Frozen):
    """Outcomes between two miners in one environment, each of which weighs `weight_ppm`."""

    env_id: EnvId
    champion: MinerId
    contender: MinerId
    wins: Count
    losses: Count
    ties: Count
    weight_ppm: Ppm

    @property
    def pairing(self) -> Pairing:
        return Pairing(self.env_id, self.champion, self.contender)

    @property
    def tally(self) -> Tally:
        return Tally(self.wins, self.losses, self.ties)


class OwnCount(_Counted):
    """What one trusted validator's own challenges came to, and their weight; see `trust.weigh`."""

    hotkey: Hotkey


class SharedCount(_Counted):
    """What shared challenges of one weight came to, each once however many met it: for readers, and for no ruling."""


class Merged(Frozen):
    """The union of all validators' evidence. Equal for equal evidence, in whatever order it came.

    `unread` are those whose store was out of reach or refused: they took no part, which is no offence. Neither is to be
    `set_aside`.
    """

    standings: tuple[Standing, ...]
    offences: tuple[Offence, ...]
    unread: tuple[Hotkey, ...]
    own: tuple[OwnCount, ...]
    shared: tuple[SharedCount, ...]
    set_aside: tuple[SetAside, ...] = ()

    def to_bytes(self) -> bytes:
        """Canonical bytes (RFC 8785)."""
        return encode(self.model_dump(), most_nodes=MAX_NODES)

    def trust_of(self, hotkey: str) -> int:
        """In ppm; 0 for a validator that is not here."""
        return next((standing.trust_ppm for standing in self.standings if standing.hotkey == hotkey), 0)
