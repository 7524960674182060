"""A mission's time: how its seconds follow a process's clock, and how much of its deadline is left."""

from __future__ import annotations

import math


class TimeLine:
    """Begins with the wall clock's time and goes on as the monotonic clock does, whatever becomes of the wall clock.

    The deadline of `deadline_s` counts from the mission's start, and stands still while a person is waited for.
    """

    def __init__(self, deadline_s: float) -> None:
        self.deadline_s = deadline_s
        self.now_s = -math.inf
        """The time of what happened last."""
        self.started_s = 0.0
        self.wake_s = math.inf
        """When something is to be done next."""
        self._base_s = 0.0
        self._stopped_s: float | None = None
        self._offset_s: float | None = None

    @property
    def synchronized(self) -> bool:
        return self._offset_s is not None

    @property
    def wake_at(self) -> float:
        """`wake_s` in monotonic seconds."""
        return self.wake_s - (self._offset_s or 0.0)

    def synchronize(self, now: float, wall: float) -> None:
        """`now` (monotonic) is `wall` on the mission's time line, or its latest event's time if that is later."""
        self._offset_s = max(wall, self.now_s) - now

    def at(self, now: float) -> float:
        """The mission's time at `now` in monotonic seconds."""
        return now + (self._offset_s or 0.0)

    def begin(self) -> None:
        """The mission starts now."""
        self.started_s = self._base_s = self.now_s

    def begin_anew(self) -> None:
        """The deadline counts from now. If it stands still, it goes on doing so."""
        self._base_s = self.now_s
        if self._stopped_s is not None:
            self._stopped_s = self.now_s

    def stop(self) -> None:
        """The deadline stands still from now on."""
        if self._stopped_s is None:
            self._stopped_s = self.now_s

    def go_on(self) -> None:
        """The deadline runs again, with as much left as there was when it stopped."""
        if self._stopped_s is not None:
            self._base_s += self.now_s - self._stopped_s
            self._stopped_s = None

    def due_s(self, limit_s: float = math.inf) -> float:
        """When `limit_s`, or the deadline if that is earlier, has passed: never, while it stands still."""
        return math.inf if self._stopped_s is not None else self._base_s + min(limit_s, self.deadline_s)

    def left_s(self, limit_s: float, now_s: float) -> float:
        """How much of `limit_s`, or of the deadline if that is less, is left at `now_s`."""
        seen_s = now_s if self._stopped_s is None else self._stopped_s
        return self._base_s + min(limit_s, self.deadline_s) - seen_s
