"""Several models as one: who cannot answer is followed by the next.

What an outage is, is said by the models (ModelOutage). A request that is refused is refused: another model would do
something else with it, and nobody would know that it was wrong.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import math
import random
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar, cast

from chimera.core.clock import Clock
from chimera.core.errors import (
    InputError,
    ModelError,
    ModelOutage,
    ModelQuota,
    ModelRefused,
    ModelUnauthorized,
    Overloaded,
)
from chimera.llm.backoff import Backoff
from chimera.llm.chat import ChatChunk, ChatModel, ChatRequest, ChatResponse, Embeddings
from chimera.llm.route import Held, Lane, Route, RouteStatus

__all__ = ["Route", "RouteStatus", "Router", "estimated_tokens"]

Sleep = Callable[[float], Awaitable[None]]

T = TypeVar("T")

CHARS_PER_TOKEN = 4

MAX_ROUTES = 64


@dataclass(slots=True)
class _Call(Generic[T]):
    """One caller's: what is asked, of whom, and what became of it. `ask` raises as the model does."""

    ask: Callable[[Held], Awaitable[T]]
    lanes: Sequence[Lane]
    tokens: int
    deadline: float
    hedged: bool = True
    tried: set[str] = field(default_factory=set)
    """In this round."""
    said: dict[str, str] = field(default_factory=dict)
    """Why each has not answered, the last thing last."""
    outages: dict[str, ModelOutage] = field(default_factory=dict)

    def failed(self, lane: Lane, error: ModelError) -> None:
        self.said.pop(lane.name, None)
        self.said[lane.name] = error.message
        if isinstance(error, ModelOutage):
            self.outages[lane.name] = error


class Router(ChatModel):
    """Asks `routes`, the first that can be asked first, and the next after an outage.

    When none has answered, all are asked again, after pauses that `backoff` gives, and that are as long as the servers
    ask for, until `deadline_s`; then the error names each route's. A route that does not take the key is not asked
    again. A route without room (its limits, `Route`) is passed over; where none has room, callers wait for their turn,
    `max_waiting` at most.

    `hedge`: an answer that takes longer than the p95 of its route's is asked of the next route too; the first to come
    is taken, and the other one is cancelled. What that costs, who wraps the models counts. Streams are not hedged.

    `rng` draws the pauses: one of its own for each process. Waits take `sleep`'s time, durations `clock`'s.
    """

    def __init__(
        self,
        routes: Sequence[Route],
        *,
        clock: Clock,
        rng: random.Random,
        name: str = "router",
        backoff: Backoff | None = None,
        deadline_s: float = 120.0,
        max_waiting: int = 10_000,
        hedge: bool = False,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        names = [route.model.name for route in routes]
        if not 1 <= len(names) <= MAX_ROUTES or len(set(names)) < len(names):
            raise InputError(f"a router of {names}: give 1 to {MAX_ROUTES} routes to models of different names")
        if not (0.0 < deadline_s < math.inf and max_waiting >= 0):
            raise InputError(f"a router of {deadline_s=}, {max_waiting=}: give a deadline above 0, and 0 or more")
        self.name = name
        self.writes = any(route.model.writes for route in routes)
        self._lanes = [Lane(route, clock.monotonic()) for route in routes]
        self._clock = clock
        self._rng = rng
        self._backoff = backoff or Backoff()
        self._deadline_s = deadline_s
        self._max_waiting = max_waiting
        self._waiting = 0
        self._hedge = hedge
        self._sleep = sleep
        self._given_up: set[asyncio.Task[Any]] = set()
        """Hedges that lost and are ending."""

    def status(self) -> tuple[RouteStatus, ...]:
        """How each route stands, in the order of preference."""
        now = self._clock.monotonic()
        return tuple(lane.status(now) for lane in self._lanes)

    async def chat(self, request: ChatRequest) -> ChatResponse:
        """The first answer. Raises ModelRefused as soon as one route does; ModelOutage, ModelQuota or
        ModelUnauthorized when no route answers in time; Overloaded when too many wait."""

        async def ask(held: Held) -> ChatResponse:
            answer = await held.lane.model.chat(request)
            held.end(self._clock.monotonic(), True, used=_used(answer))
            return answer

        return await self._answer(self._call(ask, self._lanes, estimated_tokens(request)))

    async def embed(self, texts: Sequence[str]) -> Embeddings:
        """Of the routes that offer it. Raises as `chat` does."""
        lanes = [lane for lane in self._lanes if lane.route.offers_embeddings()]
        if not lanes:
            raise ModelRefused(f"{self.name}: no route offers embeddings")

        async def ask(held: Held) -> Embeddings:
            answer = await held.lane.model.embed(texts)
            held.end(self._clock.monotonic(), True, used=answer.tokens_in or None)
            return answer

        return await self._answer(self._call(ask, lanes, sum(map(len, texts)) // CHARS_PER_TOKEN + len(texts)))

    async def stream(self, request: ChatRequest) -> AsyncIterator[ChatChunk]:
        """The first answer that begins. What goes wrong after its first chunk is raised: half of it has been read."""

        async def ask(held: Held) -> tuple[Held, AsyncGenerator[ChatChunk, None], ChatChunk]:
            chunks = cast(AsyncGenerator[ChatChunk, None], held.lane.model.stream(request))
            first = await anext(chunks, None)
            if first is None:
                raise ModelOutage(f"{held.lane.name} ended without an answer")
            return held, chunks, first

        call = self._call(ask, self._lanes, estimated_tokens(request))
        call.hedged = False
        held, chunks, first = await self._answer(call)
        took_s, chunk = self._clock.monotonic() - held.began, cast(ChatChunk | None, first)
        async with contextlib.aclosing(chunks):
            with self._ending(held):
                while chunk is not None:
                    if chunk.response is not None:  # who has read this one often reads no further
                        held.end(self._clock.monotonic(), True, used=_used(chunk.response), took_s=took_s)
                    yield chunk
                    chunk = await anext(chunks, None)
                held.end(self._clock.monotonic(), True, took_s=took_s)

    async def close(self) -> None:
        """Close every model, whatever the others do; then raise what the first of them raised."""
        for task in self._given_up:
            task.cancel()
        await asyncio.gather(*self._given_up, return_exceptions=True)
        ended = await asyncio.gather(*(lane.model.close() for lane in self._lanes), return_exceptions=True)
        for error in ended:
            if isinstance(error, BaseException):
                raise error

    def _call(self, ask: Callable[[Held], Awaitable[T]], lanes: Sequence[Lane], tokens: int) -> _Call[T]:
        return _Call(ask, lanes, tokens, self._clock.monotonic() + self._deadline_s)

    async def _answer(self, call: _Call[T]) -> T:
        """Round after round, until one of the lanes answers."""
        for failed in itertools.count(1):
            call.tried.clear()
            while (held := await self._next(call)) is not None:
                call.tried.add(held.lane.name)
                ask = self._ask_two if self._hedge and call.hedged else self._ask
                if (answer := await ask(held, call)) is not None:
                    return answer
            now = self._clock.monotonic()
            back_s = [lane.back_in_s(now) for lane in call.lanes if lane.never(call.tokens) is None]
            pause_s = self._backoff.pause_s(failed, self._rng, min(back_s, default=math.inf))
            if pause_s is None or now + pause_s >= call.deadline:
                raise self._no_answer(call, failed, min(back_s, default=0.0))
            with self._one_more_waits():
                await self._sleep(pause_s)
        raise AssertionError("unreachable")

    async def _next(self, call: _Call[T]) -> Held | None:
        """A place on the first lane, not tried in this round, that has room. None if there is none to wait for."""
        turn: asyncio.Event | None = None
        stands_for: list[Lane] = []
        try:
            while True:
                now = self._clock.monotonic()
                if now >= call.deadline:
                    return None
                if (held := self._take(call, now, turn)) is not None:
                    return held
                lanes = self._open(call, now)
                if not lanes:
                    return None
                turn = turn or asyncio.Event()
                _line_up(turn, stands_for, lanes)
                stands_for = lanes
                first_in = [lane.wait_s(call.tokens, now) for lane in lanes if next(iter(lane.line)) is turn]
                await self._wait(turn, min(*first_in, call.deadline - now, math.inf))
        finally:
            if turn is not None:
                _line_up(turn, stands_for, [])

    def _open(self, call: _Call[T], now: float) -> list[Lane]:
        """The lanes that may still be asked in this round."""
        lanes = []
        for lane in call.lanes:
            if lane.name not in call.tried:
                if (shut := lane.shut(call.tokens, now)) is None:
                    lanes.append(lane)
                else:
                    call.said.setdefault(lane.name, shut)
        return lanes

    def _take(self, call: _Call[T], now: float, turn: asyncio.Event | None = None) -> Held | None:
        """A place on the first lane that has one now, and for which nobody has waited longer."""
        for lane in call.lanes:
            if lane.name in call.tried or next(iter(lane.line), turn) is not turn:
                continue
            if lane.shut(call.tokens, now) is None and lane.wait_s(call.tokens, now) == 0.0:
                return lane.begin(call.tokens, now)
        return None

    async def _wait(self, turn: asyncio.Event, seconds: float) -> None:
        """Until something has changed, or the time has passed."""
        turn.clear()
        with self._one_more_waits():
            tasks = [asyncio.ensure_future(turn.wait()), asyncio.ensure_future(self._sleep(seconds))]
            try:
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in tasks:
                    task.cancel()

    async def _ask(self, held: Held, call: _Call[T]) -> T | None:
        """The answer; None where another lane may have one. What no other lane would do better is raised."""
        left_s = call.deadline - self._clock.monotonic()
        try:
            with self._ending(held):
                async with asyncio.timeout(left_s) as limit:
                    return await call.ask(held)
        except TimeoutError:
            if not limit.expired():
                raise
            call.failed(held.lane, ModelOutage(f"{held.lane.name} had not answered when the time was up"))
        except (ModelUnauthorized, ModelOutage) as error:
            call.failed(held.lane, error)
        return None

    async def _ask_two(self, held: Held, call: _Call[T]) -> T | None:
        """As `_ask`, but when the answer takes unusually long, another lane is asked besides. What that one raises
        (it refuses, or there is no money for two) is raised only where the first has no answer."""
        patience_s = held.lane.p95_s()
        if patience_s is None:
            return await self._ask(held, call)
        asking = self._ask(held, call)
        first = asyncio.create_task(asking)
        timer = asyncio.ensure_future(self._sleep(patience_s))
        asked = {first: held}
        try:
            await asyncio.wait({first, timer}, return_when=asyncio.FIRST_COMPLETED)
            if not first.done() and (other := self._take(call, self._clock.monotonic())) is not None:
                call.tried.add(other.lane.name)
                besides = self._ask(other, call)
                asked[asyncio.create_task(besides)] = other
            pending, refusal = set(asked), None
            while pending:
                done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                for task in sorted(done, key=lambda one: one is not first):
                    if task is not first and not task.cancelled() and (error := task.exception()) is not None:
                        refusal = error  # which the first, if it answers, never hears of
                    elif (answer := task.result()) is not None:
                        return answer
            if refusal is not None:
                raise refusal
            return None
        finally:
            timer.cancel()
            now = self._clock.monotonic()
            if len(asked) == 2 and not first.done():
                held.lane.took_at_least(now - held.began)
            for task, its in asked.items():
                self._give_up(task, its, now)

    def _give_up(self, task: asyncio.Task[T | None], held: Held, now: float) -> None:
        """Cancel it and give back what it holds: one that has not begun to run would not do it itself."""
        if not task.done():
            task.cancel()
            held.end(now, None)
        self._given_up.add(task)
        task.add_done_callback(self._gone)

    def _gone(self, task: asyncio.Task[Any]) -> None:
        self._given_up.discard(task)
        if not task.cancelled():
            task.exception()  # now it is seen, and asyncio does not complain that nobody looked

    @contextlib.contextmanager
    def _ending(self, held: Held) -> Iterator[None]:
        """What goes wrong with a call: its lane is told, and gets back what the call held."""
        try:
            yield
        except BaseException as error:
            now, good = self._clock.monotonic(), None
            if isinstance(error, ModelUnauthorized):
                held.lane.disable(error)
            elif isinstance(error, ModelOutage):
                held.lane.rest(error, now)
                good = False
            elif isinstance(error, ModelError):
                good = True  # its server is there, and has answered
            held.end(now, good)
            raise

    @contextlib.contextmanager
    def _one_more_waits(self) -> Iterator[None]:
        if self._waiting >= self._max_waiting:
            now = self._clock.monotonic()
            back_s = min(lane.back_in_s(now) for lane in self._lanes)
            raise Overloaded(f"{self.name}: {self._waiting} calls wait already", max(1.0, back_s))
        self._waiting += 1
        try:
            yield
        finally:
            self._waiting -= 1

    def _no_answer(self, call: _Call[T], rounds: int, back_s: float) -> ModelError:
        """The last error, which names each lane's. What may pass is an outage, whatever else there was."""
        said = "; ".join(f"{lane.name}: {call.said.get(lane.name, 'had no room')}" for lane in call.lanes)
        message = f"{self.name}: no route answered in {rounds} rounds: {said}"
        may_pass = [lane for lane in call.lanes if lane.never(call.tokens) is None]
        if not may_pass:
            unauthorized = all(lane.disabled is not None for lane in call.lanes)
            return ModelUnauthorized(message) if unauthorized else ModelRefused(message)
        quota = all(isinstance(call.outages.get(lane.name), ModelQuota) for lane in may_pass)
        return (ModelQuota if quota else ModelOutage)(message, back_s)


def estimated_tokens(request: ChatRequest) -> int:
    """About what a request will take: a token for each 4 characters that go in, and all that may come out."""
    chars = sum(len(message.content) for message in request.messages)
    chars += sum(len(quote.text) for quote in request.documents)
    if request.tools or request.answer:
        chars += len(json.dumps([tool.parameters for tool in request.tools])) + len(json.dumps(request.answer))
    return chars // CHARS_PER_TOKEN + request.max_tokens


def _used(answer: ChatResponse) -> int | None:
    """What its server counted; None where it counts nothing."""
    return answer.tokens_in + answer.tokens_out or None


def _line_up(turn: asyncio.Event, left: Sequence[Lane], joined: Sequence[Lane]) -> None:
    """Stand in line for `joined`, and no longer for others of `left`, where the next one's turn may have come."""
    for lane in left:
        if lane not in joined and lane.line.pop(turn, turn) is None:
            lane.wake()
    for lane in joined:
        lane.line.setdefault(turn)
