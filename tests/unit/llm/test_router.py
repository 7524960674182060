"""Several models as one: who is asked, when and how often. The models do as they are told, and so does the time."""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import itertools
import logging
import random
import socket
from collections.abc import AsyncIterator, Awaitable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from chimera.core.clock import ManualClock, SystemClock
from chimera.core.errors import (
    InputError,
    ModelError,
    ModelOutage,
    ModelQuota,
    ModelRefused,
    ModelTooLong,
    ModelUnauthorized,
    Overloaded,
)
from chimera.llm.backoff import Backoff
from chimera.llm.chat import ChatChunk, ChatMessage, ChatModel, ChatRequest, ChatResponse, Embeddings
from chimera.llm.openai_provider import OpenAIProvider
from chimera.llm.route import SEEN_ENOUGH
from chimera.llm.router import Route, Router, estimated_tokens
from tests.llm_server import LlmServer

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


async def test_the_first_is_asked_and_nobody_else() -> None:
    now = Time()
    a, b = Scripted("a", now), Scripted("b", now)
    assert (await made(now, a, b).chat(ASKED)).provider == "a"
    assert (len(a.asked), len(b.asked)) == (1, 0)


@pytest.mark.parametrize("error", [outage(), ModelQuota("nothing left")])
async def test_after_an_outage_the_next_is_asked_at_once(error: ModelError) -> None:
    now = Time()
    a, b = Scripted("a", now, error), Scripted("b", now)
    router = made(now, a, b)
    assert (await router.chat(ASKED)).provider == "b"
    assert b.asked == [0.0] and at_rest(router)
    assert [(s.calls, s.failures) for s in router.status()] == [(1, 1), (1, 0)]


@pytest.mark.parametrize(
    "error", [ModelRefused("no such parameter"), ModelTooLong("long"), ModelError("odd"), KeyError()]
)
async def test_what_no_other_would_do_better_goes_to_the_caller(error: Exception) -> None:
    now = Time()
    a, b = Scripted("a", now, error), Scripted("b", now)
    router = made(now, a, b)
    with pytest.raises(type(error)) as caught:
        await router.chat(ASKED)
    assert caught.value is error and b.asked == [] and at_rest(router)
    assert router.status()[0].failures == 0


async def test_who_does_not_take_the_key_is_not_asked_again_and_it_is_said_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    now = Time()
    a = Scripted("a", now, *[(1.0, ModelUnauthorized("401: is KEY set?"))] * 2)
    b = Scripted("b", now)
    router = made(now, a, b)
    with caplog.at_level(logging.INFO):
        answers = await now.run(asyncio.gather(router.chat(ASKED), router.chat(ASKED)))
        answers.append(await router.chat(ASKED))
    assert [answer.provider for answer in answers] == ["b"] * 3
    assert len(a.asked) == 2
    assert [record.getMessage() for record in caplog.records] == ["a is not asked any more: 401: is KEY set?"]
    assert (router.status()[0].state, router.status()[0].disabled) == ("disabled", "401: is KEY set?")
    assert router.status()[1].disabled is None


async def test_when_nobody_takes_the_key_it_says_so_without_another_round() -> None:
    now = Time()
    router = made(now, *(Scripted(name, now, ModelUnauthorized(f"{name} says 401")) for name in "ab"))
    with pytest.raises(ModelUnauthorized, match="a: a says 401; b: b says 401"):
        await router.chat(ASKED)
    assert now.now() == 0.0


async def test_rounds_end_and_the_error_names_each_route() -> None:
    now = Time()
    a = Scripted("a", now, *(ModelOutage(f"a{n}") for n in range(9)))
    b = Scripted("b", now, *(ModelOutage(f"b{n}") for n in range(9)))
    router = made(now, a, b)
    with pytest.raises(ModelOutage, match="3 rounds: a: a2; b: b2"):
        await now.run(router.chat(ASKED))
    assert len(a.asked) == len(b.asked) == 3
    first, second, third = b.asked
    assert first == 0.0 and 0.0 < second <= 1.0 and 0.0 < third - second <= 2.0
    assert at_rest(router)


async def test_the_same_seed_draws_the_same_pauses_and_another_seed_others() -> None:
    async def asked(seed: int) -> list[float]:
        now = Time()
        a = Scripted("a", now, outage(), outage())
        await now.run(Router([Route(a)], clock=now, rng=random.Random(seed), sleep=now.sleep).chat(ASKED))
        return a.asked

    assert await asked(1) == await asked(1) != await asked(2)


async def test_a_pause_is_as_long_as_the_server_asks_for_and_others_keep_away_as_well() -> None:
    now = Time()
    a = Scripted("a", now, outage(30.0))
    router = made(now, a)
    first, second = asyncio.ensure_future(router.chat(ASKED)), None
    await now.until(5.0)
    assert router.status()[0].state == "resting"
    second = asyncio.ensure_future(router.chat(ASKED))
    await now.run(asyncio.gather(first, second))
    assert a.asked[0] == 0.0 and all(at >= 30.0 for at in a.asked[1:]) and len(a.asked) == 3


async def test_a_pause_that_is_longer_than_there_is_time_is_not_waited_for() -> None:
    now = Time()
    router = made(now, Scripted("a", now, outage(3_000.0)), deadline_s=60.0)
    with pytest.raises(ModelOutage) as caught:
        await now.run(router.chat(ASKED))
    assert now.now() == 0.0 and caught.value.retry_after_s == 3_000.0


async def test_an_account_with_nothing_left_is_left_alone() -> None:
    now = Time()
    a, b = Scripted("a", now, ModelQuota("pay first")), Scripted("b", now)
    router = made(now, a, b)
    assert [(await router.chat(ASKED)).provider for _ in range(3)] == ["b"] * 3
    assert len(a.asked) == 1
    with pytest.raises(ModelQuota, match="pay first"):
        await made(now, Scripted("c", now, ModelQuota("pay first")), deadline_s=10.0).chat(ASKED)


async def test_the_deadline_cuts_a_call_off() -> None:
    router = Router([Route(Scripted("a", Time(), 99.0))], clock=SystemClock(), rng=random.Random(0), deadline_s=0.05)
    with pytest.raises(ModelOutage, match="when the time was up"):
        await router.chat(ASKED)
    assert at_rest(router)


async def test_a_route_that_fails_again_and_again_is_left_alone_then_probed_by_one() -> None:
    now = Time()
    a, b = Scripted("a", now, *(outage() for _ in range(3))), Scripted("b", now)
    router = made(now, Route(a, failures=3, open_s=10.0), b)
    for _ in range(5):
        assert (await router.chat(ASKED)).provider == "b"
    assert len(a.asked) == 3 and router.status()[0].state == "open"
    now.advance(10.0)
    assert router.status()[0].state == "half open"
    a.script = [1.0]
    answers = await now.run(asyncio.gather(*(router.chat(ASKED) for _ in range(5))))
    assert sorted(answer.provider for answer in answers) == ["a"] + ["b"] * 4
    assert router.status()[0].state == "closed"
    assert (await router.chat(ASKED)).provider == "a"


async def test_a_cancelled_probe_makes_place_for_the_next() -> None:
    now = Time()
    a, b = Scripted("a", now, outage()), Scripted("b", now)
    router = made(now, Route(a, failures=1, open_s=10.0), b)
    await router.chat(ASKED)
    now.advance(10.0)
    a.script = [99.0]
    probe = asyncio.ensure_future(router.chat(ASKED))
    await now.settle()
    assert (await router.chat(ASKED)).provider == "b"
    probe.cancel()
    await now.settle()
    assert (await router.chat(ASKED)).provider == "a"


async def test_where_there_is_no_room_the_next_is_asked_and_where_nowhere_is_they_take_turns() -> None:
    now = Time()
    a, b = Scripted("a", now, *(1.0,) * 9), Scripted("b", now, *(1.0,) * 9)
    router = made(now, Route(a, max_concurrent=2), Route(b, max_concurrent=1))
    order: list[int] = []

    async def ask(n: int) -> None:
        await router.chat(ASKED)
        order.append(n)

    calls = [asyncio.ensure_future(ask(n)) for n in range(9)]
    await now.settle()
    assert (a.in_flight, b.in_flight) == (2, 1)
    assert [status.waiting for status in router.status()] == [6, 6]
    await now.run(asyncio.gather(*calls))
    assert order == sorted(order) and now.now() == 3.0
    assert (a.most, b.most) == (2, 1) and at_rest(router)


async def test_requests_a_minute_are_kept_and_nobody_overtakes() -> None:
    now = Time()
    a = Scripted("a", now)
    router = made(now, Route(a, requests_per_minute=6))
    await now.run(asyncio.gather(*(router.chat(ASKED) for _ in range(12))))
    assert a.asked == pytest.approx([0.0] * 6 + [10.0 * n for n in range(1, 7)])


async def test_who_comes_later_does_not_take_the_place_that_has_just_become_free() -> None:
    now = Time()
    a = Scripted("a", now, *(1.0,) * 4)
    router, order = made(now, Route(a, max_concurrent=1)), list[str]()

    async def ask(name: str) -> None:
        await router.chat(ASKED)
        order.append(name)

    async def ask_twice() -> None:
        await ask("first")
        await ask("first again")

    await now.run(asyncio.gather(ask_twice(), ask("second"), ask("third")))
    assert order == ["first", "second", "third", "first again"]


async def test_the_next_in_line_goes_in_its_own_time_though_no_call_has_ended() -> None:
    now = Time()
    a = Scripted("a", now, *(100.0,) * 9)
    router = made(now, Route(a, requests_per_minute=6), deadline_s=500.0)
    await now.run(asyncio.gather(*(router.chat(ASKED) for _ in range(9))))
    assert a.asked == pytest.approx([0.0] * 6 + [10.0, 20.0, 30.0])


async def test_tokens_a_minute_follow_what_the_server_counted() -> None:
    now = Time()
    need = estimated_tokens(ASKED)
    frugal, greedy = Scripted("a", now, usage=need // 2), Scripted("b", now, usage=3 * need)
    cheap = made(now, Route(frugal, tokens_per_minute=2 * need))
    for _ in range(3):  # which by the estimate alone would be one too many
        await now.run(cheap.chat(ASKED))
    assert frugal.asked == [0.0] * 3
    dear = made(now, Route(greedy, tokens_per_minute=2 * need))
    await now.run(dear.chat(ASKED))
    await now.run(dear.chat(ASKED))
    assert greedy.asked == pytest.approx([0.0, 60.0])  # a debt of one, and one to have: two, at two a minute


async def test_what_no_route_may_ever_take_is_refused_and_a_larger_route_is_found() -> None:
    now = Time()
    small, large = Scripted("small", now), Scripted("large", now)
    with pytest.raises(ModelRefused, match="small: about 102 tokens are more than the 50 a minute"):
        await made(now, Route(small, tokens_per_minute=50)).chat(ASKED)
    assert (await made(now, Route(small, tokens_per_minute=50), large).chat(ASKED)).provider == "large"


async def test_more_than_may_wait_are_told_that_it_is_too_much() -> None:
    now = Time()
    router = made(now, Route(Scripted("a", now, 1.0, 1.0, 1.0), max_concurrent=1), max_waiting=2)
    calls = [asyncio.ensure_future(router.chat(ASKED)) for _ in range(3)]
    await now.settle()
    with pytest.raises(Overloaded) as caught:
        await router.chat(ASKED)
    assert caught.value.retry_after_s >= 1.0
    await now.run(asyncio.gather(*calls))
    assert at_rest(router)


async def test_those_who_wait_for_the_next_round_count_as_well() -> None:
    now = Time()
    router = made(now, Scripted("a", now, *(outage(20.0) for _ in range(2))), max_waiting=1)
    call = asyncio.ensure_future(router.chat(ASKED))
    await now.settle()
    with pytest.raises(Overloaded):
        await router.chat(ASKED)
    await now.run(call)
    assert at_rest(router)


async def test_who_waits_is_let_go_when_the_route_is_disabled_or_breaks() -> None:
    now = Time()
    for error in (ModelUnauthorized("401"), outage(60.0)):
        a, b = Scripted("a", now, (1.0, error)), Scripted("b", now, outage())
        router = made(now, Route(a, max_concurrent=1), Route(b, max_concurrent=1))
        calls = [asyncio.ensure_future(router.chat(ASKED)) for _ in range(6)]
        began = now.now()
        answers = await now.run(asyncio.gather(*calls))
        assert {answer.provider for answer in answers} == {"b"}
        assert now.now() - began < 10.0 and len(a.asked) == 1 and at_rest(router)


async def test_after_outages_fewer_calls_are_made_at_a_time() -> None:
    now = Time()
    a, b = Scripted("a", now, outage()), Scripted("b", now)
    router = made(now, Route(a, start_concurrent=8), b)
    await router.chat(ASKED)
    assert router.status()[0].limit == 4


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


async def test_a_refusal_by_either_goes_to_the_caller() -> None:
    now = Time()
    b = Scripted("b", now, ModelRefused("bad"))
    a, router = await hedging(now, b)
    a.script = [50.0]
    with pytest.raises(ModelRefused, match="bad"):
        await now.run(router.chat(ASKED))
    await now.settle()
    assert a.cancelled == 1 and at_rest(router)


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


@pytest.mark.parametrize("wrong", [{"deadline_s": 0.0}, {"max_waiting": -1}])
def test_what_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    now = Time()
    with pytest.raises(InputError, match="router"):
        made(now, Scripted("a", now), **wrong)
    with pytest.raises(InputError, match="different names"):
        made(now, Scripted("a", now), Scripted("a", now))
    with pytest.raises(InputError, match="1 to 64 routes"):
        made(now)


# The real wire


async def test_a_refused_connection_is_no_more_than_a_moment() -> None:
    async def pause(seconds: float) -> None:
        raise AssertionError(f"a pause of {seconds} s before the next route")

    with socket.socket() as taken, LlmServer() as server:
        taken.bind(("127.0.0.1", 0))  # and does not listen: who connects is refused
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
        dead, live = (
            OpenAIProvider(name, model="m", base_url=at) for name, at in (("dead", url), ("live", server.url))
        )
        await live.chat(ASKED)  # imports take their time
        routes = [Route(dead), Route(live)]
        async with Router(routes, clock=SystemClock(), rng=random.Random(0), sleep=pause) as router:
            async with asyncio.timeout(2.0):  # what is promised
                answer = await router.chat(ASKED)
            assert answer.text == "you said: how many?"
            assert [(s.calls, s.failures) for s in router.status()] == [(1, 1), (1, 0)]
