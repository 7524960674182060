"""The duel actor: plays matches, one at a time, and hands out their pairs in batches."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from chimera.actors import cluster
from chimera.actors.line import Line
from chimera.arena.duel.match import Match, MatchPlan, Pair
from chimera.arena.duel.types import DuelResult, Outcome
from chimera.arena.miners.client import open_miner
from chimera.core.clock import SystemClock
from chimera.core.errors import ChimeraError, NotBegun, SwarmError

log = logging.getLogger(__name__)

MAX_UNREAD = 256
"""Pairs that wait to be collected; the match waits for whoever collects them."""


POLL_S = 20.0

MAX_DEATHS = 5
"""Processes that one match may cost without a pair in between; then it is given up."""

PAUSE_S = 0.5

LOST: tuple[type[BaseException], ...] = (NotBegun, *cluster.ACTOR_GONE)
"""What a call raises when the actor has died."""


@dataclass(frozen=True, slots=True)
class Played:
    """Some pairs of a match, in order, and how the match stands after them. `first` counts from 0 in this match."""

    first: int
    pairs: tuple[Pair, ...]
    ended: bool
    result: DuelResult | None = None
    error: ChimeraError | None = None


class Duel:
    """Plays a match at a time, in a process of its own, so that duels of several environments run at once.

    It keeps what nobody has collected, and waits when that is much. One that died knows nothing any more: `collect`
    raises NotBegun, and whoever collects begins the rest of the match anew.
    """

    def __init__(self, *, named: str) -> None:
        self._named = named
        self._match_id = ""
        self._first = 0
        self._unread: list[Pair] = []
        self._ended: Played | None = None
        self._changed = asyncio.Condition()
        self._playing: asyncio.Task[None] | None = None

    async def begin(self, match_id: str, plan: MatchPlan) -> None:
        """Play `plan`; a match that goes on is given up. Beginning the same match twice changes nothing."""
        if match_id == self._match_id:
            return
        await self.stop()
        self._match_id, self._first, self._unread, self._ended = match_id, 0, [], None
        self._playing = asyncio.create_task(self._play(plan))

    async def collect(self, match_id: str, after: int, wait_s: float) -> Played:
        """The pairs from number `after` on; those before it are forgotten. Waits up to `wait_s` for the first one."""
        if match_id != self._match_id:
            raise NotBegun(f"{self._named} does not play {match_id}")
        async with self._changed:
            known = max(0, after - self._first)
            del self._unread[:known]
            self._first += known
            self._changed.notify_all()
            try:
                async with asyncio.timeout(wait_s):
                    await self._changed.wait_for(lambda: self._unread or self._ended)
            except TimeoutError:
                pass
            end = self._ended
        if end is None:
            return Played(self._first, tuple(self._unread), False)
        return Played(self._first, tuple(self._unread), True, end.result, end.error)

    async def stop(self) -> None:
        """Give up what is being played."""
        if self._playing:
            self._playing.cancel()
            await asyncio.gather(self._playing, return_exceptions=True)
            self._playing = None
        self._match_id = ""

    def __repr__(self) -> str:  # the dashboard shows it
        return f"Duel[{self._named}]"

    async def _play(self, plan: MatchPlan) -> None:
        result: DuelResult | None = None
        error: ChimeraError | None = None
        try:
            result = await self._matched(plan)
        except ChimeraError as fault:
            error = fault
        except Exception as fault:
            log.exception("%s: a match failed", self._named)
            error = SwarmError(f"a match in {plan.env_id} failed: {type(fault).__name__}: {fault}")
        async with self._changed:
            self._ended = Played(0, (), True, result, error)
            self._changed.notify_all()

    async def _matched(self, plan: MatchPlan) -> DuelResult | None:
        champion = open_miner(plan.champion.spec)
        try:
            contender = open_miner(plan.contender.spec)
            try:
                match = Match(plan, champion=champion, contender=contender, clock=SystemClock())
                async with aclosing(match.pairs()) as pairs:
                    async for pair in pairs:
                        async with self._changed:
                            self._unread.append(pair)
                            self._changed.notify_all()
                            await self._changed.wait_for(lambda: len(self._unread) < MAX_UNREAD)
                return match.result
            finally:
                await contender.close()
        finally:
            await champion.close()


async def play_match(duel: Any, plan: MatchPlan) -> AsyncGenerator[Played, None]:
    """Have a Duel actor play `plan`, and hand on what it brings, each pair once and in order.

    An actor that died is told to play what is left. Raises what ended the match, ClusterError when its process dies
    over and over.
    """
    line, match_id, outcomes, deaths = Line(duel), "", list[Outcome](), 0
    try:
        while True:
            try:
                if not match_id:
                    match_id = secrets.token_hex(6)
                    await line.call("begin", match_id, plan)
                played: Played = await line.call("collect", match_id, len(outcomes), POLL_S)
            except LOST as error:
                deaths += 1
                if deaths > MAX_DEATHS:
                    raise cluster.unwrap(error) from None
                await asyncio.sleep(PAUSE_S * deaths)
                plan, match_id, outcomes = _rest(plan, outcomes), "", []
                continue
            except Exception as error:
                raise cluster.unwrap(error) from None
            if played.pairs:
                deaths = 0
                outcomes += [pair.outcome for pair in played.pairs]
            elif played.error:
                raise played.error
            if played.pairs or played.ended:
                yield played
            if played.ended and not played.error:
                return
    finally:
        line.close()


def _rest(plan: MatchPlan, outcomes: list[Outcome]) -> MatchPlan:
    """What is left of `plan` when so much of it has been played."""
    return plan.model_copy(
        update={
            "challenge_ids": plan.challenge_ids[len(outcomes) :],
            "before": plan.before + tuple(outcomes) if plan.rule else (),
        }
    )
