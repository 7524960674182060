"""The chain port: what a validator reads of its subnet, and how it says who won.

Weights here have one shape, winner takes all. What every chain has to refuse (another shape, a hotkey that the subnet
does not have, a picture of the subnet that is too old) is refused here, before an adapter is asked.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, model_validator

from chimera.arena.types import Hotkey
from chimera.core.errors import ChainError, StaleMetagraph
from chimera.core.types import Frozen

MAX_UIDS = 4_096
"""Neurons of one subnet; Bittensor's have at most 256 today."""

MAX_AGE_BLOCKS = 100
"""How old a metagraph may be by default: 20 minutes, at 12 s a block."""

Height = Annotated[int, Field(ge=0)]
"""A block's number."""


class Metagraph(Frozen):
    """A subnet as it was at `block`. The tuples have one entry for each uid, in order; stakes are in rao (1e-9)."""

    netuid: Annotated[int, Field(ge=0, le=65_535)]
    block: Height
    hotkeys: Annotated[tuple[Hotkey, ...], Field(max_length=MAX_UIDS)]
    validator_permits: tuple[bool, ...]
    stakes: tuple[Annotated[int, Field(ge=0)], ...]

    @model_validator(mode="after")
    def _one_row_each(self) -> Metagraph:
        if not len(self.hotkeys) == len(self.validator_permits) == len(self.stakes):
            raise ValueError("a metagraph has a hotkey, a permit and a stake for each uid")
        if len(set(self.hotkeys)) != len(self.hotkeys):
            raise ValueError("no hotkey has two uids")
        return self

    def uid(self, hotkey: str) -> int:
        """The uid that `hotkey` holds. Raises ChainError if it holds none."""
        try:
            return self.hotkeys.index(hotkey)
        except ValueError:
            raise ChainError(f"{hotkey} is not registered on subnet {self.netuid}") from None


class Receipt(Frozen):
    """Where weights went.

    `extrinsic` is the chain's name for the call, BLOCK-INDEX; it and `block` are None if the chain did not tell.
    Timelocked weights are sealed until drand publishes `reveal_round`.
    """

    mode: Literal["plain", "timelocked", "local"]
    block: Height | None
    extrinsic: str | None
    reveal_round: int | None = None


class SubnetChain(ABC):
    """One subnet, seen and written to by one validator.

    `hotkey` is the validator's own. Every method raises ChainError when the chain refuses or cannot be asked.
    """

    def __init__(self, *, netuid: int, hotkey: str, max_age_blocks: int = MAX_AGE_BLOCKS) -> None:
        self.netuid = netuid
        self.hotkey = hotkey
        self._max_age_blocks = max_age_blocks

    @abstractmethod
    async def metagraph(self) -> Metagraph:
        """The subnet as it is now."""

    @abstractmethod
    async def block(self) -> int:
        """The chain's height."""

    async def set_weights(self, weights: Mapping[str, float], *, metagraph: Metagraph) -> Receipt:
        """Give all the weight to the one hotkey that `weights` gives 1.0; every other in it has 0.0.

        `metagraph` is what the decision was made by. Raises ChainError for weights of another shape and for hotkeys
        that are not in it, the validator's own among them; StaleMetagraph if it is older than `max_age_blocks`, or if
        a uid of one of those hotkeys has changed hands since. Between this check and the block that holds the call it
        still may.
        """
        champion = winner(weights)
        if metagraph.netuid != self.netuid:
            raise ChainError(f"that metagraph is of subnet {metagraph.netuid}, and this is subnet {self.netuid}")
        held = {hotkey: metagraph.uid(hotkey) for hotkey in (self.hotkey, *weights)}
        current = await self.metagraph()
        age = current.block - metagraph.block
        if not 0 <= age <= self._max_age_blocks:
            raise StaleMetagraph(
                f"the metagraph was read at block {metagraph.block}, and the chain is at {current.block}: read it again"
                f" (at most {self._max_age_blocks} blocks may lie between)"
            )
        for hotkey, uid in held.items():
            if uid >= len(current.hotkeys) or current.hotkeys[uid] != hotkey:
                raise StaleMetagraph(f"uid {uid} is no longer held by {hotkey}: read the metagraph again")
        return await self._give_all_to(held[champion], champion)

    @abstractmethod
    async def _give_all_to(self, uid: int, hotkey: str) -> Receipt:
        """Set the whole weight on `uid`, which `hotkey` holds."""

    async def close(self) -> None:  # noqa: B027 - some have nothing to let go of
        """Let go of connections."""


def winner(weights: Mapping[str, float]) -> str:
    """The hotkey that takes all. Raises ChainError unless one weight is 1.0 and each other 0.0."""
    if not weights:
        raise ChainError("there are no weights to set")
    for hotkey, weight in weights.items():
        if not math.isfinite(weight) or weight < 0:
            raise ChainError(f"the weight of {hotkey} is {weight}: weights are finite, and not negative")
    given = [hotkey for hotkey, weight in weights.items() if weight]
    if len(given) != 1 or weights[given[0]] != 1:
        raise ChainError(f"the winner takes all: one hotkey has 1.0 and the others 0.0, but {len(given)} have a weight")
    return given[0]
