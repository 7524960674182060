"""The same question is asked once: in a row, at the same time, and whoever gives up waiting."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chimera.core.clock import ManualClock
from chimera.core.errors import BudgetExceeded, InputError, ModelOutage
from chimera.core.types import Quote
from chimera.llm.cache import CachedModel
from chimera.llm.chat import ChatChunk, ChatMessage, ChatModel, ChatRequest, ChatResponse, Embeddings, ToolSpec
from chimera.llm.meter import Cap, Caps, Meter, Metered, charged_to
from chimera.llm.prices import Prices


class Counting(ChatModel):
    """Answers each request with its text, when it is let."""

    writes = True

    def __init__(self, name: str = "fake:m") -> None:
        self.name = name
        self.calls: list[str] = []
        self.cancelled = 0
        self.closed = False
        self.open = asyncio.Event()
        self.open.set()
        self.error: Exception | None = None

    async def chat(self, request: ChatRequest) -> ChatResponse:
        asked = request.messages[-1].content
        self.calls.append(asked)
        try:
            await self.open.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.error is not None:
            raise self.error
        return ChatResponse(text=f"re {asked}", tokens_in=5, tokens_out=2, cost_usd=0.25, model="m-1", request_id="r1")

    async def stream(self, request: ChatRequest) -> AsyncIterator[ChatChunk]:
        response = await self.chat(request)
        for char in response.text:
            yield ChatChunk(text=char)
        yield ChatChunk(response=response)

    async def embed(self, texts: Sequence[str]) -> Embeddings:
        self.calls.append("embed")
        return Embeddings(vectors=tuple((float(len(text)),) for text in texts), tokens_in=9, cost_usd=0.5)

    async def close(self) -> None:
        self.closed = True


def asking(text: str, **options: Any) -> ChatRequest:
    return ChatRequest(messages=(ChatMessage(role="user", content=text),), **options)


def cached(model: ChatModel, clock: ManualClock | None = None, **options: Any) -> CachedModel:
    return CachedModel(model, clock=clock or ManualClock(), **options)


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_a_hit_is_the_same_answer_costs_nothing_and_says_so() -> None:
    model = Counting()
    cache = cached(model)
    first, second = await cache.chat(asking("a")), await cache.chat(asking("a"))
    assert (first.tokens_in, first.tokens_out, first.cost_usd) == (5, 2, 0.25)
    assert (second.tokens_in, second.tokens_out, second.cost_usd) == (0, 0, 0.0)
    assert (second.text, second.model) == (first.text, first.model)
    assert (len(model.calls), cache.hits, cache.misses) == (1, 1, 1)
    assert (cache.name, cache.writes) == ("fake:m", True)


TOOL = ToolSpec(name="t", parameters={"type": "object", "properties": {"n": {"type": "number"}}})
ALIKE: list[dict[str, Any]] = [
    {},
    {"max_tokens": 7},
    {"seed": 1},
    {"seed": 2},
    {"seed": 1, "temperature": 0.5},
    {"tools": (TOOL,)},
    {"tools": (TOOL.model_copy(update={"description": "x"}),)},
    {"answer": {"type": "object"}},
    {"answer": {}},
    {"documents": (Quote(text="x", file="f", line=1),)},
    {"documents": (Quote(text="x", file="f", line=2),)},
]


async def test_the_key_is_all_of_the_request() -> None:
    model = Counting()
    cache = cached(model)
    for _ in range(2):
        for options in ALIKE:
            await cache.chat(asking("a", **options))
    assert len(model.calls) == len(ALIKE) == cache.hits


async def test_the_order_of_a_schemas_fields_makes_no_difference() -> None:
    model = Counting()
    cache = cached(model)
    await cache.chat(asking("a", answer={"x": 1, "y": 2}))
    await cache.chat(asking("a", answer={"y": 2, "x": 1}))
    assert len(model.calls) == 1


async def test_what_is_sampled_without_a_seed_or_has_no_json_form_is_not_kept() -> None:
    model = Counting()
    cache = cached(model)
    unkept: list[dict[str, Any]] = [{"temperature": 0.1}, {"answer": {"x": float("nan")}}]
    for options in unkept:
        await asyncio.gather(*(cache.chat(asking("a", **options)) for _ in range(2)))
    assert len(model.calls) == 4 and cache.hits == 0


async def test_an_error_is_not_kept() -> None:
    model = Counting()
    cache = cached(model)
    model.error = ModelOutage("busy")
    with pytest.raises(ModelOutage):
        await cache.chat(asking("a"))
    model.error = None
    assert (await cache.chat(asking("a"))).text == "re a"


async def test_an_answer_grows_old() -> None:
    model, clock = Counting(), ManualClock()
    cache = cached(model, clock, ttl_s=10.0)
    await cache.chat(asking("a"))
    clock.advance(9.9)
    await cache.chat(asking("a"))
    assert len(model.calls) == 1
    clock.advance(0.1)
    await cache.chat(asking("a"))
    assert len(model.calls) == 2


async def test_the_least_recently_used_goes_first() -> None:
    model = Counting()
    cache = cached(model, max_entries=2)
    for text in "abacab":
        await cache.chat(asking(text))
    assert model.calls == ["a", "b", "c", "b"]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(1, 300)), max_size=30))
def test_bytes_are_bounded_too_and_what_is_larger_than_all_is_not_kept(asked: list[tuple[str, int]]) -> None:
    async def ask_all() -> None:
        cache = cached(Counting(), max_bytes=500, max_entries=3)
        for letter, size in asked:
            await cache.chat(asking(letter * size))
            sizes = [len(entry.answer.model_dump_json()) for entry in cache._kept._entries.values()]
            assert sum(sizes) == cache._kept._bytes <= 500 and len(sizes) <= 3
            assert size > 50 or sizes, "a small answer is kept"

    asyncio.run(ask_all())


async def test_what_is_larger_than_all_drives_nothing_out() -> None:
    model = Counting()
    cache = cached(model, max_bytes=500)
    for text in ("a", "x" * 600, "a"):
        await cache.chat(asking(text))
    assert len(model.calls) == 2


async def test_who_asks_at_the_same_time_shares_one_call_and_one_pays() -> None:
    model = Counting()
    cache = cached(model)
    answers = await asyncio.gather(*(cache.chat(asking("a")) for _ in range(50)), cache.chat(asking("b")))
    assert sorted(model.calls) == ["a", "b"]
    assert {answer.text for answer in answers[:-1]} == {"re a"}
    assert sum(answer.cost_usd or 0.0 for answer in answers) == 0.5
    assert not cache._flights


@pytest.mark.parametrize("leaves", [0, 1])
async def test_who_gives_up_waiting_takes_nobody_along(leaves: int) -> None:
    model = Counting()
    cache = cached(model)
    model.open.clear()
    waiting = [asyncio.create_task(cache.chat(asking("a"))) for _ in range(3)]
    await turns()
    waiting[leaves].cancel()
    await turns()
    assert waiting[leaves].cancelled()
    model.open.set()
    rest = [await task for task in waiting if task is not waiting[leaves]]
    assert [answer.text for answer in rest] == ["re a"] * 2
    assert sum(answer.cost_usd or 0.0 for answer in rest) == 0.25, "one of those who are left pays"
    assert len(model.calls) == 1 and model.cancelled == 0


async def test_with_the_last_who_waits_the_call_is_cancelled_and_the_next_asks_anew() -> None:
    model = Counting()
    cache = cached(model)
    model.open.clear()
    waiting = [asyncio.create_task(cache.chat(asking("a"))) for _ in range(2)]
    await turns()
    for task in waiting:
        task.cancel()
    await asyncio.sleep(0)  # the call has not ended yet
    model.open.set()
    assert (await cache.chat(asking("a"))).text == "re a"
    await turns()
    assert (model.cancelled, len(model.calls)) == (1, 2) and not cache._flights


async def test_an_outage_is_everybodys_and_a_spent_budget_is_ones_own() -> None:
    model = Counting()
    meter = Meter(Prices(), Caps(mission=Cap(calls=1)), ManualClock())
    cache = cached(Metered(model, meter))

    async def ask(mission: str) -> ChatResponse:
        with charged_to(mission=mission):
            return await cache.chat(asking("b"))

    with charged_to(mission="m1"):
        await cache.chat(asking("a"))
    refused, answered, shared = await asyncio.gather(ask("m1"), ask("m2"), ask("m3"), return_exceptions=True)
    assert isinstance(refused, BudgetExceeded)
    assert isinstance(answered, ChatResponse) and isinstance(shared, ChatResponse)
    assert model.calls == ["a", "b"] and [entry.mission for entry in meter.entries] == ["m1", "m2"]
    model.error = ModelOutage("busy")
    with charged_to(mission="m4"):
        caught = await asyncio.gather(*(cache.chat(asking("c")) for _ in range(3)), return_exceptions=True)
    assert [type(one) for one in caught] == [ModelOutage] * 3 and model.calls.count("c") == 1


async def test_a_hit_is_free_in_a_meter_around_it_too() -> None:
    meter = Meter(Prices(), Caps(day=Cap(tokens=3_000)), ManualClock())
    metered = Metered(cached(Counting()), meter)
    for _ in range(3):
        await metered.chat(asking("a"))
    assert (meter.today().tokens, meter.today().usd, meter.today().unpriced) == (7, 0.25, 0)


async def test_a_stream_is_kept_at_its_end_and_a_hit_comes_whole() -> None:
    model = Counting()
    cache = cached(model)
    stream = cache.stream(asking("a"))
    await anext(stream)
    await stream.aclose()  # type: ignore[attr-defined]
    for _ in range(2):
        chunks = [chunk async for chunk in cache.stream(asking("a"))]
        assert "".join(chunk.text for chunk in chunks) == "re a"
    (chunk,) = chunks
    assert chunk.response is not None and chunk.response.cost_usd == 0.0
    assert (await cache.chat(asking("a"))).cost_usd == 0.0
    assert len(model.calls) == 2


async def test_embeddings_are_kept_by_their_texts() -> None:
    model = Counting()
    cache = cached(model)
    first, again, other = [await cache.embed(texts) for texts in (["a", "bb"], ["a", "bb"], ["abb"])]
    assert first.vectors == again.vectors == ((1.0,), (2.0,)) and other.vectors == ((3.0,),)
    assert (first.cost_usd, again.cost_usd, again.tokens_in, len(model.calls)) == (0.5, 0.0, 0, 2)


async def test_to_close_ends_what_is_in_progress_with_a_reason() -> None:
    model = Counting()
    cache = cached(model)
    model.open.clear()
    waiting = asyncio.create_task(cache.chat(asking("a")))
    await turns()
    await cache.close()
    with pytest.raises(ModelOutage, match="closed"):
        await waiting
    assert model.closed and model.cancelled == 1


@pytest.mark.parametrize("wrong", [{"max_entries": 0}, {"max_bytes": 0}, {"ttl_s": 0.0}, {"ttl_s": float("nan")}])
async def test_a_cache_without_room_is_no_cache(wrong: dict[str, Any]) -> None:
    make: Callable[[], CachedModel] = lambda: cached(Counting(), **wrong)  # noqa: E731
    with pytest.raises(InputError):
        make()
