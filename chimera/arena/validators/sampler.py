"""What a validator asks in a round: the shared challenges that all validators meet, then its own, counted without gaps.

The number of challenges in a round is fixed beforehand. A validator that stopped when it liked the result could choose
its evidence; the duel is stopped by the union of everybody's (`chimera.arena.validators.decide`), once a round.
"""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Self

from pydantic import Field, model_validator

from chimera.arena.duel.match import MatchPlan, MinerRef
from chimera.arena.types import Block, EnvId
from chimera.arena.validators.challenges import MAX_SHARED, Own, Shared, own_id, parse, shared_id
from chimera.core.errors import InputError
from chimera.core.types import Frozen

MAX_MINERS = 256
"""The most that a Bittensor subnet has."""

MAX_DUELS = 1_024
"""Contenders times environments: a record of how each stands has to fit into a state store's value."""

MAX_OWN = 1_000
"""Own challenges in one match, which is kept in memory until it is complete."""


class RoundPlan(Frozen):
    """Who plays what, and how much of it, in each round: the same for every validator of a subnet.

    `shared` and `own` are challenges in each environment between the champion and one contender, in one round, asked by
    one validator. Duels that are undecided at a multiple of `window_s`, in seconds since 1970, end, and the next begin.
    """

    env_ids: Annotated[tuple[EnvId, ...], Field(min_length=1, max_length=64)]
    miners: Annotated[tuple[MinerRef, ...], Field(min_length=1, max_length=MAX_MINERS)]
    shared: Annotated[int, Field(ge=0, le=MAX_SHARED)] = 16
    own: Annotated[int, Field(ge=1, le=MAX_OWN)] = 32
    window_s: Annotated[int, Field(ge=1, le=366 * 86_400)] = 86_400
    concurrency: Annotated[int, Field(ge=1, le=256)] = 8

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        for what, names in (("environment", self.env_ids), ("miner", [miner.miner_id for miner in self.miners])):
            if twice := [name for name, times in Counter(names).items() if times > 1]:
                raise ValueError(f"{what} {twice[0]} is named twice")
        if len(self.miners) * len(self.env_ids) > MAX_DUELS:
            raise ValueError(f"miners times environments is {MAX_DUELS} at most: split the subnet")
        return self

    def champion(self, miner_id: str) -> MinerRef:
        """The miner of this id. Raises InputError when it is none of the subnet's."""
        for miner in self.miners:
            if miner.miner_id == miner_id:
                return miner
        raise InputError(f"{miner_id} is not among the miners: add it to them, or name another champion")

    def contenders(self, champion_id: str) -> list[MinerRef]:
        """Everybody else, in the order of the subnet."""
        return [miner for miner in self.miners if miner.miner_id != champion_id]

    def match(
        self, env_id: str, contender: MinerRef, *, champion_id: str, asked: Asked, round: int, randomness: str | None
    ) -> MatchPlan:
        """One match of a round, less what was `asked` in it already, by a process that has died since.

        Without the beacon's `randomness` there is no shared slice: nothing stands in for it that somebody could choose.
        """
        champion = self.champion(champion_id)
        first = asked.shared(env_id, round, champion_id, contender.miner_id)
        shared = [shared_id(round, randomness, i) for i in range(first, self.shared)] if randomness else []
        counter = asked.own(env_id)
        own = [own_id(asked.hotkey, counter + i) for i in range(self.own)]
        return MatchPlan(
            env_id=env_id,
            champion=champion,
            contender=contender,
            challenge_ids=(*shared, *own),
            concurrency=self.concurrency,
        )


class Asked:
    """What a validator has asked so far, as its chain says: no count may have a gap, and nothing may come twice."""

    def __init__(self, hotkey: str) -> None:
        self.hotkey = hotkey
        self._own: dict[str, int] = {}
        self._round = -1
        self._shared: dict[tuple[str, str, str], int] = {}

    def saw(self, block: Block) -> None:
        """Count what a block of the validator's holds."""
        for champion, contender in zip(block.samples[::2], block.samples[1::2], strict=True):
            match parse(champion.challenge_id):
                case Own(hotkey=self.hotkey, counter=counter):
                    self._own[champion.env_id] = max(self.own(champion.env_id), counter + 1)
                case Shared(round=round, index=index) if round >= self._round:
                    if round > self._round:
                        self._round, self._shared = round, {}
                    self._shared[champion.env_id, champion.miner_id, contender.miner_id] = index + 1

    def own(self, env_id: str) -> int:
        """The number of the next own challenge in an environment, from 0."""
        return self._own.get(env_id, 0)

    def shared(self, env_id: str, round: int, champion_id: str, contender_id: str) -> int:
        """The number of the next shared challenge of a round, which is not before the last one sampled."""
        if round < self._round:
            raise InputError(f"round {round} is over: round {self._round} has been sampled")
        return self._shared.get((env_id, champion_id, contender_id), 0) if round == self._round else 0
