from __future__ import annotations

from collections import deque


class RateLimit:
    """At most `calls` in any `window_s` seconds. Times are in seconds and never run backwards."""

    def __init__(self, calls: int, window_s: float) -> None:
        self.calls = calls
        self.window_s = window_s
        self._times: deque[float] = deque()

    def allows(self, now_s: float) -> bool:
        """Whether a call may be made now; if so it counts. A call exactly `window_s` ago counts no more."""
        while self._times and now_s - self._times[0] > self.window_s:
            self._times.popleft()
        self._times.append(now_s)
        return len(self._times) <= self.calls
