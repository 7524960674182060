"""Several models as one: the second that is asked besides, answers in pieces, and what is given up."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from chimera.core.errors import (
    BudgetExceeded,
    ModelError,
    ModelOutage,
    ModelQuota,
    ModelRefused,
    Overloaded,
)
from chimera.llm.backoff import Backoff
from chimera.llm.chat import ChatChunk, ChatModel
from chimera.llm.route import SEEN_ENOUGH
from chimera.llm.router import Route, Router
from tests.unit.llm.routing import ASKED, Embedding, Piecewise, Scripted, Step, Time, at_rest, made, outage

# Hedging


async def hedging(now: Time, *more: Route | ChatModel) -> tuple[Scripted, Router]:
    """A route of which it is known that it takes a second."""
    a = Scripted("a", now)
    router = made(now, a, *more, hedge=True)
    for _ in range(SEEN_ENOUGH):
        a.script = [1.0]
        await now.run(router.chat(ASKED))
    a.asked.clear()
    return a, router


async def test_an_answer_that_takes_unusually_long_is_asked_of_another_and_the_first_is_cancelled() -> None:
    now = Time()
    b = Scripted("b", now, 2.0)
    a, router = await hedging(now, b)
    began = now.now()
    a.script = [50.0]
    assert (await now.run(router.chat(ASKED))).provider == "b"
    assert b.asked == [began + 1.0] and now.now() == began + 3.0
    await now.settle()
    assert a.cancelled == 1 and a.in_flight == 0 and at_rest(router)
    assert router.status()[0].failures == 0


async def test_the_first_may_still_win_and_then_the_second_is_cancelled() -> None:
    now = Time()
    b = Scripted("b", now, 50.0)
    a, router = await hedging(now, b)
    a.script = [2.0]
    assert (await now.run(router.chat(ASKED))).provider == "a"
    await now.settle()
    assert b.cancelled == 1 and at_rest(router)


async def test_in_time_nobody_else_is_asked_and_without_a_history_neither() -> None:
    now = Time()
    b = Scripted("b", now)
    a, router = await hedging(now, b)
    a.script = [0.9]
    assert (await now.run(router.chat(ASKED))).provider == "a"
    new = Scripted("new", now, 50.0)
    assert (await now.run(made(now, new, b, hedge=True).chat(ASKED))).provider == "new"
    assert b.asked == []


async def test_of_two_that_were_asked_one_may_fail_and_both_are_named_when_both_do() -> None:
    now = Time()
    b = Scripted("b", now, outage())
    a, router = await hedging(now, b)
    a.script = [5.0]
    assert (await now.run(router.chat(ASKED))).provider == "a"
    a.script, b.script = [(2.0, ModelOutage("a gone"))], [(5.0, ModelOutage("b gone"))]
    router._backoff = Backoff(rounds=1)
    with pytest.raises(ModelOutage, match="a: a gone; b: b gone"):
        await now.run(router.chat(ASKED))
    assert at_rest(router)


@pytest.mark.parametrize("error", [ModelRefused("bad"), BudgetExceeded("not enough for two"), KeyError("odd")])
async def test_what_the_second_raises_does_not_take_the_answer_of_the_first_away(error: Exception) -> None:
    now = Time()
    b = Scripted("b", now, error)
    a, router = await hedging(now, b)
    a.script = [50.0]
    assert (await now.run(router.chat(ASKED))).provider == "a"
    a.script, b.script = [(50.0, outage())], [error]
    with pytest.raises(type(error)) as caught:
        await now.run(router.chat(ASKED))
    assert caught.value is error, "as without the hedge: the first is down, and the next refuses"
    assert a.cancelled == 0 and at_rest(router)


async def test_what_the_first_refuses_is_refused_at_once() -> None:
    now = Time()
    b = Scripted("b", now, 50.0)
    a, router = await hedging(now, b)
    a.script, began = [(2.0, ModelRefused("bad"))], now.now()
    with pytest.raises(ModelRefused, match="bad"):
        await now.run(router.chat(ASKED))
    await now.settle()
    assert now.now() == began + 2.0 and b.cancelled == 1 and at_rest(router)


async def test_what_was_cut_short_does_not_make_it_less_patient() -> None:
    now = Time()
    a, router = await hedging(now, Scripted("b", now))
    for n in range(300):
        a.script = [50.0 if n % 10 == 0 else 0.1]
        await now.run(router.chat(ASKED))
        await now.settle()
    p95 = router._lanes[0].p95_s()
    assert p95 is not None and p95 >= 0.9, "one in ten takes longer than a second"


async def test_a_stream_is_not_hedged() -> None:
    now = Time()
    b = Scripted("b", now)
    a, router = await hedging(now, b)
    a.script = [9.0]
    assert await now.run(read(router.stream(ASKED))) == ["a answers"]
    assert b.asked == []


# Streams


async def read(chunks: AsyncIterator[ChatChunk]) -> list[str]:
    return [chunk.text async for chunk in chunks]


async def test_a_stream_fails_over_before_its_first_chunk() -> None:
    now = Time()
    a, b = Piecewise("a", now, outage()), Piecewise("b", now, "one", "two")
    router = made(now, a, b)
    assert await now.run(read(router.stream(ASKED))) == ["one", "two"]
    assert at_rest(router) and [s.failures for s in router.status()] == [1, 0]
    empty, c = Piecewise("empty", now), Piecewise("c", now, "all")
    assert await now.run(read(made(now, empty, c).stream(ASKED))) == ["all"]


async def test_after_its_first_chunk_the_error_goes_to_the_caller_and_counts() -> None:
    now = Time()
    error = outage()
    a, b = Piecewise("a", now, "one", error), Piecewise("b", now, "two")
    router = made(now, a, b)
    chunks = router.stream(ASKED)
    assert (await anext(chunks)).text == "one"
    with pytest.raises(ModelOutage) as caught:
        await anext(chunks)
    assert caught.value is error and b.asked == []
    assert at_rest(router) and router.status()[0].failures == 1


async def test_a_stream_holds_its_place_until_it_ends_or_is_closed() -> None:
    now = Time()
    a = Piecewise("a", now, "one", "two", "three")
    router = made(now, Route(a, max_concurrent=1, tokens_per_minute=200))
    async with contextlib.aclosing(router.stream(ASKED)) as chunks:  # type: ignore[type-var]
        await anext(chunks)
        assert router.status()[0].in_flight == 1 and a.in_flight == 1
    assert at_rest(router) and a.in_flight == 0
    a.script = ["four"]
    now.advance(60.0)
    await read(router.stream(ASKED))
    assert router._lanes[0].wait_s(170, now.now()) == 0.0, "30 of 200 were counted by the server"


async def test_a_stream_whose_end_was_told_is_ended_though_nobody_reads_on() -> None:
    now = Time()
    a, b = Piecewise("a", now, outage()), Piecewise("b", now, "spare")
    router = made(now, Route(a, failures=1, open_s=5.0, tokens_per_minute=200), b)
    await now.run(read(router.stream(ASKED)))
    now.advance(60.0)
    a.script = ["all"]
    async with contextlib.aclosing(router.stream(ASKED)) as chunks:  # type: ignore[type-var]
        assert (await anext(chunks)).response is not None
        assert router.status()[0].state == "closed", "the probe was good"
    assert at_rest(router) and router._lanes[0].wait_s(170, now.now()) == 0.0


async def test_a_server_that_counts_without_end_is_asked_again_a_minute_later() -> None:
    now = Time()
    a = Scripted("a", now, usage=10**400)
    router = made(now, Route(a, tokens_per_minute=200))
    for _ in range(2):
        assert (await now.run(router.chat(ASKED))).provider == "a"
    assert a.asked[1] <= 120.0 and at_rest(router)


# Embeddings, closing, cancelling


async def test_only_who_offers_embeddings_is_asked_for_them() -> None:
    now = Time()
    a, b, c = Scripted("a", now), Embedding("b", now, outage()), Embedding("c", now)
    router = made(now, a, b, c)
    assert (await router.embed(["x", "y"])).provider == "c"
    assert a.asked == [] and len(b.asked) == 1
    with pytest.raises(ModelRefused, match="no route offers embeddings"):
        await made(now, a, Route(c, embeds=False)).embed(["x"])


async def test_all_are_closed_though_one_cannot_be() -> None:
    class Stuck(Scripted):
        async def close(self) -> None:
            raise OSError("stuck")

    now = Time()
    a, b, c = Scripted("a", now), Stuck("b", now), Scripted("c", now)
    with pytest.raises(OSError, match="stuck"):
        await made(now, a, b, c).close()
    assert (a.closed, c.closed) == (1, 1)


WHAT = st.sampled_from(["ok", "slow", "outage", "wait", "refused", "quota"])


@hypothesis_settings(max_examples=60)
@given(
    st.lists(WHAT, max_size=30),
    st.lists(WHAT, max_size=30),
    st.lists(st.tuples(st.floats(0.0, 3.0), st.booleans(), st.floats(0.0, 6.0)), min_size=1, max_size=25),
    st.booleans(),
)
def test_whoever_is_cancelled_when_nothing_stays_held(
    first: list[str], second: list[str], callers: list[tuple[float, bool, float]], hedge: bool
) -> None:
    steps: dict[str, Step] = {
        "ok": "yes",
        "slow": 2.0,
        "outage": outage(),
        "wait": outage(3.0),
        "refused": (0.5, ModelRefused("no")),
        "quota": ModelQuota("pay"),
    }

    async def scenario() -> None:
        now = Time()
        models = [
            Scripted("a", now, *map(steps.__getitem__, first)),
            Scripted("b", now, *map(steps.__getitem__, second)),
        ]
        routes = [
            Route(models[0], max_concurrent=2, requests_per_minute=30, failures=2, open_s=2.0),
            Route(models[1], max_concurrent=1, tokens_per_minute=1_000),
        ]
        router = made(now, *routes, hedge=hedge, deadline_s=50.0, max_waiting=15)
        if hedge:
            for _ in range(SEEN_ENOUGH):
                router._lanes[0].took_at_least(0.2)

        async def caller(starts: float, cancelled: bool, after: float) -> None:
            await now.sleep(starts)
            call = asyncio.ensure_future(router.chat(ASKED))
            if cancelled:
                await now.sleep(after)
                call.cancel()
            await asyncio.wait({call})
            if not call.cancelled() and call.exception() is not None:
                assert isinstance(call.exception(), ModelError | Overloaded)

        await now.run(asyncio.gather(*(caller(*what) for what in callers)))
        await now.settle()
        assert at_rest(router)
        assert models[0].most <= 2 and models[1].most <= 1
        assert all(model.in_flight == 0 for model in models)
        assert not router._given_up

    asyncio.run(scenario())
