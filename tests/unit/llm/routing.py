"""What the tests of the router share: models that do as they are told, and a time that does so too."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import random
from collections.abc import AsyncIterator, Awaitable, Sequence
from typing import Any

from chimera.core.clock import ManualClock
from chimera.core.errors import (
    ModelOutage,
)
from chimera.llm.backoff import Backoff
from chimera.llm.chat import ChatChunk, ChatMessage, ChatModel, ChatRequest, ChatResponse, Embeddings
from chimera.llm.router import Route, Router

ASKED = ChatRequest(messages=(ChatMessage(role="user", content="how many?"),), max_tokens=100)


class Time(ManualClock):
    """Who sleeps is woken when `run` has nothing else to do: then the clock moves to the next who is due."""

    def __init__(self) -> None:
        super().__init__()
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._count = itertools.count()

    async def sleep(self, seconds: float) -> None:
        future = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self.now() + seconds, next(self._count), future))
        await future

    async def settle(self) -> None:
        for _ in range(30):
            await asyncio.sleep(0)

    async def until(self, at: float) -> None:
        """Let everything happen that happens up to then."""
        await self.settle()
        while self._sleepers and self._sleepers[0][0] <= at:
            due, _, future = heapq.heappop(self._sleepers)
            if not future.done():
                self.advance(max(0.0, due - self.now()))
                future.set_result(None)
                await self.settle()
        self.advance(max(0.0, at - self.now()))

    async def run(self, coroutine: Awaitable[Any]) -> Any:
        task = asyncio.ensure_future(coroutine)
        await self.settle()
        while not task.done():
            assert self._sleepers, "everybody waits for something that never comes"
            await self.until(self._sleepers[0][0])
        return await task


Step = str | Exception | float | tuple[float, Exception]
"""What a call does: it answers this, raises this, answers or raises after so many seconds."""


class Scripted(ChatModel):
    """A call does what is next in `script`; when that is at its end, it answers at once."""

    writes = True

    def __init__(self, name: str, time: Time, *script: Step, usage: int = 0) -> None:
        self.name = name
        self.script = list(script)
        self.asked: list[float] = []
        self.in_flight = self.most = self.cancelled = self.closed = 0
        self._time = time
        self._usage = usage

    async def chat(self, request: ChatRequest) -> ChatResponse:
        self.asked.append(self._time.now())
        self.in_flight += 1
        self.most = max(self.most, self.in_flight)
        try:
            step = self.script.pop(0) if self.script else ""
            seconds, error = step if isinstance(step, tuple) else (step, step)
            if isinstance(seconds, float):
                await self._time.sleep(seconds)
            if isinstance(error, Exception):
                raise error
            return ChatResponse(text=f"{self.name} answers", provider=self.name, tokens_in=self._usage)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.in_flight -= 1

    async def close(self) -> None:
        await self._time.settle()
        self.closed += 1


class Embedding(Scripted):
    async def embed(self, texts: Sequence[str]) -> Embeddings:
        await self.chat(ASKED)
        return Embeddings(vectors=((1.0,),) * len(texts), provider=self.name)


class Piecewise(Scripted):
    """Streams a chunk for each step of its script."""

    async def stream(self, request: ChatRequest) -> AsyncIterator[ChatChunk]:
        self.asked.append(self._time.now())
        self.in_flight += 1
        try:
            while self.script:
                step = self.script.pop(0)
                if isinstance(step, Exception):
                    raise step
                if isinstance(step, float):
                    await self._time.sleep(step)
                    continue
                assert isinstance(step, str)
                yield ChatChunk(text=step, response=None if self.script else ChatResponse(text="all", tokens_in=30))
        finally:
            self.in_flight -= 1


def made(time: Time, *routes: Route | ChatModel, **options: Any) -> Router:
    options = {"backoff": Backoff(rounds=3, base_s=1.0, longest_s=4.0), **options}
    made = [route if isinstance(route, Route) else Route(route) for route in routes]
    return Router(made, clock=time, rng=random.Random(1), sleep=time.sleep, **options)


def at_rest(router: Router) -> bool:
    """Nobody holds anything, nobody waits."""
    return all(route.in_flight == 0 and route.waiting == 0 for route in router.status()) and not router._waiting


def outage(wait_s: float = 0.0) -> ModelOutage:
    return ModelOutage("down", wait_s)
