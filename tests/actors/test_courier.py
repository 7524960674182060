from __future__ import annotations

import asyncio

from chimera.actors.courier import Courier
from tests.actors.in_process import until


class Child:
    """Takes a batch in when it is let, and fails to as often as `fails` says."""

    def __init__(self, *, fails: int = 0, most: int = 3) -> None:
        self.batches: list[list[str]] = []
        self.tries = 0
        self.fails = fails
        self.free = asyncio.Event()
        self.free.set()
        self.courier: Courier[str] = Courier(self._send, most=most)

    @property
    def got(self) -> list[str]:
        return [item for batch in self.batches for item in batch]

    async def _send(self, batch: list[str]) -> None:
        self.tries += 1
        await self.free.wait()
        if self.fails:
            self.fails -= 1
            raise ConnectionError("not now")
        self.batches.append(batch)


async def test_everything_arrives_in_batches_one_at_a_time() -> None:
    child = Child()
    child.free.clear()
    child.courier.put([(name, 4) for name in "abcde"])
    await asyncio.sleep(0.01)
    assert (child.tries, len(child.courier)) == (1, 2), "the second batch waits for the first to be taken in"
    child.free.set()
    child.courier.put([("f", 4)])
    await until(lambda: len(child.got) == 6)
    assert child.batches == [["a", "b", "c"], ["d", "e", "f"]]
    child.courier.put([("g", 4)])
    await until(lambda: child.got[-1] == "g")


async def test_the_more_urgent_overtakes_what_was_not_sent_yet() -> None:
    child = Child(most=1)
    child.free.clear()
    child.courier.put([("first", 0)])
    await until(lambda: child.tries)
    child.courier.put([("low", 0), ("high", 9)])
    child.free.set()
    await until(lambda: len(child.got) == 3)
    assert child.got == ["first", "high", "low"]


async def test_what_is_withdrawn_is_never_sent() -> None:
    child = Child(most=2)
    child.free.clear()
    child.courier.put([(name, 4) for name in ("a1", "a2", "b1", "b2", "a3")])
    await until(lambda: child.tries)
    assert child.courier.withdraw(lambda item: item.startswith("a")) == ["a3"], "a1 and a2 are on their way"
    assert child.courier.withdraw(lambda item: item == "nothing") == []
    child.free.set()
    await until(lambda: len(child.got) == 4)
    assert child.got == ["a1", "a2", "b1", "b2"]


async def test_a_batch_that_did_not_arrive_is_sent_again_before_the_next() -> None:
    child = Child(fails=2, most=2)
    child.courier.put([(name, 4) for name in "abc"])
    await until(lambda: len(child.got) == 3)
    assert (child.batches, child.tries) == ([["a", "b"], ["c"]], 4)


async def test_a_closed_courier_sends_nothing_more() -> None:
    child = Child(fails=1_000, most=2)
    child.courier.put([(name, 4) for name in "abc"])
    await until(lambda: child.tries)
    child.courier.close()
    child.fails = 0
    child.courier.put([("d", 9)])
    await asyncio.sleep(0.15)
    assert (child.got, len(child.courier)) == ([], 0)
