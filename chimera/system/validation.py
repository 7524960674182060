"""Wiring of validators: plans in, rounds sampled and settled by actors, who takes the weight out."""

from __future__ import annotations

import asyncio
import math
import secrets
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bittensor_core import Keypair

from chimera.actors import cluster
from chimera.actors.validator import Missed, Sampled, Settled, Validator
from chimera.arena.duel.match import MinerRef
from chimera.arena.validators.beacon import current_round
from chimera.arena.validators.decide import Terms
from chimera.arena.validators.record import Record, key_of, read_record
from chimera.arena.validators.sampler import RoundPlan
from chimera.arena.validators.terms import Peer, ValidatorPlan
from chimera.core.clock import Clock, SystemClock
from chimera.core.config import Settings
from chimera.core.errors import ChimeraError, InputError
from chimera.storage.state import open_state
from chimera.system.champions import champion_of, record_champion

RETRY_S = 60.0
"""How long a validator that died may take to come back."""

DEMO_VALIDATORS = ("//Alice", "//Bob", "//Charlie")

DEMO_MINERS = (("//Rival", "oracle:p=0.5"), ("//Steady", "oracle:p=0.7"), ("//Master", "oracle:p=0.9"))
"""A miner's development key, and how good it is. The first one begins on the throne, the last one is the best."""

DEMO_ENVS = ("mult8-v0", "tictactoe-v0")

DEMO_ROUNDS = 2
"""In the first the best takes the throne, in the second it is challenged."""

Watcher = Callable[[int, Sampled | Settled | Missed], None]
"""Is told what each validator did, in which round (counted from 1)."""


@dataclass(frozen=True, slots=True)
class Tournament:
    """What came of some rounds of several validators: the last of each, and where their blocks are."""

    settled: tuple[Settled, ...]
    blocks: Path

    @property
    def champion(self) -> str:
        """The miner on the throne. Raises InputError if the validators do not agree, which honest ones do."""
        champions = {settled.throne.champion for settled in self.settled}
        if len(champions) > 1:
            raise InputError(f"the validators disagree about the champion: {', '.join(sorted(champions))}")
        return champions.pop()


class RunningValidator:
    """A Validator actor. One that dies is waited for, and told again."""

    def __init__(self, plan: ValidatorPlan, settings: Settings, name: str) -> None:
        self._handle = cluster.spawn(Validator, name=name, lasting=False, plan=plan, settings=settings)

    async def ready(self) -> str:
        """Wait until it has opened its stores and read its chain; its hotkey. Raises what that raised, at once."""
        try:
            hotkey: str = await self._handle.ready.remote()
            return hotkey
        except Exception as error:
            raise cluster.unwrap(error) from None

    async def sample(self, round: int) -> Sampled:
        """See `Validator.sample`."""
        sampled: Sampled = await self._call("sample", round)
        return sampled

    async def settle(self, now_s: int, *, dry_run: bool) -> Settled:
        """See `Validator.settle`."""
        settled: Settled = await self._call("settle", now_s, dry_run)
        return settled

    async def close(self) -> None:
        """End the actor."""
        cluster.kill(self._handle)

    async def _call(self, method: str, *arguments: Any) -> Any:
        loop = asyncio.get_running_loop()
        until, pause_s = loop.time() + RETRY_S, 0.5
        while True:
            try:
                return await getattr(self._handle, method).remote(*arguments)
            except cluster.ACTOR_GONE as error:
                if loop.time() > until:
                    raise cluster.unwrap(error) from None
                await asyncio.sleep(pause_s)
            except Exception as error:
                raise cluster.unwrap(error) from None


@asynccontextmanager
async def running(plans: Sequence[ValidatorPlan], settings: Settings) -> AsyncGenerator[list[RunningValidator], None]:
    """The validators of these plans, each an actor, as long as the context lasts."""
    connection = cluster.connect(settings)
    validators: list[RunningValidator] = []
    try:
        name = f"validator-{secrets.token_hex(3)}"
        for number, plan in enumerate(plans):
            validators.append(RunningValidator(plan, settings, f"{name}/{number}"))
        await asyncio.gather(*(validator.ready() for validator in validators))
        yield validators
    finally:
        for validator in validators:
            await validator.close()
        cluster.disconnect(connection)


async def validate(
    plan: ValidatorPlan,
    settings: Settings,
    watch: Watcher,
    *,
    epoch_s: int = 1_200,
    grace_s: int = 60,
    once: bool = False,
    dry_run: bool = False,
    clock: Clock | None = None,
) -> Settled:
    """Be a validator: in each epoch sample a round, and settle when it is over; with `once` a single time, at once.

    Epochs begin at multiples of `epoch_s` seconds since 1970, so that validators with no tie to one another sample the
    same shared challenges and settle by the same evidence: blocks from before the epoch's end, read `grace_s` later,
    when what was published in its last seconds can be seen and clocks agree that it is over. The beacon's round is the
    last before the epoch began. A round that fails is told to `watch`, and the next begins; with `once` it is raised.
    """
    clock = clock or SystemClock()
    number = 0
    async with running([plan], settings) as (validator,):
        hotkey = await validator.ready()
        while True:
            number += 1
            began_s = int(clock.now()) // epoch_s * epoch_s
            try:
                watch(number, await validator.sample(current_round(began_s)))
                ends_s = math.ceil(clock.now()) if once else began_s + epoch_s
                await asyncio.sleep(max(0.0, ends_s + (0 if once else grace_s) - clock.now()))
                settled = await validator.settle(ends_s, dry_run=dry_run)
                watch(number, settled)
                if not dry_run:
                    _crown(plan, settled, settings)
            except ChimeraError as error:
                if once:
                    raise
                watch(number, Missed(hotkey=hotkey, why=str(error)))
                await asyncio.sleep(max(1.0, began_s + epoch_s + grace_s - clock.now()))
                continue
            if once:
                return settled


def _crown(plan: ValidatorPlan, settled: Settled, settings: Settings) -> None:
    """Let `--model champion:ENV` follow the throne."""
    spec = plan.round.champion(settled.throne.champion).spec
    for env_id in plan.round.env_ids:
        known = champion_of(env_id, settings)
        if known is None or known.miner_id != spec:
            record_champion(env_id, spec, settings, since_s=settled.throne.since_s)


async def tournament(
    plans: Sequence[ValidatorPlan], settings: Settings, watch: Watcher, *, rounds: int, blocks: Path
) -> Tournament:
    """Some rounds of several validators, in step: all sample, then all settle. For demos, and for trying terms out."""
    clock = SystemClock()
    settled: list[Settled] = []
    async with running(plans, settings) as validators:
        for number in range(1, rounds + 1):
            for sampled in await asyncio.gather(*(validator.sample(number) for validator in validators)):
                watch(number, sampled)
            ends_s = math.floor(clock.now()) + 1  # after every block of this round, and before any of the next
            await asyncio.sleep(ends_s - clock.now())
            settled = await asyncio.gather(*(validator.settle(ends_s, dry_run=False) for validator in validators))
            for outcome in settled:
                watch(number, outcome)
    return Tournament(tuple(settled), blocks)


async def demo(settings: Settings, watch: Watcher) -> Tournament:
    """Three validators and three miners on this machine, with development keys: no server, no secret, no chain.

    The champion must be the last of DEMO_MINERS. Blocks are kept, for `af verify`.
    """
    folder = settings.home / "arena" / f"demo-{secrets.token_hex(4)}"
    settings = settings.model_copy(update={"home": folder, "state_url": ""})
    return await tournament(demo_plans(folder), settings, watch, rounds=DEMO_ROUNDS, blocks=folder / "blocks")


def demo_plans(folder: Path) -> list[ValidatorPlan]:
    """The plans of the demo's validators, which keep their blocks under `folder`."""
    blocks = (folder / "blocks").as_uri()
    hotkeys = {uri: str(Keypair.create_from_uri(uri).ss58_address) for uri in DEMO_VALIDATORS}
    miners = tuple(MinerRef(miner_id=Keypair.create_from_uri(uri).ss58_address, spec=spec) for uri, spec in DEMO_MINERS)
    return [
        ValidatorPlan(
            hotkey=uri,
            blocks=blocks,
            peers=tuple(Peer(hotkey=other, blocks=blocks) for other in hotkeys.values() if other != hotkey),
            champion=miners[0].miner_id,
            round=RoundPlan(env_ids=DEMO_ENVS, miners=miners, shared=24, own=48, window_s=366 * 86_400),
            terms=Terms(env_ids=DEMO_ENVS),
            beacon="seed:demo",
        )
        for uri, hotkey in hotkeys.items()
    ]


async def read_throne(settings: Settings, netuid: int, hotkey: str) -> Record | None:
    """What a validator of this machine remembers of its subnet; None if it never settled a round."""
    state = open_state(settings.state)
    try:
        return (await read_record(state, key_of(netuid, hotkey)))[0]
    finally:
        await state.close()
