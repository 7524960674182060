"""What a validator is told: its key, its store, its peers, its subnet, and the terms that all of them share."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from chimera.arena.types import Hotkey, MinerId
from chimera.arena.validators.decide import Terms
from chimera.arena.validators.sampler import RoundPlan
from chimera.core.types import Frozen

LOCAL = "local"
"""The network that is a ledger in a file of this machine."""

Url = Annotated[str, Field(min_length=1, max_length=1_000)]


class Peer(Frozen):
    """A validator: its hotkey, and where its blocks can be read (see `chimera.storage.objects.open_objects`)."""

    hotkey: Hotkey
    blocks: Url


class Subnet(Frozen):
    """Where weights are set. `network` is `local`, or one that bittensor knows; `version_key` see BittensorChain."""

    network: Annotated[str, Field(min_length=1, max_length=500)] = LOCAL
    netuid: Annotated[int, Field(ge=0, le=65_535)] = 0
    version_key: Annotated[int, Field(ge=0, lt=2**64)] = 0


class ValidatorPlan(Frozen):
    """All that a validator runs by. `hotkey` names its signing key (`chimera.arena.validators.wallet`), never holds it.

    `blocks` is where it publishes: empty is a folder in `Settings.home`. `peers` are the others. `champion` begins the
    first reign. `beacon` is `drand`, or `seed:TEXT` for one that anybody can predict. `block_pairs` is how many pairs
    go into a block.
    """

    hotkey: Annotated[str, Field(min_length=1, max_length=1_000)]
    blocks: Annotated[str, Field(max_length=1_000)] = ""
    peers: Annotated[tuple[Peer, ...], Field(max_length=255)] = ()
    champion: MinerId
    round: RoundPlan
    terms: Terms
    subnet: Subnet = Subnet()
    beacon: Annotated[str, Field(pattern=r"^(drand|seed:.{1,200})$")] = "drand"
    block_pairs: Annotated[int, Field(ge=1, le=512)] = 128

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.terms.env_ids != self.round.env_ids:
            raise ValueError("the terms are about other environments than the round")
        self.round.champion(self.champion)
        if self.blocks.startswith("memory:"):
            raise ValueError("blocks in memory are gone with the process, and a chain that lost blocks is an offence")
        if self.peers and not self.round.shared:
            raise ValueError("validators with peers need shared challenges: nobody can tell whom to trust without")
        if len({peer.hotkey for peer in self.peers}) != len(self.peers):
            raise ValueError("a peer is named twice")
        return self
