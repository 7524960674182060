"""An exact cache of answers: the same request to the same model is asked once, also when many ask at the same time."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import Any, NamedTuple, TypeVar, cast

from pydantic import JsonValue

from chimera.core.clock import Clock
from chimera.core.errors import InputError, ModelError, ModelOutage
from chimera.core.hashing import digest
from chimera.llm.chat import ChatChunk, ChatModel, ChatRequest, ChatResponse, Embeddings

MAX_ENTRIES = 1_000
MAX_BYTES = 64_000_000
TTL_S = 3_600.0

T = TypeVar("T", bound=ChatResponse | Embeddings)


class CachedModel(ChatModel):
    """`model`, whose answers are kept for `ttl_s` seconds, at most `max_entries` and `max_bytes` of them (as JSON).

    The least recently used goes first. A hit took no tokens and costs 0.0, and says so. What is sampled without a seed
    is not kept; errors never are. Put it around a `Metered` model: who asks first then pays. Belongs to one event loop.
    """

    def __init__(
        self,
        model: ChatModel,
        *,
        clock: Clock,
        max_entries: int = MAX_ENTRIES,
        max_bytes: int = MAX_BYTES,
        ttl_s: float = TTL_S,
    ) -> None:
        if max_entries < 1 or max_bytes < 1 or not ttl_s > 0:
            raise InputError("a cache holds at least one entry and one byte, for more than 0 s")
        self.name = model.name
        self.writes = model.writes
        self.hits = 0
        self.misses = 0
        """Also what waited for the same question of another."""
        self._model = model
        self._kept = _Kept(clock, max_entries, max_bytes, ttl_s)
        self._flights: dict[str, _Flight] = {}

    async def chat(self, request: ChatRequest) -> ChatResponse:
        key = self._key(request)
        if key is None:
            return await self._model.chat(request)
        return await self._once(key, lambda: self._model.chat(request))

    async def stream(self, request: ChatRequest) -> AsyncIterator[ChatChunk]:
        """A hit comes in one piece. A miss is kept when it came to its end; it is shared with nobody while it runs."""
        key = self._key(request)
        hit = self._hit(key) if key else None
        if isinstance(hit, ChatResponse):
            yield ChatChunk(text=hit.text, response=hit)
            return
        self.misses += key is not None
        async with aclosing(cast(AsyncGenerator[ChatChunk, None], self._model.stream(request))) as chunks:
            async for chunk in chunks:
                if key and chunk.response is not None:
                    self._kept.put(key, chunk.response)
                yield chunk

    async def embed(self, texts: Sequence[str]) -> Embeddings:
        asked = list(texts)
        return await self._once(digest([self.name, "embed", *asked]), lambda: self._model.embed(asked))

    async def close(self) -> None:
        flights = list(self._flights.values())
        for flight in flights:
            flight.task.cancel()
        await asyncio.gather(*(flight.task for flight in flights), return_exceptions=True)
        await self._model.close()

    def _key(self, request: ChatRequest) -> str | None:
        """None: not to be kept, since it is sampled, or holds a number that has no JSON form."""
        if request.temperature > 0 and request.seed is None:
            return None
        try:
            return digest([self.name, "chat", cast(JsonValue, request.model_dump())])
        except ValueError:
            return None

    def _hit(self, key: str) -> ChatResponse | Embeddings | None:
        kept = self._kept.get(key)
        self.hits += kept is not None
        return _free(kept) if kept is not None else None

    async def _once(self, key: str, call: Callable[[], Awaitable[T]]) -> T:
        """The kept answer, or the one that is on its way, or that of `call`.

        What one caller may not (its budget is spent) is no answer to another, who then asks for himself.
        """
        if (hit := self._hit(key)) is not None:
            return cast(T, hit)  # the key says in itself which of both it is
        self.misses += 1
        while True:
            flight, follows = self._flights.get(key), True
            if flight is None:
                flight, follows = self._take_off(key, call), False
            try:
                answer = cast(T, await self._wait(key, flight))
            except ModelError:
                raise
            except Exception:
                if not follows:
                    raise
                continue
            if flight.paid:
                return _free(answer)
            flight.paid = True
            return answer

    def _take_off(self, key: str, call: Callable[[], Awaitable[T]]) -> _Flight:
        async def fly() -> ChatResponse | Embeddings:
            answer = await call()
            self._kept.put(key, answer)
            return answer

        flight = self._flights[key] = _Flight(asyncio.create_task(fly()))
        flight.task.add_done_callback(lambda task: self._land(key, flight))
        return flight

    def _land(self, key: str, flight: _Flight) -> None:
        if self._flights.get(key) is flight:
            del self._flights[key]
        if not flight.task.cancelled():
            flight.task.exception()  # heard, though nobody may wait any more

    async def _wait(self, key: str, flight: _Flight) -> ChatResponse | Embeddings:
        """Wait beside others. Who is cancelled leaves; with the last one the call is cancelled too."""
        flight.waiting += 1
        try:
            return await asyncio.shield(flight.task)
        except asyncio.CancelledError:
            if flight.task.cancelled() and not _is_cancelled():
                raise ModelOutage(f"{self.name} was closed before it answered") from None
            raise
        finally:
            flight.waiting -= 1
            if not flight.waiting and not flight.task.done():
                self._flights.pop(key, None)  # who comes now has to ask anew
                flight.task.cancel()


class _Flight:
    """A call that several wait for. `paid`: one of them has been given its cost."""

    def __init__(self, task: asyncio.Task[ChatResponse | Embeddings]) -> None:
        self.task = task
        self.waiting = 0
        self.paid = False


class _Entry(NamedTuple):
    answer: ChatResponse | Embeddings
    size: int
    expires_s: float


class _Kept:
    """Answers by key, bounded in number, bytes and age."""

    def __init__(self, clock: Clock, max_entries: int, max_bytes: int, ttl_s: float) -> None:
        self._clock = clock
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._ttl_s = ttl_s
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._bytes = 0

    def get(self, key: str) -> ChatResponse | Embeddings | None:
        entry = self._entries.get(key)
        if entry is None:
            return None
        if self._clock.monotonic() >= entry.expires_s:
            self._drop(key)
            return None
        self._entries.move_to_end(key)
        return entry.answer

    def put(self, key: str, answer: ChatResponse | Embeddings) -> None:
        self._drop(key)
        size = len(answer.model_dump_json().encode())
        if size > self._max_bytes:
            return
        self._entries[key] = _Entry(answer, size, self._clock.monotonic() + self._ttl_s)
        self._bytes += size
        while len(self._entries) > self._max_entries or self._bytes > self._max_bytes:
            self._drop(next(iter(self._entries)))

    def _drop(self, key: str) -> None:
        entry = self._entries.pop(key, None)
        self._bytes -= entry.size if entry else 0


def _free(answer: T) -> T:
    """The same answer, which took nothing this time."""
    nothing: dict[str, Any] = {"tokens_in": 0, "cost_usd": 0.0, "from_cache": True}
    if isinstance(answer, ChatResponse):
        nothing |= {"tokens_out": 0, "tokens_cached": 0, "tokens_stored": 0}
    return cast(T, answer.model_copy(update=nothing))


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
