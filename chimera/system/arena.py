"""Wiring of the arena: a request in, duels run by actors over the cluster, results and evidence out."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Self

from pydantic import Field, model_validator

from chimera.actors import cluster
from chimera.actors.duel import Duel, play_match
from chimera.arena.duel.aggregate import Aggregate, AggregateResult, needed
from chimera.arena.duel.match import MatchPlan, MinerRef, Pair, RuleSpec
from chimera.arena.duel.sequential import SequentialDuel
from chimera.arena.duel.types import DuelResult, Outcome
from chimera.arena.envs.registry import environment
from chimera.arena.miners.client import open_miner
from chimera.arena.types import EnvId
from chimera.core.clock import Clock, SystemClock
from chimera.core.config import Settings
from chimera.core.errors import ClusterError, InputError, StorageError
from chimera.core.types import Frozen
from chimera.system.duels import Duels
from chimera.system.recording import records_of

log = logging.getLogger(__name__)

MAX_SEED_CHARS = 64


class DuelRequest(Frozen):
    """A duel over one or more environments.

    `champion` and `contender` are miners as `open_miner` takes them. The challenges are `duel/SEED/0` and so on, so who
    has the seed can hold it again. `lead` is K: the contender must win ceil((N + K) / 2) of N environments.
    """

    champion: str
    contender: str
    env_ids: Annotated[tuple[EnvId, ...], Field(min_length=1, max_length=64)]
    rule: RuleSpec = RuleSpec()
    seed: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.\-]{0,63}$")] = "0"
    lead: Annotated[int, Field(ge=0, le=64)] = 1
    concurrency: Annotated[int, Field(ge=1, le=256)] = 8

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        if len(set(self.env_ids)) != len(self.env_ids):
            raise ValueError("each environment is named once")
        if self.champion == self.contender:
            raise ValueError(f"a miner cannot duel with itself: {self.champion}")
        return self

    def match(self, env_id: str) -> MatchPlan:
        """What is played in one environment."""
        return MatchPlan(
            env_id=env_id,
            champion=MinerRef(miner_id=self.champion, spec=self.champion),
            contender=MinerRef(miner_id=self.contender, spec=self.contender),
            challenge_ids=tuple(f"duel/{self.seed}/{i}" for i in range(self.rule.budget)),
            rule=self.rule,
            concurrency=self.concurrency,
        )


@dataclass
class Standing:
    """How a duel in one environment stands: its counts, its interval, and the outcomes in order."""

    duel: SequentialDuel
    outcomes: list[Outcome] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class DuelReport:
    """How a duel ended. `duels` are the environments that were decided; the others were given up when `total` stood."""

    request: DuelRequest
    total: AggregateResult
    duels: tuple[DuelResult, ...]
    standings: dict[str, Standing]


Watcher = Callable[[str, Standing, tuple[Pair, ...]], None]
"""Is told of an environment, how its duel stands, and the pairs that are new."""


async def check_request(request: DuelRequest) -> None:
    """Raises InputError for an environment or a miner that there is not, or a miner that cannot play there."""
    needed(len(request.env_ids), request.lead)
    request.rule.open()
    for spec in (request.champion, request.contender):
        miner = open_miner(spec)
        try:
            for env_id in request.env_ids:
                environment(env_id)
                if not miner.supports(env_id):
                    raise InputError(f"{spec} cannot play {env_id}")
        finally:
            await miner.close()


async def hold_duel(
    request: DuelRequest, settings: Settings, watch: Watcher, *, clock: Clock | None = None
) -> DuelReport:
    """Hold the duel, and put it on record: an actor an environment, side by side, until the whole is decided.

    Raises InputError before anything is started, ClusterError, and MinerError when a miner cannot be reached. A record
    that cannot be written is logged, and takes nothing back.
    """
    await check_request(request)
    clock = clock or SystemClock()
    began_s = clock.now()
    report = await _held(request, settings, watch)
    try:
        await asyncio.to_thread(_keep, report, Duels.kept_in(settings.home), began_s, clock.now())
    except StorageError as error:
        log.warning("the duel was held, and is not on record: %s", error)
    return report


def _keep(report: DuelReport, duels: Duels, began_s: float, ended_s: float) -> None:
    duels.keep(*records_of(report, began_s=began_s, ended_s=ended_s))


async def _held(request: DuelRequest, settings: Settings, watch: Watcher) -> DuelReport:
    connection = cluster.connect(settings)
    name, duels = f"duel-{secrets.token_hex(3)}", []
    standings: dict[str, Standing] = {}
    whole = Aggregate(request.env_ids, request.lead)
    running: dict[asyncio.Task[DuelResult], str] = {}
    try:
        for env_id in request.env_ids:
            actor = cluster.spawn(Duel, name=f"{name}/{env_id}", place="cell", lasting=False, named=env_id)
            duels.append(actor)
            plan = request.match(env_id)
            duel = plan.duel()
            assert duel is not None  # `match` gives it a rule
            standings[env_id] = Standing(duel)
            running[asyncio.create_task(_follow(actor, plan, standings[env_id], watch))] = env_id
        results = []
        while whole.result is None:
            ended, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for task in sorted(ended, key=lambda task: running[task]):
                del running[task]
                results.append(task.result())
                if whole.result is None:
                    whole.record(results[-1])
        return DuelReport(request, whole.result, tuple(results), standings)
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        for actor in duels:
            cluster.kill(actor)
        cluster.disconnect(connection)


async def _follow(actor: object, plan: MatchPlan, standing: Standing, watch: Watcher) -> DuelResult:
    """Count what an actor plays. The count here is the one that decides; the actor's own stops it in time."""
    try:
        async for played in play_match(actor, plan):
            for pair in played.pairs:
                if standing.duel.result is None:
                    standing.outcomes.append(pair.outcome)
                    standing.duel.record(pair.outcome)
            watch(plan.env_id, standing, played.pairs)
    except ClusterError as error:
        who = f"{plan.champion.spec} against {plan.contender.spec} in {plan.env_id}"
        raise ClusterError(
            f"the duel of {who} cannot go on: {error}; a miner in this process may have ended it"
        ) from None
    if standing.duel.result is None:
        raise InputError(f"the duel in {plan.env_id} ended before it was decided: its budget is larger than its plan")
    return standing.duel.result
