"""Asking again after a fault that is not the miner's: exponential backoff with full jitter.

Source: M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from chimera.arena.miners.miner import Answer, Miner, Turn
from chimera.core.errors import InputError, MinerError

Sleep = Callable[[float], Awaitable[None]]

MAX_TRIES = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """How often to try, and how long to wait between: up to `base_s`, then up to twice that, at most `longest_s`."""

    tries: int = 6
    base_s: float = 0.5
    longest_s: float = 30.0

    def __post_init__(self) -> None:
        if not 1 <= self.tries <= MAX_TRIES or not 0 <= self.base_s <= self.longest_s:
            raise InputError(f"{self}: give 1 to {MAX_TRIES} tries, and 0 <= base_s <= longest_s")

    def pause_s(self, failed: int, rng: random.Random, at_least_s: float = 0.0) -> float | None:
        """Seconds to wait after the `failed`-th failure (from 1); None to give up.

        `at_least_s` is what the other side asked for; it is granted up to `longest_s`.
        """
        if failed >= self.tries:
            return None
        drawn = rng.uniform(0.0, min(self.longest_s, self.base_s * 2.0 ** (failed - 1)))
        return max(drawn, min(at_least_s, self.longest_s))


class RetryingMiner(Miner):
    """Asks `miner` again as long as it raises MinerError and `backoff` has tries left; then raises the last one.

    `rng` draws the pauses: one of its own for each process, or all would come back at the same moment.
    """

    def __init__(self, miner: Miner, *, rng: random.Random, backoff: Backoff, sleep: Sleep = asyncio.sleep) -> None:
        self.miner_id = miner.miner_id
        self._miner = miner
        self._rng = rng
        self._backoff = backoff
        self._sleep = sleep

    def supports(self, env_id: str) -> bool:
        return self._miner.supports(env_id)

    async def reply(self, turn: Turn) -> Answer:
        failed = 0
        while True:
            try:
                return await self._miner.reply(turn)
            except MinerError as error:
                failed += 1
                pause_s = self._backoff.pause_s(failed, self._rng, error.retry_after_s)
                if pause_s is None:
                    raise MinerError(f"{error.message} (asked {failed} times)", error.retry_after_s) from error
            await self._sleep(pause_s)

    async def close(self) -> None:
        await self._miner.close()
