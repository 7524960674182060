"""A subnet of Bittensor, through bittensor 11: reading its metagraph, setting weights in the clear or timelocked.

Which of the two, the subnet decides: with commit-reveal on, `bt.SetWeights` seals the weights to a round of drand, and
the chain opens them itself. `bittensor` takes 2 s to import and writes a cache into `~/.bittensor` when it connects, so
it is imported when a chain is made, and no sooner.
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Protocol

from chimera.arena.validators.chain import MAX_AGE_BLOCKS, Metagraph, Receipt, SubnetChain
from chimera.core.errors import ChainError, InputError, MissingExtra

READ_S = 60.0
"""The most that connecting and one read may take together, tries at other endpoints included."""

WRITE_S = 300.0
"""The most that setting weights may take until it is final. A call is valid for 128 blocks, which is longer."""

RETRIES = 2
"""Further tries, a block apart, when the pool of transactions is busy. A refusal by the chain is not tried again."""

MAX_VERSION_KEY = 2**64 - 1


class HotkeyPair(Protocol):
    """A hotkey that can sign: `bittensor_core.Keypair` fits."""

    @property
    def ss58_address(self) -> str: ...
    @property
    def public_key(self) -> bytes: ...
    @property
    def crypto_type(self) -> int: ...
    def sign(self, payload: bytes) -> bytes: ...


class BittensorChain(SubnetChain):
    """Subnet `netuid` of `network` (`finney`, `test`, `local`, or a ws:// or wss:// address), seen by `hotkey`.

    `version_key` is the version of the validator's rules that the weights claim: a subnet refuses one older than it
    asks for. `mechid` is the incentive mechanism, 0 for most subnets. `substrate` replaces the connection: bittensor's
    own injection point. Raises MissingExtra without `bittensor`, InputError for a network that it does not know.
    """

    def __init__(
        self,
        *,
        network: str,
        netuid: int,
        hotkey: HotkeyPair,
        version_key: int = 0,
        mechid: int = 0,
        max_age_blocks: int = MAX_AGE_BLOCKS,
        substrate: Any = None,
    ) -> None:
        super().__init__(netuid=netuid, hotkey=hotkey.ss58_address, max_age_blocks=max_age_blocks)
        if not 0 <= version_key <= MAX_VERSION_KEY:
            raise InputError(f"a version key is from 0 to {MAX_VERSION_KEY}, not {version_key}")
        try:
            self._bittensor: Any = importlib.import_module("bittensor")
        except ImportError as error:
            raise MissingExtra("bittensor", "chain") from error
        try:
            self._subtensor = self._bittensor.Subtensor(network, substrate=substrate)
        except ValueError as error:
            raise InputError(str(error)) from error
        self._keypair = hotkey
        self._version_key = version_key
        self._mechid = mechid
        self._connecting = asyncio.Lock()
        self._client: Any = None

    async def metagraph(self) -> Metagraph:
        async with _asking(f"reading subnet {self.netuid}", READ_S):
            client = await self._connected()
            graph = await client.subnets.metagraph(self.netuid, commitments=False)
            if graph is None:
                raise ChainError(f"there is no subnet {self.netuid} on {client.network}")
            return Metagraph(
                netuid=self.netuid,
                block=graph.block,
                hotkeys=tuple(graph.hotkeys),
                validator_permits=tuple(neuron.validator_permit for neuron in graph),
                stakes=tuple(neuron.total_stake.rao for neuron in graph),
            )

    async def block(self) -> int:
        async with _asking("reading the chain's height", READ_S):
            client = await self._connected()
            return int(await client.block())

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            async with _asking("closing the connection", READ_S):
                await client.close()

    async def _give_all_to(self, uid: int, hotkey: str) -> Receipt:
        # The winner alone is named: with others beside it, bittensor would spread the weight over all of them, the
        # zeros too, where the subnet limits what one may have. Alone, the chain refuses it there.
        intent = self._bittensor.SetWeights(
            netuid=self.netuid, uids=[uid], weights=[1.0], mechid=self._mechid, version_key=self._version_key
        )
        async with _asking(f"giving all weight to {hotkey} (it may have been done)", WRITE_S):
            client = await self._connected()
            result = await client.execute(intent, self._keypair, retries=RETRIES)
            result.raise_for_failure()
            reveal_round = result.data.get("reveal_round")
            extrinsic: str | None = result.extrinsic_id
            return Receipt(
                mode="plain" if reveal_round is None else "timelocked",
                block=int(extrinsic.partition("-")[0]) if extrinsic else None,
                extrinsic=extrinsic,
                reveal_round=reveal_round,
            )

    async def _connected(self) -> Any:
        async with self._connecting:
            if self._client is None:
                self._client = await self._subtensor
        return self._client


@asynccontextmanager
async def _asking(what: str, limit_s: float) -> AsyncIterator[None]:
    """Turns whatever goes wrong within into a ChainError, and ends it after `limit_s`."""
    try:
        async with asyncio.timeout(limit_s):
            yield
    except ChainError:
        raise
    except TimeoutError as error:
        raise ChainError(f"{what}: no answer within {limit_s:.0f} s") from error
    except Exception as error:  # bittensor's own, its websocket's, and those of decoding what a node answered
        raise ChainError(f"{what}: {error or type(error).__name__}") from error
