"""What a merge comes to: who stands how, what was done wrong, and the counts that a global duel is decided by.

Integers and strings only, in one order, so that whoever merges the same blocks writes the same bytes.
"""

from __future__ import annotations

from typing import Annotated, Literal, NamedTuple, TypeAlias

from pydantic import Field

from chimera.arena.canonical import encode
from chimera.arena.types import Count, EnvId, HexHash, Hotkey, MinerId
from chimera.core.types import Frozen

MILLION = 1_000_000
"""Trust is counted in parts of this."""

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


OffenceKind: TypeAlias = Literal[
    "beacon",
    "chain",
    "encoding",
    "environment",
    "foreign",
    "fork",
    "gap",
    "inconsistent",
    "info",
    "limit",
    "merkle",
    "prompt",
    "replay",
    "schema",
    "signature",
    "time",
    "truncated",
    "verdict",
]
"""`inconsistent` is a matter of chance, less than one in a million; everything else is proved by the blocks alone."""


class Offence(Frozen):
    """Why a validator's evidence counts for nothing. `block_index` is where in its chain it came to light."""

    kind: OffenceKind
    hotkey: Hotkey
    block_index: Count
    message: Annotated[str, Field(max_length=1_000)]


class Standing(Frozen):
    """One validator: of `compared` verdicts on shared challenges that a consensus was found on, `agreed` are its.

    `stake` is its part of all stake in ppm, rounded down. `head_index` and `head_hash` are the last block that was
    found good (-1 and empty for none): a later merge that is told them notices when the chain loses it.
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
    env_id: EnvId
    champion: MinerId
    contender: MinerId
    wins: Count
    losses: Count
    ties: Count

    @property
    def pairing(self) -> Pairing:
        return Pairing(self.env_id, self.champion, self.contender)

    @property
    def tally(self) -> Tally:
        return Tally(self.wins, self.losses, self.ties)


class OwnCount(_Counted):
    """What one trusted validator's own challenges came to. `weight_ppm` is for each of them; see `trust.weigh`."""

    hotkey: Hotkey
    weight_ppm: Ppm


class SharedCount(_Counted):
    """What shared challenges came to, each counted once, however many validators met it, and at `weight_ppm`."""

    weight_ppm: Ppm


class Merged(Frozen):
    """The union of all validators' evidence. Equal for equal evidence, in whatever order it came."""

    standings: tuple[Standing, ...]
    offences: tuple[Offence, ...]
    own: tuple[OwnCount, ...]
    shared: tuple[SharedCount, ...]

    def to_bytes(self) -> bytes:
        """Canonical bytes (RFC 8785)."""
        return encode(self.model_dump())

    def trust_of(self, hotkey: str) -> int:
        """In ppm; 0 for a validator that is not here."""
        return next((standing.trust_ppm for standing in self.standings if standing.hotkey == hotkey), 0)
