from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from chimera.actors.outbox import Outbox


def filled(*items: str) -> Outbox[str]:
    outbox: Outbox[str] = Outbox()
    outbox.put(items)
    return outbox


async def test_what_was_read_and_not_acknowledged_is_given_again() -> None:
    outbox = filled("a", "b", "c")
    first = await outbox.collect(after=0, wait_s=0.0)
    assert (first.reports, first.last) == (("a", "b", "c"), 3)
    assert await outbox.collect(after=0, wait_s=0.0) == first
    assert (await outbox.collect(after=2, wait_s=0.0)).reports == ("c",)
    assert outbox.forget(2) == ["a", "b"] and outbox.forget(2) == []
    assert (await outbox.collect(after=0, wait_s=0.0)).reports == ("c",)
    assert (len(outbox), outbox.last) == (1, 3)


async def test_a_reader_who_has_everything_waits_for_news() -> None:
    outbox = filled("a")
    waiting = asyncio.create_task(outbox.collect(after=1, wait_s=5.0))
    await asyncio.sleep(0)
    outbox.put([])
    outbox.put(["b"])
    batch = await waiting
    assert (batch.reports, batch.last) == (("b",), 2)
    assert (await outbox.collect(after=2, wait_s=0.01)).reports == ()


async def test_an_answer_has_a_limit_and_goes_on_where_it_ended() -> None:
    outbox = filled(*"abcde")
    first = await outbox.collect(after=0, wait_s=0.0, most=2)
    second = await outbox.collect(after=first.last, wait_s=0.0, most=2)
    assert (first.reports, first.last, second.reports, second.last) == (("a", "b"), 2, ("c", "d"), 4)


async def test_a_reader_of_another_outbox_gets_all_there_is_and_its_acks_forget_nothing() -> None:
    outbox = filled("a", "b")
    assert outbox.forget(500) == []
    batch = await outbox.collect(after=500, wait_s=0.0)
    assert (batch.reports, batch.last) == (("a", "b"), 2)


async def test_another_outbox_has_another_origin() -> None:
    one, other = filled("a"), filled("a")
    assert (await one.collect(after=0, wait_s=0.0)).origin == (await one.collect(after=1, wait_s=0.0)).origin
    assert (await one.collect(after=0, wait_s=0.0)).origin != (await other.collect(after=0, wait_s=0.0)).origin


@given(st.lists(st.sampled_from(["put", "put", "collect", "ack", "lose"]), max_size=40))
def test_a_reader_who_goes_on_from_the_last_has_each_once_and_in_order(steps: list[str]) -> None:
    """Whatever answers are lost on the way, and however late it acknowledges."""

    async def play() -> None:
        outbox: Outbox[int] = Outbox()
        got: list[int] = []
        put = after = acked = 0
        for step in [*steps, *["collect"] * (len(steps) + 1)]:
            if step == "put":
                outbox.put([put])
                put += 1
            elif step == "ack":
                acked = after
            else:
                outbox.forget(acked)
                batch = await outbox.collect(after=after, wait_s=0.0, most=2)
                if step == "collect":
                    got += batch.reports
                    after = batch.last
        assert got == list(range(put))
        outbox.forget(after)
        assert len(outbox) == 0

    asyncio.run(play())
