"""The one that asks the autoscaler for all swarms, called plainly."""

from __future__ import annotations

import pytest

from chimera.actors.scaling import LINGER_S, Headroom
from chimera.core.clock import ManualClock


class Autoscaler:
    """Remembers what it was asked for, and refuses while it is `away`."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.ended = 0
        self.away = False
        self.clock = ManualClock(1_000.0)
        self.headroom = self.started()

    def started(self) -> Headroom:
        return Headroom(clock=self.clock, request=self._request, end=self._end)

    def _request(self, cells: int) -> None:
        if self.away:
            raise ConnectionError("the GCS is away")
        self.asked.append(cells)

    def _end(self) -> None:
        self.ended += 1


async def test_it_asks_for_the_sum_and_only_when_that_changes() -> None:
    ray = Autoscaler()
    await ray.headroom.ask("one", 3, 60)
    await ray.headroom.ask("two", 5, 60)
    await ray.headroom.ask("one", 3, 60)
    await ray.headroom.ask("one", 1, 60)
    await ray.headroom.ask("two", 0, 60)
    assert ray.asked == [3, 8, 6, 1]
    assert repr(ray.headroom) == "Headroom 1 cells"


async def test_a_silent_swarm_asks_no_more_and_the_last_one_out_ends_it() -> None:
    ray = Autoscaler()
    await ray.headroom.ask("one", 3, 60)
    await ray.headroom.ask("two", 5, 100)
    for passed_s in (59, 1, 39, 1):
        ray.clock.advance(passed_s)
        await ray.headroom.look()
    assert ray.asked == [3, 8, 5, 0]
    assert ray.ended == 1


async def test_it_stays_a_while_after_a_release() -> None:
    ray = Autoscaler()
    await ray.headroom.ask("one", 3, 60)
    await ray.headroom.ask("one", 0, 60)
    ray.clock.advance(LINGER_S - 1)
    await ray.headroom.look()
    assert (ray.asked, ray.ended) == ([3, 0], 0)
    ray.clock.advance(1)
    await ray.headroom.look()
    assert ray.ended == 1


async def test_one_that_was_killed_keeps_the_request_until_the_swarms_repeat_it_or_do_not() -> None:
    ray = Autoscaler()
    after = ray.started()
    await after.look()
    assert ray.asked == [], "swarms that live have time to ask again"
    ray.clock.advance(LINGER_S)
    await after.look()
    assert (ray.asked, ray.ended) == ([0], 1)


async def test_what_could_not_be_said_is_said_again() -> None:
    ray = Autoscaler()
    ray.away = True
    with pytest.raises(ConnectionError):
        await ray.headroom.ask("one", 3, 60)
    ray.away = False
    await ray.headroom.ask("one", 3, 60)
    ray.clock.advance(60)
    ray.away = True
    with pytest.raises(ConnectionError):
        await ray.headroom.look()
    ray.away = False
    await ray.headroom.look()
    assert ray.asked == [3, 0]
