"""The validator actor: samples a round, publishes signed blocks, merges everybody's, and says who takes the weight."""

from __future__ import annotations

import asyncio
import logging
import warnings
from collections.abc import Callable
from contextlib import aclosing
from typing import Any

from chimera.actors import cluster
from chimera.actors.duel import Duel, play_match
from chimera.arena.duel.match import MinerRef
from chimera.arena.types import Count, Hotkey, Sample
from chimera.arena.validators.beacon import Beacon, DrandBeacon, SeededBeacon
from chimera.arena.validators.blocks import Chain, cut
from chimera.arena.validators.chain import Metagraph, Receipt, SubnetChain
from chimera.arena.validators.chain_bittensor import BittensorChain
from chimera.arena.validators.chain_local import LocalChain
from chimera.arena.validators.decide import decide
from chimera.arena.validators.merge import merge
from chimera.arena.validators.merged import Merged
from chimera.arena.validators.reading import read_chain
from chimera.arena.validators.record import Head, Record, key_of, read_record, write_record
from chimera.arena.validators.sampler import Asked
from chimera.arena.validators.terms import LOCAL, ValidatorPlan
from chimera.arena.validators.throne import Ruling, Throne
from chimera.arena.validators.wallet import DevelopmentKey, open_hotkey
from chimera.core.clock import SystemClock
from chimera.core.config import Settings
from chimera.core.errors import ChainError, ChimeraError, EvidenceError, StorageError, StorageUnavailable
from chimera.core.types import Frozen
from chimera.storage.objects import ObjectStore, open_objects
from chimera.storage.state import StateStore, open_state

log = logging.getLogger(__name__)

MAX_TRIES = 5
"""Times that a block is offered to a store that is out of reach."""

PAUSE_S = 0.5

SpawnDuel = Callable[[str], Any]
"""Starts, or finds, the Duel actor of an environment."""


class Sampled(Frozen):
    """What a validator asked in a round. `faults` are matches that ended early, and why: what they had stands."""

    hotkey: Hotkey
    round: Count
    pairs: Count
    blocks: Count
    faults: tuple[str, ...] = ()


class Settled(Frozen):
    """What a validator made of everybody's evidence. `refused` is why the chain did not take the weights, if so.

    `merged` and `ruling` are None where it had ruled before, and only the weights were set again.
    """

    hotkey: Hotkey
    merged: Merged | None
    ruling: Ruling | None
    throne: Throne
    weights: dict[str, float]
    receipt: Receipt | None = None
    refused: str = ""


class Missed(Frozen):
    """A round that could not be sampled or settled, and why. The next one may be."""

    hotkey: Hotkey
    why: str


class Validator:
    """One validator, in a process of its own, with a Duel actor for each environment.

    What it has published it never asks again, and never changes: a process that died is followed by one that reads its
    chain and its record, and goes on from there.
    """

    def __init__(self, *, plan: ValidatorPlan, settings: Settings, spawn_duel: SpawnDuel | None = None) -> None:
        folder = settings.home / "arena" / "blocks"
        self._plan = plan if plan.blocks else plan.model_copy(update={"blocks": folder.absolute().as_uri()})
        self._settings = settings
        self._clock = SystemClock()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DevelopmentKey)  # whoever made the plan was warned
            self._keypair = open_hotkey(plan.hotkey)
        self.hotkey: str = self._keypair.ss58_address
        self._spawn_duel = spawn_duel or self._duel_actor
        self._key = key_of(plan.subnet.netuid, self.hotkey)
        self._busy = asyncio.Lock()
        self._publishing = asyncio.Lock()
        self._beacon: Beacon = (
            DrandBeacon() if plan.beacon == "drand" else SeededBeacon(plan.beacon.removeprefix("seed:"))
        )
        self._stores: dict[str, ObjectStore] = {}
        self._state: StateStore
        self._chain: Chain
        self._asked: Asked
        self._stale = False
        self._subnet: SubnetChain

    async def awake(self) -> None:
        """Open the stores, and read the own chain. Raises what opening them raises."""
        self._state = open_state(self._settings.state)
        self._subnet = self._open_subnet()
        await self._open_chain()

    async def ready(self) -> str:
        """The hotkey, when the stores are open and the chain has been read."""
        return self.hotkey

    async def sample(self, round: int) -> Sampled:
        """Ask everything of a round that was not asked yet, and publish it. Environments go side by side.

        Miners or a beacon that cannot be reached cost the samples, and are reported; nobody is judged by it.
        """
        async with self._busy:
            if self._stale:
                await self._open_chain()
            record, _ = await self._record(int(self._clock.now()))
            faults: list[str] = []
            try:
                randomness: str | None = await self._beacon.randomness(round)
            except ChainError as error:
                randomness = None
                faults.append(f"no shared challenges: {error}")
            before = self._chain.next_index
            async with asyncio.TaskGroup() as environments:
                asking = [
                    environments.create_task(self._sample_in(env_id, record, round, randomness, faults))
                    for env_id in self._plan.round.env_ids
                ]
            return Sampled(
                hotkey=self.hotkey,
                round=round,
                pairs=sum(task.result() for task in asking),
                blocks=self._chain.next_index - before,
                faults=tuple(faults),
            )

    async def settle(self, now_s: int, dry_run: bool = False) -> Settled:
        """Merge all validators' blocks, rule on the throne as of `now_s`, and set the weights unless it is a dry run.

        The same blocks and the same time give the same ruling, whoever makes it. Each time is ruled once: told it
        again, or an earlier one, this only sets the weights if the chain has not taken them.
        """
        async with self._busy:
            record, version = await self._record(now_s)
            merged, ruling = None, None
            metagraph = await self._subnet.metagraph()
            if now_s > record.settled_s:
                merged, ruling, record = await self._ruled(record, metagraph, now_s)
                if not dry_run:
                    version = await write_record(self._state, self._key, record, expected=version)
            weights = {miner.miner_id: float(miner.miner_id == record.throne.champion) for miner in self._miners()}
            receipt, refused = None, ""
            if not dry_run and not record.weights_set:
                try:
                    receipt = await self._subnet.set_weights(weights, metagraph=metagraph)
                    record = record.model_copy(update={"weights_set": True})
                    await write_record(self._state, self._key, record, expected=version)
                except ChainError as error:
                    refused = str(error)
            return Settled(
                hotkey=self.hotkey,
                merged=merged,
                ruling=ruling,
                throne=record.throne,
                weights=weights,
                receipt=receipt,
                refused=refused,
            )

    async def close(self) -> None:
        """Let go of files and connections."""
        for store in self._stores.values():
            await store.close()
        await self._subnet.close()
        await self._state.close()

    def __repr__(self) -> str:  # the dashboard shows it
        return f"Validator[{self.hotkey}]"

    async def _sample_in(
        self, env_id: str, record: Record, round: int, randomness: str | None, faults: list[str]
    ) -> int:
        """All contenders whose duel is on, one after another, so that own challenges are in order."""
        duel, pairs, champion_id = self._spawn_duel(env_id), 0, record.throne.champion
        for contender in self._plan.round.contenders(champion_id):
            if record.has_ended(env_id, contender.miner_id):
                continue
            try:
                pairs += await self._match(duel, env_id, contender, champion_id, round, randomness)
            except ChimeraError as error:
                faults.append(f"{env_id}: {champion_id} against {contender.miner_id}: {error}")
        return pairs

    async def _match(
        self, duel: Any, env_id: str, contender: MinerRef, champion_id: str, round: int, randomness: str | None
    ) -> int:
        """Play a match and publish it, whole: a miner that leaves out what it does not know has played nothing."""
        plan = self._plan.round.match(
            env_id, contender, champion_id=champion_id, asked=self._asked, round=round, randomness=randomness
        )
        samples: list[Sample] = []
        async with aclosing(play_match(duel, plan)) as match:
            async for played in match:
                for pair in played.pairs:
                    samples += (pair.champion, pair.contender)
        for part in cut(samples, self._plan.block_pairs):
            await self._publish(part)
        return len(samples) // 2

    async def _publish(self, samples: list[Sample]) -> None:
        """Add a block, one at a time. What may have been stored is stored again until it is known; whatever else goes
        wrong, the chain is read anew before anything is added to it, since counts may be others than they were."""
        async with self._publishing:
            if self._stale:
                raise StorageError("the chain has to be read again: not sampled in this round")
            pause_s = PAUSE_S
            for _ in range(MAX_TRIES):
                try:
                    self._asked.saw(await self._chain.append(samples))
                    return
                except StorageUnavailable:
                    await asyncio.sleep(pause_s)
                    pause_s *= 2
                except ChimeraError:
                    self._stale = True
                    raise
            self._stale = True
            raise StorageUnavailable(f"{MAX_TRIES} tries to store a block failed")

    async def _open_chain(self) -> None:
        """Read the own chain, from its first block. Raises EvidenceError, StorageError."""
        chain, asked = Chain(self._keypair, self._store(self._plan.blocks), self._clock), Asked(self.hotkey)
        await chain.open()
        published = (await self._record(int(self._clock.now())))[0].heads.get(self.hotkey)
        if published and chain.next_index <= published.index:
            raise EvidenceError(
                f"block {published.index} of {self.hotkey} was published, and {self._plan.blocks} has lost it: bring it"
                " back, or begin with another hotkey; to sign another block in its place would be a fork",
                "truncated",
            )
        for index in range(chain.next_index):
            asked.saw(await chain.read(index))
        self._chain, self._asked, self._stale = chain, asked, False

    async def _ruled(self, record: Record, metagraph: Metagraph, now_s: int) -> tuple[Merged, Ruling, Record]:
        merged = await self._merged(record, metagraph, now_s)
        miners = [miner.miner_id for miner in self._miners()]
        ruling = decide(
            merged,
            record.throne,
            self._plan.terms,
            p0=record.p0,
            now_s=now_s,
            miners=miners,
            ended=record.ended,
        )
        heads = {hotkey: head for hotkey, head in record.heads.items() if hotkey in self._known()}
        for seen in merged.standings:
            if seen.head_index >= 0:
                heads[seen.hotkey] = Head(index=seen.head_index, hash=seen.head_hash)
        return merged, ruling, record.after(ruling, self._plan.round, heads)

    async def _merged(self, record: Record, metagraph: Metagraph, now_s: int) -> Merged:
        """Everybody's evidence in the duels that are on, up to `now_s`."""
        known = self._known()
        stakes = {
            hotkey: stake
            for hotkey, permitted, stake in zip(
                metagraph.hotkeys, metagraph.validator_permits, metagraph.stakes, strict=True
            )
            if permitted and hotkey in known
        }
        return await merge(
            {hotkey: read_chain(self._store(known[hotkey]), hotkey) for hotkey in stakes},
            stakes=stakes if any(stakes.values()) else None,
            heads=record.heads,
            beacon=self._beacon,
            since_s=record.opened_s,
            until_s=now_s,
            env_ids=self._plan.round.env_ids,
            miners=[miner.miner_id for miner in self._miners()],
        )

    async def _record(self, now_s: int) -> tuple[Record, int]:
        found, version = await read_record(self._state, self._key)
        record = found or Record(throne=Throne(champion=self._plan.champion))
        return record.at(now_s, self._plan.round, self._plan.champion), version

    def _miners(self) -> tuple[MinerRef, ...]:
        return self._plan.round.miners

    def _known(self) -> dict[str, str]:
        """Where the blocks of each validator are, this one's among them."""
        return {**{peer.hotkey: peer.blocks for peer in self._plan.peers}, self.hotkey: self._plan.blocks}

    def _store(self, url: str) -> ObjectStore:
        if url not in self._stores:
            self._stores[url] = open_objects(url)
        return self._stores[url]

    def _open_subnet(self) -> SubnetChain:
        subnet = self._plan.subnet
        if subnet.network != LOCAL:
            return BittensorChain(
                network=subnet.network,
                netuid=subnet.netuid,
                hotkey=self._keypair,
                version_key=subnet.version_key,
            )
        known = [self.hotkey, *(peer.hotkey for peer in self._plan.peers)]
        known += [miner.miner_id for miner in self._miners()]
        return LocalChain(
            hotkeys=sorted(set(known)),
            hotkey=self.hotkey,
            clock=self._clock,
            netuid=subnet.netuid,
            ledger=self._settings.home / "arena" / f"subnet-{subnet.netuid}.jsonl",
        )

    def _duel_actor(self, env_id: str) -> Any:
        return cluster.spawn(
            Duel, name=f"validator/{self.hotkey[:12]}/{env_id}", place="cell", lasting=False, named=env_id
        )
