"""What calls come to: what is counted of them, what is refused, and who pays. What is not known is not nothing."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import aclosing
from typing import Any, cast

import pytest

from chimera.core.clock import ManualClock
from chimera.core.errors import (
    BudgetExceeded,
    InputError,
    ModelError,
    ModelOutage,
    ModelQuota,
    ModelRefused,
    ModelSilent,
    ModelTooLong,
    ModelUnauthorized,
    Overloaded,
)
from chimera.core.types import Quote
from chimera.llm import meter as meter_module
from chimera.llm.chat import ChatChunk, ChatResponse, Embeddings
from chimera.llm.meter import Cap, Caps, Meter, Metered, charged_to
from chimera.llm.offline import OfflineModel
from chimera.llm.openai_provider import OpenAIProvider
from tests.llm_server import LlmServer, Said
from tests.unit.llm.metering import ASKED, MOST, NOON_S, WHOLE, Fake, a_meter, nothing_is_held


async def test_a_call_is_counted_with_the_servers_own_usage_and_told_its_cost() -> None:
    clock = ManualClock(NOON_S)
    meter = a_meter(clock=clock)

    async def slowly() -> ChatResponse:
        clock.advance(1.5)
        return ChatResponse(text="hi", tokens_in=7, tokens_out=3)

    with charged_to(mission="m1", agent="a1"):
        response = await Metered(Fake(slowly), meter).chat(ASKED)
    assert response.cost_usd == pytest.approx(37e-6)
    (entry,) = meter.entries
    assert (entry.provider, entry.model, entry.outcome, entry.mission, entry.agent) == (
        "fake",
        "fake:m",
        "ok",
        "m1",
        "a1",
    )
    assert (entry.tokens_in, entry.tokens_out, entry.elapsed_s, entry.assumed) == (7, 3, 1.5, False)
    for totals in (meter.totals(mission="m1"), meter.totals(agent="a1"), meter.today()):
        assert (totals.usd, totals.tokens, totals.calls, totals.unpriced) == (37e-6, 10, 1, 0)
    assert meter.totals(mission="m2").calls == 0
    assert nothing_is_held(meter)


async def test_a_cost_that_the_server_says_goes_before_the_price() -> None:
    meter = a_meter()
    response = await Metered(Fake(ChatResponse(text="", tokens_in=7, cost_usd=0.5)), meter).chat(ASKED)
    assert response.cost_usd == 0.5 and meter.today().usd == 0.5


async def test_a_cost_that_is_not_known_is_not_nothing() -> None:
    meter = a_meter()
    response = await Metered(Fake(name="who:knows"), meter).chat(ASKED)
    assert response.cost_usd is None and meter.entries[0].cost_usd is None
    assert (meter.today().unpriced, meter.today().tokens) == (1, 10)


async def test_a_server_that_says_nothing_of_its_usage_is_counted_from_above() -> None:
    meter = a_meter()
    response = await Metered(Fake(ChatResponse(text="four")), meter).chat(ASKED)
    (entry,) = meter.entries
    assert (entry.tokens_in, entry.tokens_out, entry.assumed) == (MOST, 4, True)
    assert response.cost_usd is None and meter.today().usd == pytest.approx((MOST + 40) * 1e-6)


async def test_a_model_that_writes_nothing_took_nothing() -> None:
    meter = a_meter()
    asked = ASKED.model_copy(update={"documents": (Quote(text="x", file="f", line=1),)})
    await Metered(OfflineModel(), meter).chat(asked)
    assert (meter.today().tokens, meter.today().calls) == (0, 1)


CAPS = [
    (Caps(mission=Cap(calls=2)), "the cap of 2 calls for the mission 'm1': 0 calls are left", "up to 1 calls"),
    (Caps(agent=Cap(tokens=MOST + 115)), "for the agent 'a1': ", f"up to {MOST + 100} tokens"),
    (Caps(day=Cap(usd=0.001_100)), "for the day 2001-09-09 (UTC): 0.001026 USD are left", "up to 0.00"),
]


@pytest.mark.parametrize(("caps", "told", "asked"), CAPS)
async def test_what_cannot_be_reserved_is_not_started_and_says_why(caps: Caps, told: str, asked: str) -> None:
    fake, meter = Fake(), a_meter(caps)
    metered = Metered(fake, meter)
    with charged_to(mission="m1", agent="a1"):
        await metered.chat(ASKED)
        await metered.chat(ASKED)
        with pytest.raises(BudgetExceeded) as caught:
            await metered.chat(ASKED)
        with pytest.raises(BudgetExceeded):
            await anext(aiter(metered.stream(ASKED)))
    assert told in str(caught.value) and asked in str(caught.value) and "fake:m was not asked" in str(caught.value)
    assert fake.calls == 2 and len(meter.entries) == 2 and nothing_is_held(meter)


async def test_a_mission_s_cap_is_no_other_missions() -> None:
    metered = Metered(Fake(), a_meter(Caps(mission=Cap(calls=1))))
    for mission in ("m1", "m2", ""):
        with charged_to(mission=mission):
            await metered.chat(ASKED)
            with pytest.raises(BudgetExceeded):
                await metered.chat(ASKED)
    with pytest.raises(BudgetExceeded):
        await metered.chat(ASKED)  # of nobody: that is one mission too


async def test_a_cap_in_usd_needs_a_price_and_a_cap_in_tokens_does_not() -> None:
    fake = Fake(name="who:knows")
    with pytest.raises(InputError, match=r"price of who:knows is not known; set one .*'who:knows': \{input"):
        await Metered(fake, a_meter(Caps(day=Cap(usd=100.0)))).chat(ASKED)
    assert fake.calls == 0
    await Metered(fake, a_meter(Caps(day=Cap(tokens=1_000)))).chat(ASKED)


async def test_zero_forbids_and_a_free_model_passes_a_cap_in_usd_of_zero() -> None:
    with pytest.raises(BudgetExceeded):
        await Metered(Fake(), a_meter(Caps(day=Cap(calls=0)))).chat(ASKED)
    await Metered(Fake(name="fake:free"), a_meter(Caps(day=Cap(usd=0.0)))).chat(ASKED)


async def test_a_day_is_a_day_of_the_clock_in_utc_and_comes_once() -> None:
    clock = ManualClock(NOON_S)
    meter = a_meter(Caps(day=Cap(calls=1)), clock)
    metered = Metered(Fake(), meter)
    await metered.chat(ASKED)
    clock.advance(11 * 3600)
    with pytest.raises(BudgetExceeded):
        await metered.chat(ASKED)
    clock.advance(4 * 3600)
    await metered.chat(ASKED)
    assert meter.today().calls == 1 and len(meter.entries) == 2
    clock._now -= 86_400.0  # somebody set it back
    with pytest.raises(BudgetExceeded):
        await metered.chat(ASKED)


async def test_more_than_was_reserved_is_counted_in_full_and_the_next_is_refused() -> None:
    meter = a_meter(Caps(mission=Cap(tokens=10_000)))
    metered = Metered(Fake(ChatResponse(text="", tokens_in=20_000, tokens_out=1)), meter)
    await metered.chat(ASKED)
    assert meter.totals(mission="").tokens == 20_001
    with pytest.raises(BudgetExceeded, match="0 tokens are left"):
        await metered.chat(ASKED)


async def test_a_server_that_says_a_sum_without_end_breaks_nothing() -> None:
    meter = a_meter()
    await Metered(Fake(ChatResponse(text="", tokens_in=10**400, tokens_out=10**400)), meter).chat(ASKED)
    await Metered(Fake(ChatResponse(text="", tokens_in=1, cost_usd=1e308)), meter).chat(ASKED)
    assert meter.today().calls == 2 and nothing_is_held(meter)


def timed_out() -> ModelOutage:
    try:
        try:
            raise TimeoutError
        except TimeoutError:
            raise ModelOutage("late") from None
    except ModelOutage as error:
        return error


FAILURES: list[tuple[BaseException, str, bool]] = [
    (ModelOutage("no connection"), "outage", False),
    (ModelQuota("broke"), "quota", False),
    (ModelRefused("400"), "refused", False),
    (ModelUnauthorized("401"), "unauthorized", False),
    (ModelSilent("late"), "silent", True),
    (timed_out(), "silent", True),
    (ModelTooLong("long"), "failed", True),
    (ModelError("odd"), "failed", True),
    (RuntimeError("odd"), "failed", True),
    (asyncio.CancelledError(), "cancelled", True),
]


@pytest.mark.parametrize(("error", "outcome", "spent"), FAILURES)
@pytest.mark.parametrize("how", ["chat", "stream", "embed"])
async def test_a_call_that_raised_is_settled_with_what_is_known(
    error: BaseException, outcome: str, spent: bool, how: str
) -> None:
    meter = a_meter()
    metered = Metered(Fake([error] if how == "stream" else error), meter)
    calls: dict[str, Callable[[], Any]] = {
        "chat": lambda: metered.chat(ASKED),
        "stream": lambda: anext(aiter(metered.stream(ASKED))),
        "embed": lambda: metered.embed(["hello"]),
    }
    with pytest.raises(type(error)):
        await calls[how]()
    (entry,) = meter.entries
    most_in, most_out = (len("hello") + 16, 0) if how == "embed" else (MOST, 100)
    assert entry.outcome == outcome and entry.assumed == spent
    assert (entry.tokens_in, entry.tokens_out) == ((most_in, most_out) if spent else (0, 0))
    assert meter.today().usd == pytest.approx((most_in + 10 * most_out) * 1e-6 if spent else 0.0)
    assert meter.today().calls == int(spent) and nothing_is_held(meter)


async def test_a_call_that_is_cancelled_stays_counted() -> None:
    meter = a_meter(Caps(mission=Cap(calls=1)))
    task = asyncio.create_task(Metered(Fake(asyncio.Event().wait), meter).chat(ASKED))
    await asyncio.sleep(0)
    assert meter.today().calls_reserved == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert nothing_is_held(meter) and meter.entries[0].outcome == "cancelled"
    assert meter.today().tokens == MOST + 100


PIECES = [ChatChunk(text="hel"), ChatChunk(text="lo"), ChatChunk(response=WHOLE)]


async def test_a_stream_is_settled_at_its_end() -> None:
    meter = a_meter()
    chunks = [chunk async for chunk in Metered(Fake(PIECES), meter).stream(ASKED)]
    assert "".join(chunk.text for chunk in chunks) == "hello"
    assert chunks[-1].response is not None and chunks[-1].response.cost_usd == pytest.approx(37e-6)
    (entry,) = meter.entries
    assert (entry.tokens_in, entry.tokens_out, entry.outcome) == (7, 3, "ok") and nothing_is_held(meter)


async def test_a_stream_that_is_closed_early_stays_counted_for_it_may_have_thought_more_than_it_said() -> None:
    meter = a_meter()
    async with aclosing(cast(Any, Metered(Fake(PIECES), meter).stream(ASKED))) as chunks:
        assert (await anext(chunks)).text == "hel"
        assert meter.today().calls_reserved == 1
    (entry,) = meter.entries
    assert (entry.tokens_in, entry.tokens_out, entry.outcome, entry.assumed) == (MOST, 100, "closed", True)
    assert nothing_is_held(meter)


async def test_a_stream_that_breaks_off_in_the_middle_stays_counted() -> None:
    meter = a_meter()
    with pytest.raises(ModelOutage):
        _ = [chunk async for chunk in Metered(Fake([PIECES[0], ModelOutage("broke off")]), meter).stream(ASKED)]
    assert meter.today().tokens == MOST + 100 and nothing_is_held(meter)


async def test_a_stream_without_an_end_is_counted_from_above_and_one_never_begun_not_at_all() -> None:
    meter = a_meter()
    metered = Metered(Fake(PIECES[:2]), meter)
    metered.stream(ASKED)
    assert meter.today().calls_reserved == 0 and not meter.entries
    _ = [chunk async for chunk in metered.stream(ASKED)]
    assert (meter.entries[0].tokens_out, meter.entries[0].assumed) == (100, True)


async def test_embeddings_are_counted_too() -> None:
    meter = a_meter()
    made = await Metered(Fake(Embeddings(vectors=((1.0,),), tokens_in=4)), meter).embed(["hello"])
    assert made.cost_usd == 4e-6 and meter.entries[0].tokens_in == 4
    await Metered(Fake(Embeddings(vectors=((1.0,),))), meter).embed(["hello"])
    assert (meter.entries[1].tokens_in, meter.entries[1].assumed) == (21, True)


async def test_it_is_the_model_that_it_is_around() -> None:
    fake = Fake()
    async with Metered(fake, a_meter(), provider="me") as metered:
        await metered.chat(ASKED)
        assert (metered.name, metered.writes) == ("fake:m", True)
    assert fake.closed


async def test_who_pays_goes_along_into_tasks_and_threads_and_not_out() -> None:
    meter = a_meter()
    metered = Metered(Fake(), meter)
    with charged_to(mission="m1"), charged_to(agent="a1"):
        await asyncio.create_task(metered.chat(ASKED))
        await asyncio.to_thread(asyncio.run, metered.chat(ASKED))
        with charged_to(mission="m2"):
            waits = asyncio.create_task(metered.chat(ASKED))
    await metered.chat(ASKED)
    await waits
    paid = sorted((entry.mission, entry.agent) for entry in meter.entries)
    assert paid == [("", ""), ("m1", "a1"), ("m1", "a1"), ("m2", "a1")]


async def test_entries_are_bounded_and_totals_are_exact() -> None:
    meter = a_meter(max_entries=3)
    metered = Metered(Fake(), meter)
    for _ in range(10):
        await metered.chat(ASKED)
    assert len(meter.entries) == 3 and meter.today().calls == 10 and meter.today().usd == 370e-6


async def test_missions_are_bounded_and_one_in_use_keeps_its_cap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meter_module, "MAX_ACCOUNTS", 2)
    clock = ManualClock(NOON_S)
    meter = a_meter(Caps(mission=Cap(calls=1)), clock)
    metered = Metered(Fake(), meter)

    async def ask(mission: str) -> None:
        with charged_to(mission=mission):
            await metered.chat(ASKED)

    await ask("m1")
    await ask("m2")
    with pytest.raises(Overloaded):
        await ask("m3")
    clock.advance(86_399.0)
    with pytest.raises(BudgetExceeded):
        await ask("m2")
    clock.advance(2.0)
    await ask("m3")  # in the place of m1
    with pytest.raises(Overloaded):
        await ask("m1")
    assert meter.totals(mission="m2").calls == 1


@pytest.mark.parametrize(
    "wrong", [lambda meter: meter.totals(), lambda meter: meter.totals("m", "a"), lambda _: a_meter(max_entries=-1)]
)
def test_what_makes_no_sense_is_told(wrong: Callable[[Meter], object]) -> None:
    with pytest.raises(InputError):
        wrong(a_meter())


async def test_real_servers_that_are_dead_busy_late_and_well() -> None:
    meter, never = a_meter(Caps(mission=Cap(calls=2))), threading.Event()
    with LlmServer() as gone:
        dead = gone.url
    with LlmServer() as server:
        server.script = [Said(429, b"{}"), Said(waits=never)]

        async def ask(name: str, url: str, timeout_s: float = 20.0) -> ChatResponse:
            provider = OpenAIProvider(name, model="m", base_url=url, timeout_s=timeout_s)
            async with Metered(provider, meter) as metered:
                return await metered.chat(ASKED)

        for name, url, timeout_s in (("dead:m", dead, 20.0), ("busy:m", server.url, 20.0), ("late:m", server.url, 0.3)):
            with pytest.raises(ModelOutage):
                await ask(name, url, timeout_s)
        never.set()
        response = await ask("fake:m", server.url)
        with pytest.raises(BudgetExceeded):
            await ask("fake:m", server.url)
    told = [(entry.provider, entry.outcome, entry.tokens_in + entry.tokens_out) for entry in meter.entries]
    spent = response.tokens_in + response.tokens_out
    assert told == [("dead", "outage", 0), ("busy", "outage", 0), ("late", "silent", MOST + 100), ("fake", "ok", spent)]
    assert response.cost_usd == pytest.approx((response.tokens_in + 10 * response.tokens_out) * 1e-6) and spent > 0
    assert nothing_is_held(meter)
