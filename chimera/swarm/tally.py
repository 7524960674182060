"""Counts what a coordinator does, cheaply enough to be told of every attempt: about half a microsecond a call.

Rates come from marks that are made once a second, percentiles from histograms whose buckets grow by a tenth: nothing
is kept for each task, and the memory is the same after a minute and after a year.
"""

from __future__ import annotations

import math
from collections import deque

from chimera.core.events import Event, EventKind
from chimera.core.types import FailureKind, MissionState, Outcome, Spend
from chimera.swarm.status import (
    Activity,
    BudgetStatus,
    CallCounts,
    HeldStatus,
    JournalCounts,
    Latencies,
    MissionCounts,
    Percentiles,
    Rates,
)

RATE_S = 10
"""Whole seconds that a rate is over."""

WINDOW_S = 30.0
"""Percentiles are over the window of this length that has ended, and the one that goes on."""

_GROWTH = 1.1
_PER_LOG = 1.0 / math.log(_GROWTH)
_LOWEST_S, _HIGHEST_S = 1e-5, 86_400.0
_BUCKETS = int(math.log(_HIGHEST_S / _LOWEST_S) * _PER_LOG) + 2

_NOTHING = (0, 0, 0, 0, 0)


class Histogram:
    """Durations by size, from 10 microseconds to a day, over the last 30 to 60 seconds."""

    __slots__ = ("_before", "_counts")

    def __init__(self) -> None:
        self._counts = [0] * _BUCKETS
        self._before = [0] * _BUCKETS

    def add(self, seconds: float) -> None:
        if _LOWEST_S < seconds < _HIGHEST_S:
            self._counts[int(math.log(seconds / _LOWEST_S) * _PER_LOG) + 1] += 1
        else:
            self._counts[-1 if seconds >= _HIGHEST_S else 0] += 1

    def turn(self, windows: int) -> None:
        """That many windows have ended: forget all but the last of them."""
        self._before = self._counts if windows == 1 else [0] * _BUCKETS
        self._counts = [0] * _BUCKETS

    def percentiles(self) -> Percentiles:
        """By nearest rank, each the geometric middle of its bucket."""
        counts = [now + before for now, before in zip(self._counts, self._before, strict=True)]
        total = sum(counts)
        if not total:
            return Percentiles()
        p50, p95, p99 = (_middle_ms(counts, math.ceil(share * total)) for share in (0.5, 0.95, 0.99))
        return Percentiles(count=total, p50=p50, p95=p95, p99=p99)


def _middle_ms(counts: list[int], rank: int) -> float:
    seen = 0
    at = -1
    while seen < rank:
        at += 1
        seen += counts[at]
    return float(f"{1_000.0 * min(_LOWEST_S * _GROWTH ** max(0.0, at - 0.5), _HIGHEST_S):.4g}")


class Tally:
    """The counts of one coordinator. `now` is monotonic seconds, and never less than in the call before."""

    def __init__(self, now: float) -> None:
        self._started = now
        self._admitted = self._resumed = self._refused = 0
        self._missions = self._tasks = self._attempts = self._failed = self._events = 0
        self._appends = self._made = self._saved = self._quarantined = 0
        self._usd = self._seconds = 0.0
        self._tokens = self._calls = 0
        self._ended = {state: 0 for state in MissionState if state.ended}
        self._consensus = dict.fromkeys(Outcome, 0)
        self._failures = dict.fromkeys(FailureKind, 0)
        self._mission, self._decision, self._attempt, self._overhead = (Histogram() for _ in range(4))
        self._window_ends = now + WINDOW_S
        self._second = int(now)
        self._turns_at = self._second + 1.0
        self._marks: deque[tuple[int, tuple[int, ...]]] = deque(maxlen=RATE_S + 1)

    def admitted(self, missions: int = 1) -> None:
        self._admitted += missions

    def resumed(self, missions: int = 1) -> None:
        """Missions of a coordinator that died go on here."""
        self._admitted += missions
        self._resumed += missions

    def refused(self, missions: int = 1) -> None:
        """Missions were turned away at a limit."""
        self._refused += missions

    def mission_ended(self, now: float, state: MissionState, latency_s: float) -> None:
        """`latency_s` is from admission to the end."""
        if now >= self._turns_at:
            self._turn(now)
        self._missions += 1
        self._ended[state] += 1
        self._mission.add(latency_s)

    def task_decided(self, now: float, outcome: Outcome, latency_s: float, saved: int = 0) -> None:
        """`latency_s` is from the task's start; `saved` votes were not waited for."""
        if now >= self._turns_at:
            self._turn(now)
        self._tasks += 1
        self._consensus[outcome] += 1
        self._saved += saved
        self._decision.add(latency_s)

    def noted(self, now: float, event: Event) -> None:
        """An event of a mission has become durable: of those that tell of a task's end the numbers are taken."""
        if event.kind is EventKind.TASK_QUARANTINED:
            self.quarantined()
        elif event.kind is EventKind.TASK_DECIDED:
            after_s, saved = event.data.get("after_s", 0.0), event.data.get("saved", 0)
            outcome = Outcome(str(event.data["outcome"]))
            self.task_decided(now, outcome, float(str(after_s)), int(str(saved)))

    def dispatched(self, attempts: int) -> None:
        """Attempts were sent to agents."""
        self._made += attempts

    def attempt_ended(
        self, now: float, failure: FailureKind | None, elapsed_s: float, overhead_s: float | None = None
    ) -> None:
        """`elapsed_s` was spent at the agent, `overhead_s` on the way there and back, where that is known."""
        if now >= self._turns_at:
            self._turn(now)
        self._attempts += 1
        if failure is not None:
            self._failed += 1
            self._failures[failure] += 1
        self._attempt.add(elapsed_s)
        if overhead_s is not None:
            self._overhead.add(overhead_s)

    def spent(self, spend: Spend) -> None:
        self._usd += spend.usd
        self._tokens += spend.tokens
        self._calls += spend.calls
        self._seconds += spend.seconds

    def journaled(self, now: float, events: int) -> None:
        """One append has made `events` durable."""
        if now >= self._turns_at:
            self._turn(now)
        self._events += events
        self._appends += 1

    def quarantined(self) -> None:
        """A task was put aside because it kills its hosts."""
        self._quarantined += 1

    def snapshot(
        self,
        now: float,
        *,
        running: int = 0,
        queued: int = 0,
        held: int = 0,
        reserved: Spend | None = None,
        scheme: str = "",
        waiting: tuple[HeldStatus, ...] = (),
    ) -> Activity:
        """The counts at `now`, with what only the coordinator knows: what runs and waits now, and the journal."""
        if now >= self._turns_at:
            self._turn(now)
        spent = Spend(usd=self._usd, tokens=self._tokens, calls=self._calls, seconds=self._seconds)
        return Activity(
            uptime_s=round(now - self._started, 3),
            missions=MissionCounts(
                running=running,
                queued=queued,
                held=held,
                admitted=self._admitted,
                resumed=self._resumed,
                refused=self._refused,
                ended=dict(self._ended),
            ),
            rates=self._rates(),
            latencies=Latencies(
                mission_ms=self._mission.percentiles(),
                decision_ms=self._decision.percentiles(),
                attempt_ms=self._attempt.percentiles(),
                overhead_ms=self._overhead.percentiles(),
            ),
            consensus=dict(self._consensus),
            calls=CallCounts(made=self._made, saved=self._saved),
            budget=BudgetStatus(reserved=reserved or Spend(), spent=spent),
            failures=dict(self._failures),
            quarantined=self._quarantined,
            journal=JournalCounts(scheme=scheme, events=self._events, appends=self._appends),
            held=waiting,
        )

    def _turn(self, now: float) -> None:
        """A second has ended: mark what it came to, and end the windows that are over."""
        self._marks.append((self._second, self._totals()))
        self._second = int(now)
        self._turns_at = self._second + 1.0
        windows = int((now - self._window_ends) / WINDOW_S) + 1 if now >= self._window_ends else 0
        if windows:
            self._window_ends += windows * WINDOW_S
            for histogram in (self._mission, self._decision, self._attempt, self._overhead):
                histogram.turn(windows)

    def _totals(self) -> tuple[int, ...]:
        return self._missions, self._tasks, self._attempts, self._failed, self._events

    def _rates(self) -> Rates:
        last = self._marks[-1][1] if self._marks else _NOTHING
        before = next((totals for second, totals in reversed(self._marks) if second < self._second - RATE_S), _NOTHING)
        span_s = max(1.0, min(float(RATE_S), self._second - self._started))
        missions, tasks, attempts, failures, events = (
            round((b - a) / span_s, 2) for a, b in zip(before, last, strict=True)
        )
        return Rates(
            missions_per_s=missions,
            tasks_per_s=tasks,
            attempts_per_s=attempts,
            failures_per_s=failures,
            journal_events_per_s=events,
        )
