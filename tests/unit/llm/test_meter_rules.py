"""The laws of the meter: no interleaving passes a cap, and no reservation is lost."""

from __future__ import annotations

import asyncio
import threading
from typing import Any, cast

from hypothesis import given, settings
from hypothesis import strategies as st

from chimera.core.clock import ManualClock, SystemClock
from chimera.core.errors import (
    BudgetExceeded,
    ChimeraError,
    ModelOutage,
)
from chimera.llm.chat import ChatMessage, ChatRequest, ChatResponse, ToolSpec
from chimera.llm.meter import Cap, Caps, Meter, Metered, Reservation, Usage, charged_to
from chimera.llm.usage import NOTHING, most_tokens
from tests.unit.llm.metering import ASKED, NOON_S, PRICES, WHOLE, Fake, a_meter, nothing_is_held

text = st.text(max_size=50)


@given(text, text, st.booleans())
def test_no_text_has_more_tokens_than_are_reserved_for_it(content: str, described: str, with_tool: bool) -> None:
    """A token of every tokenizer in use is at least a byte; the roles and the frame come on top."""
    tools = (ToolSpec(name="t", description=described),) if with_tool else ()
    request = ChatRequest(messages=(ChatMessage(role="user", content=content),), tools=tools)
    sent = len(content.encode()) + with_tool * len(described.encode())
    assert most_tokens(request) >= sent + 16


amounts = st.integers(0, 400)
dollars = amounts.map(lambda n: n / 10**5)
caps = st.builds(Cap, usd=st.none() | dollars, tokens=st.none() | amounts, calls=st.none() | st.integers(0, 6))
steps = st.lists(
    st.one_of(
        st.tuples(st.just("reserve"), st.sampled_from("xy"), st.sampled_from("ab"), amounts, amounts),
        st.tuples(st.just("settle"), st.integers(0, 9), st.floats(0, 1), st.sampled_from(["used", "lost", "nothing"])),
        st.tuples(st.just("sleep"), st.floats(0, 50_000)),
    ),
    max_size=40,
)


@settings(max_examples=200)
@given(st.builds(Caps, mission=caps, agent=caps, day=caps), steps)
def test_no_interleaving_passes_a_cap_and_no_reservation_is_lost(limits: Caps, plan: list[Any]) -> None:
    clock = ManualClock(NOON_S)
    meter = Meter(PRICES, limits, clock)
    held: list[Reservation] = []
    settled = 0
    for step in plan:
        if step[0] == "sleep":
            clock.advance(step[1])
        elif step[0] == "reserve":
            with charged_to(mission=step[1], agent=step[2]):
                try:
                    held.append(meter.reserve("fake:m", step[3], step[4]))
                except BudgetExceeded:
                    assert limits != Caps()
        elif held:
            one = held.pop(step[1] % len(held))
            used = Usage(int(one.tokens_in * step[2]), int(one.tokens_out * step[2]))
            usage = {"used": used, "lost": None, "nothing": NOTHING}[step[3]]
            assert meter.settle(one, usage=usage) is not None
            assert meter.settle(one, usage=usage) is None
            settled += step[3] != "nothing"
        within(meter, limits)
    assert sum(meter.totals(agent=name).calls_reserved for name in "ab") == len(held)
    for one in held:
        meter.settle(one)
    assert nothing_is_held(meter)
    assert sum(meter.totals(mission=name).calls for name in "xy") == settled + len(held)
    assert all(meter.totals(mission=name).tokens_reserved == 0 for name in "xy")


def within(meter: Meter, limits: Caps) -> None:
    every = [(limits.mission, meter.totals(mission=name)) for name in "xy"]
    every += [(limits.agent, meter.totals(agent=name)) for name in "ab"] + [(limits.day, meter.today())]
    for cap, totals in every:
        assert cap.usd is None or totals.usd + totals.usd_reserved <= cap.usd + 1e-12
        assert cap.tokens is None or totals.tokens + totals.tokens_reserved <= cap.tokens
        assert cap.calls is None or totals.calls + totals.calls_reserved <= cap.calls


FATES = ["ok", "raise", "cancel"]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 5), st.sampled_from(["ok", "raise", "cancel"])), max_size=20), st.integers(0, 9)
)
def test_whatever_becomes_of_calls_that_run_together_the_cap_holds(fates: list[tuple[int, str]], most: int) -> None:
    meter = Meter(PRICES, Caps(mission=Cap(calls=most)), SystemClock())
    running = peak = 0

    async def one(turns: int, fate: str) -> None:
        async def say() -> ChatResponse:
            nonlocal running, peak
            running, peak = running + 1, max(peak, running + 1)
            try:
                for _ in range(turns):
                    await asyncio.sleep(0)
                if fate == "cancel":
                    cast(Any, asyncio.current_task()).cancel()
                    await asyncio.sleep(0)
                if fate == "raise":
                    raise ModelOutage("no")
                return WHOLE
            finally:
                running -= 1
                within(meter, Caps(mission=Cap(calls=most)))

        await Metered(Fake(say), meter).chat(ASKED)

    async def all_of_them() -> list[Any]:
        return await asyncio.gather(*(one(*fate) for fate in fates), return_exceptions=True)

    ended = asyncio.run(all_of_them())
    assert nothing_is_held(meter) and peak <= most
    spent = [fate for (_, fate), end in zip(fates, ended, strict=True) if not isinstance(end, ChimeraError)]
    assert meter.totals(mission="").calls == len(spent) <= most
    assert len(meter.entries) == sum(not isinstance(end, BudgetExceeded) for end in ended)


def test_threads_that_share_a_meter_do_not_pass_a_cap_together() -> None:
    meter = a_meter(Caps(mission=Cap(calls=500)))
    got: list[int] = []

    def work() -> None:
        taken = 0
        for _ in range(300):
            try:
                held = meter.reserve("fake:m", 1, 1)
            except BudgetExceeded:
                continue
            taken += meter.settle(held, usage=Usage(1, 1)) is not None
        got.append(taken)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(got) == 500 == meter.totals(mission="").calls and meter.today().tokens == 1_000
