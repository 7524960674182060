"""When a mission has something to do of its own accord. All times are on the mission's own time line."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator, Mapping


class Agenda:
    """When the tasks in progress are due, and when replicas that failed are tried again."""

    def __init__(self) -> None:
        self._due_s: dict[str, float] = {}
        self._dues: list[tuple[float, str]] = []
        self._retries: list[tuple[float, str, int]] = []

    @property
    def next_s(self) -> float:
        """The first time that anything is due; infinite when nothing is."""
        self._forget()
        return min(self._dues[0][0] if self._dues else math.inf, self._retries[0][0] if self._retries else math.inf)

    def begin(self, name: str, due_s: float) -> None:
        """A task starts."""
        self._due_s[name] = due_s
        heapq.heappush(self._dues, (due_s, name))

    def end(self, name: str) -> None:
        """The task is decided: it is not due any more, and none of its replicas is tried again."""
        del self._due_s[name]

    def begin_anew(self, due_s: Mapping[str, float]) -> None:
        """The tasks in progress are due at other times."""
        self._due_s = dict(due_s)
        self._dues = [(at_s, name) for name, at_s in due_s.items()]
        heapq.heapify(self._dues)

    def retry(self, at_s: float, name: str, replica: int) -> None:
        heapq.heappush(self._retries, (at_s, name, replica))

    def overdue(self, at_s: float) -> Iterator[str]:
        """The tasks that are due at `at_s` or were before, the longest overdue first."""
        self._forget()
        while self._dues and self._dues[0][0] <= at_s:
            yield heapq.heappop(self._dues)[1]
            self._forget()

    def retries(self, at_s: float) -> Iterator[tuple[str, int]]:
        """The tasks and replicas whose pause is over at `at_s`, each once, the longest over first."""
        while self._retries and self._retries[0][0] <= at_s:
            _, name, replica = heapq.heappop(self._retries)
            if name in self._due_s:
                yield name, replica

    def _forget(self) -> None:
        """Drop what has become pointless from the head of both heaps."""
        while self._dues and self._due_s.get(self._dues[0][1]) != self._dues[0][0]:
            heapq.heappop(self._dues)
        while self._retries and self._retries[0][1] not in self._due_s:
            heapq.heappop(self._retries)
