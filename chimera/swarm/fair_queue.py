"""A queue of ten priorities that starves nobody: stride scheduling, where each level weighs twice the one below it.

Source: C. Waldspurger and W. Weihl, "Stride Scheduling: Deterministic Proportional-Share Resource Management", 1995.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

from chimera.core.types import MAX_PRIORITY

T = TypeVar("T")

_STRIDES = tuple(2 ** (MAX_PRIORITY - priority) for priority in range(MAX_PRIORITY + 1))


class FairQueue(Generic[T]):
    """First in, first out within a priority; between priorities in proportion to 2**priority."""

    def __init__(self) -> None:
        self._levels: tuple[deque[T], ...] = tuple(deque() for _ in _STRIDES)
        self._passes = [0] * len(_STRIDES)
        self._now = 0
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[T]:
        """Everything in the queue, the most urgent level first."""
        for level in reversed(self._levels):
            yield from level

    def put(self, item: T, priority: int) -> None:
        level = self._levels[priority]
        if not level:  # what was away has saved nothing up
            self._passes[priority] = max(self._passes[priority], self._now)
        level.append(item)
        self._size += 1

    def pop(self) -> T:
        """The next in turn. Raises IndexError when there is none."""
        waiting = [(self._passes[p], -p) for p, level in enumerate(self._levels) if level]
        if not waiting:
            raise IndexError("the queue is empty")
        self._now, negative = min(waiting)
        self._passes[-negative] += _STRIDES[-negative]
        self._size -= 1
        return self._levels[-negative].popleft()

    def take(self, most: int) -> list[T]:
        """Up to `most`, in turn."""
        return [self.pop() for _ in range(min(most, self._size))]

    def keep(self, wanted: Iterable[T]) -> None:
        """Drop everything that is not in `wanted` (by identity), in one pass."""
        kept = {id(item) for item in wanted}
        for level in self._levels:
            left = [item for item in level if id(item) in kept]
            level.clear()
            level.extend(left)
        self._size = sum(len(level) for level in self._levels)
