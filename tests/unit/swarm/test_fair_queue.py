from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chimera.core.types import MAX_PRIORITY
from chimera.swarm.fair_queue import FairQueue

PRIORITIES = st.integers(0, MAX_PRIORITY)


def full(*priorities: int, each: int) -> FairQueue[tuple[int, int]]:
    queue: FairQueue[tuple[int, int]] = FairQueue()
    for number in range(each):
        for priority in priorities:
            queue.put((priority, number), priority)
    return queue


@given(st.lists(st.one_of(PRIORITIES, st.just("pop"))))
def test_nothing_is_lost_or_doubled_and_each_priority_is_in_order(steps: list[int | str]) -> None:
    queue: FairQueue[tuple[int, int]] = FairQueue()
    waiting: Counter[int] = Counter()
    came: dict[int, list[int]] = {priority: [] for priority in range(MAX_PRIORITY + 1)}
    for number, step in enumerate([*steps, *["pop"] * len(steps)]):
        if isinstance(step, int):
            queue.put((step, number), step)
            waiting[step] += 1
        elif waiting.total():
            priority, put = queue.pop()
            waiting[priority] -= 1
            came[priority].append(put)
        assert len(queue) == waiting.total() == len(list(queue))
    assert not waiting.total()
    assert all(numbers == sorted(numbers) for numbers in came.values())


def test_an_empty_queue_says_so() -> None:
    with pytest.raises(IndexError, match="empty"):
        FairQueue[int]().pop()
    assert FairQueue[int]().take(5) == []


@given(st.sets(PRIORITIES, min_size=1), st.integers(1, 2_000))
def test_a_busy_queue_serves_in_proportion_to_two_to_the_power_of_the_priority(levels: set[int], pops: int) -> None:
    queue = full(*levels, each=pops)
    served = Counter(priority for priority, _ in queue.take(pops))
    share = pops / sum(2**level for level in levels)
    for level in levels:
        assert abs(served[level] - share * 2**level) <= len(levels)


@given(st.integers(1, MAX_PRIORITY), st.integers(0, 200))
def test_what_was_away_has_saved_nothing_up_and_owes_nothing(level: int, before: int) -> None:
    """However long one priority had the queue for itself, the next to come is served as if both had just begun."""
    queue = full(0, each=before + 10)
    queue.take(before)
    for number in range(3 * 2**level):
        queue.put((level, number), level)
    first = [priority for priority, _ in queue.take(2**level + 2)]
    assert 2**level - 1 <= first.count(level) <= 2**level + 1


def test_the_least_urgent_moves_however_much_comes_of_the_most_urgent() -> None:
    queue = full(0, each=1)
    for number in range(2 * 2**MAX_PRIORITY):
        queue.put((MAX_PRIORITY, number), MAX_PRIORITY)
        queue.put((MAX_PRIORITY, number), MAX_PRIORITY)
        if queue.pop()[0] == 0:
            return
    pytest.fail("it never moved")


@given(st.lists(PRIORITIES, max_size=50), st.data())
def test_keep_drops_the_rest_and_leaves_the_order(priorities: list[int], data: st.DataObject) -> None:
    items = [(priority, number) for number, priority in enumerate(priorities)]
    queue: FairQueue[tuple[int, int]] = FairQueue()
    for item in items:
        queue.put(item, item[0])
    kept = [item for item in items if data.draw(st.booleans())]
    queue.keep(kept)
    assert len(queue) == len(kept)
    assert list(queue) == sorted(kept, key=lambda item: (-item[0], item[1]))
    assert sorted(queue.take(100)) == sorted(kept)
