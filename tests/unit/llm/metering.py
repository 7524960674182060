"""A model that says what it is told to, and what the tests of the meter share."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any, cast

from chimera.core.clock import ManualClock
from chimera.llm.chat import ChatChunk, ChatMessage, ChatModel, ChatRequest, ChatResponse, Embeddings
from chimera.llm.meter import Caps, Meter
from chimera.llm.prices import Prices
from chimera.llm.usage import most_tokens

PRICES = Prices.of({"fake:*": {"input": 1.0, "output": 10.0}, "fake:free": {"input": 0, "output": 0}})
ASKED = ChatRequest(messages=(ChatMessage(role="user", content="hello"),), max_tokens=100)
MOST = most_tokens(ASKED)
WHOLE = ChatResponse(text="hello", tokens_in=7, tokens_out=3)
NOON_S = 1_000_000_800.0 + 10 * 3600


class Fake(ChatModel):
    """Says what it is told to say: a response, an error, or what a function returns."""

    writes = True

    def __init__(self, say: Any = None, name: str = "fake:m") -> None:
        self.name = name
        self.say = say if say is not None else ChatResponse(text="hi", tokens_in=7, tokens_out=3)
        self.calls = 0
        self.closed = False

    async def chat(self, request: ChatRequest) -> ChatResponse:
        self.calls += 1
        said = await self.say() if callable(self.say) else self.say
        if isinstance(said, BaseException):
            raise said
        return cast(ChatResponse, said)

    async def stream(self, request: ChatRequest) -> AsyncIterator[ChatChunk]:
        self.calls += 1
        for said in self.say:
            if isinstance(said, BaseException):
                raise said
            yield cast(ChatChunk, said)

    async def embed(self, texts: Sequence[str]) -> Embeddings:
        if isinstance(self.say, BaseException):
            raise self.say
        return cast(Embeddings, self.say)

    async def close(self) -> None:
        self.closed = True


def a_meter(caps: Caps = Caps(), clock: ManualClock | None = None, **options: Any) -> Meter:  # noqa: B008 - frozen
    return Meter(PRICES, caps, clock or ManualClock(NOON_S), **options)


def nothing_is_held(meter: Meter) -> bool:
    today = meter.today()
    return (today.usd_reserved, today.tokens_reserved, today.calls_reserved) == (0.0, 0, 0)
