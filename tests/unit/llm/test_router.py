"""Several models as one: who is asked, when and how often. The models do as they are told, and so does the time."""

from __future__ import annotations

import asyncio
import logging
import random
import socket
from typing import Any

import pytest

from chimera.core.clock import SystemClock
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
from chimera.llm.openai_provider import OpenAIProvider
from chimera.llm.router import Route, Router, estimated_tokens
from tests.llm_server import LlmServer
from tests.unit.llm.routing import ASKED, Scripted, Time, at_rest, made, outage


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
