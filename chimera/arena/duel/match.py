"""A match: champion and contender face the same challenges, one pair of samples each, in order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Annotated, Self

from pydantic import Field, model_validator

from chimera.arena.duel.rules import StoppingRule, make_rule
from chimera.arena.duel.sequential import SequentialDuel
from chimera.arena.duel.types import MAX_BUDGET, DuelResult, Outcome, Probability, RuleName, outcome
from chimera.arena.envs.episode import play
from chimera.arena.envs.registry import environment
from chimera.arena.miners.miner import Miner
from chimera.arena.types import ChallengeId, EnvId, MinerId, Role, Sample
from chimera.core.clock import Clock
from chimera.core.types import Frozen


class MinerRef(Frozen):
    """A miner: the id that evidence calls it by, and how it is reached (see `chimera.arena.miners.client`)."""

    miner_id: MinerId
    spec: Annotated[str, Field(min_length=1, max_length=1_000)]


class RuleSpec(Frozen):
    """Which stopping rule a duel goes by; see `chimera.arena.duel.rules.make_rule`."""

    name: RuleName = "wilson"
    p0: Probability = 0.51
    alpha: Probability = 0.05
    budget: Annotated[int, Field(ge=1, le=MAX_BUDGET)] = 200

    def open(self) -> StoppingRule:
        """The rule itself. Raises InputError for numbers that make none."""
        return make_rule(self.name, p0=self.p0, budget=self.budget, alpha=self.alpha)


class MatchPlan(Frozen):
    """What is to be played. Without a `rule` every challenge is; with one, until it decides.

    `before` are the outcomes of challenges that were played already, by a process that has died since.
    """

    env_id: EnvId
    champion: MinerRef
    contender: MinerRef
    challenge_ids: Annotated[tuple[ChallengeId, ...], Field(max_length=MAX_BUDGET)]
    rule: RuleSpec | None = None
    before: Annotated[tuple[Outcome, ...], Field(max_length=MAX_BUDGET)] = ()
    concurrency: Annotated[int, Field(ge=1, le=256)] = 8

    @model_validator(mode="after")
    def _two_miners(self) -> Self:
        if self.champion.miner_id == self.contender.miner_id:
            raise ValueError(f"a miner cannot duel with itself: {self.champion.miner_id}")
        return self

    def duel(self) -> SequentialDuel | None:
        """The duel as it stands after `before`, if there is a rule."""
        if self.rule is None:
            return None
        duel = SequentialDuel(
            self.rule.open(),
            env_id=self.env_id,
            champion=self.champion.miner_id,
            contender=self.contender.miner_id,
        )
        for past in self.before:
            duel.record(past)
        return duel


class Pair(Frozen):
    """What champion and contender made of one challenge."""

    champion: Sample
    contender: Sample

    @property
    def outcome(self) -> Outcome:
        return outcome(self.champion.verdict, self.contender.verdict)


class Match:
    """Plays a plan: some challenges at a time, and their pairs handed out in the order of the plan.

    So a result is a function of the plan and of what the miners reply, and not of who was quicker. What is still being
    asked when the duel is decided is given up, and is no evidence.
    """

    def __init__(self, plan: MatchPlan, *, champion: Miner, contender: Miner, clock: Clock) -> None:
        self.plan = plan
        self.duel = plan.duel()
        self._kind = environment(plan.env_id).rules
        self._champion = champion
        self._contender = contender
        self._clock = clock

    @property
    def result(self) -> DuelResult | None:
        """How the duel ended, if there is a rule and it has."""
        return self.duel.result if self.duel else None

    async def pairs(self) -> AsyncGenerator[Pair, None]:
        """The pairs, in order. Raises MinerError when a miner cannot be reached: what came before it stands."""
        waiting = iter(self.plan.challenge_ids)
        asked: list[asyncio.Task[Pair]] = []
        try:
            while self.result is None:
                while len(asked) < self.plan.concurrency and (challenge_id := next(waiting, None)) is not None:
                    asked.append(asyncio.create_task(self._pair(challenge_id)))
                if not asked:
                    return
                pair = await asked.pop(0)
                if self.duel:
                    self.duel.record(pair.outcome)
                yield pair
        finally:
            for task in asked:
                task.cancel()
            await asyncio.gather(*asked, return_exceptions=True)

    async def _pair(self, challenge_id: str) -> Pair:
        try:
            async with asyncio.TaskGroup() as both:
                champion = both.create_task(self._ask(challenge_id, "champion"))
                contender = both.create_task(self._ask(challenge_id, "contender"))
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None
        return Pair(champion=champion.result(), contender=contender.result())

    async def _ask(self, challenge_id: str, role: Role) -> Sample:
        miner = self._champion if role == "champion" else self._contender
        known_as = self.plan.champion if role == "champion" else self.plan.contender
        sample = await play(self._kind, challenge_id, miner, role=role, clock=self._clock)
        return sample.model_copy(update={"miner_id": known_as.miner_id})
