"""How good the trends are: a stream played again, against what is known to have happened in it.

An alarm is the first time that something is called a trend, and again after a silence. It is right if it names what is
known to have happened, while it happened; everything else is wrong, although a stream holds more than anybody listed,
so that the precision is a lower bound.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from statistics import median
from typing import Annotated, Final, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
from pydantic import Field

from chimera.content.feeds.item import FeedItem
from chimera.content.trends.bursts import BurstOptions, BurstTable
from chimera.content.trends.changepoints import ChangeOptions, ChangePoints
from chimera.content.trends.tokens import terms_of
from chimera.core.errors import InputError
from chimera.core.stats import wilson_interval
from chimera.core.types import Frozen

Ints = npt.NDArray[np.int64]

SIGMAS: Final = 3.0
"""What a naive look at a count calls unusual: so many standard deviations above its mean."""

FRESH: Final = 0.5
"""A change is called at this chance of one, where the rate went up by RISE."""

RISE: Final = 1.5
MAX_STEPS: Final = 1_000_000


class Known(Frozen):
    """Something that happened between two times; an alarm names it with one of `terms`, the whole of it or a word."""

    name: str
    terms: Annotated[frozenset[str], Field(min_length=1)]
    start_s: float
    end_s: float


class Alarm(NamedTuple):
    at_s: float
    terms: frozenset[str]


class Score(Frozen):
    """`alarms` of which `right` are right; `known` events of which `found` were. Intervals are 95 %, Wilson's.

    `delay_s` is the median time from an event's start to its first alarm; None where nothing was found.
    """

    alarms: int
    right: int
    known: int
    found: int
    delay_s: float | None

    @property
    def precision(self) -> float:
        return self.right / max(1, self.alarms)

    @property
    def recall(self) -> float:
        return self.found / max(1, self.known)

    @property
    def f1(self) -> float:
        both = self.precision + self.recall
        return 2 * self.precision * self.recall / both if both else 0.0

    @property
    def precision_interval(self) -> tuple[float, float]:
        return wilson_interval(self.right, self.alarms)

    @property
    def recall_interval(self) -> tuple[float, float]:
        return wilson_interval(self.found, self.known)


class Topic(Protocol):
    @property
    def terms(self) -> tuple[str, ...]: ...


class Finder(Protocol):
    """Whatever takes items in and names topics: a TrendFinder, or what it is compared with."""

    def add(self, items: Iterable[FeedItem], now: float) -> object: ...

    def trends(self, k: int = 10) -> Sequence[Topic]: ...


def backtest(
    items: Iterable[FeedItem], known: Sequence[Known], finder: Finder, *, step_s: float, silence_s: float, k: int = 10
) -> Score:
    """Play `items` in the order of their dates, ask for `k` trends every `step_s`, and score what is said.

    Raises InputError without items, or with more than MAX_STEPS steps.
    """
    ordered = sorted(items, key=lambda item: (item.published_s, item.id))
    if not ordered or (ordered[-1].published_s - ordered[0].published_s) / step_s > MAX_STEPS:
        raise InputError(f"a back-test needs items, and at most {MAX_STEPS:,} steps: choose a longer step_s")
    alarms: list[Alarm] = []
    last: dict[str, float] = {}
    now, place = ordered[0].published_s, 0
    while place < len(ordered):
        now = now + step_s
        end = place
        while end < len(ordered) and ordered[end].published_s < now:
            end += 1
        finder.add(ordered[place:end], now)
        place = end
        for topic in finder.trends(k):
            words = frozenset(word for term in topic.terms for word in (term, *term.split()))
            if all(now - last.get(word, -silence_s) >= silence_s for word in words):
                alarms.append(Alarm(now, words))
            last |= dict.fromkeys(words, now)
    return score(alarms, known)


def score(alarms: Sequence[Alarm], known: Sequence[Known]) -> Score:
    """Each alarm is right or not, each event found or not."""
    right = 0
    delays: dict[int, float] = {}
    for alarm in sorted(alarms, key=lambda each: each.at_s):
        meant = [
            place
            for place, event in enumerate(known)
            if event.terms & alarm.terms and event.start_s <= alarm.at_s <= event.end_s
        ]
        right += bool(meant)
        for place in meant:
            delays.setdefault(place, alarm.at_s - known[place].start_s)
    return Score(
        alarms=len(alarms),
        right=right,
        known=len(known),
        found=len(delays),
        delay_s=median(delays.values()) if delays else None,
    )


class _Named(NamedTuple):
    terms: tuple[str, ...]


class ThreeSigma:
    """The baseline: a term trends when a batch's count is SIGMAS standard deviations above the mean of the past."""

    def __init__(self, *, batch_s: float, least: int = 3) -> None:
        self._batch_s, self._least = batch_s, least
        self._counts: dict[str, int] = {}
        self._sums: dict[str, tuple[float, float]] = {}
        self._batches = 0
        self._number: int | None = None

    def add(self, items: Iterable[FeedItem], now: float) -> None:
        for item in items:
            self._advance(int(item.published_s // self._batch_s))
            for term in terms_of(item):
                self._counts[term] = self._counts.get(term, 0) + 1

    def trends(self, k: int = 10) -> Sequence[Topic]:
        odd = [(self._sigmas(term, n), term) for term, n in self._counts.items() if n >= self._least]
        odd = sorted((pair for pair in odd if pair[0] > SIGMAS), key=lambda pair: (-pair[0], pair[1]))
        return [_Named((term,)) for _, term in odd[:k]]

    def _sigmas(self, term: str, count: int) -> float:
        total, squares = self._sums.get(term, (0.0, 0.0))
        if self._batches < 2:
            return 0.0
        mean = total / self._batches
        spread = math.sqrt(max(squares / self._batches - mean * mean, 1.0 / self._batches))
        return (count - mean) / spread

    def _advance(self, number: int) -> None:
        if number == self._number:
            return
        if self._number is not None:
            for term, count in self._counts.items():
                total, squares = self._sums.get(term, (0.0, 0.0))
                self._sums[term] = (total + count, squares + count * count)
            self._batches += max(1, number - self._number)
        self._number, self._counts = number, {}


def burst_alarms(counts: Ints, options: BurstOptions, *, warm_up: int) -> list[Ints]:
    """For each of K series the batches in which the automaton goes up; `counts` is (T, K), each among its batch."""
    table = BurstTable(options)
    names = [str(series) for series in range(counts.shape[1])]
    found: list[list[int]] = [[] for _ in names]
    before: frozenset[str] = frozenset()
    for batch, row in enumerate(counts.tolist()):
        table.observe(batch, dict(zip(names, row, strict=True)), sum(row))
        now = frozenset(burst.term for burst in table.bursts(batch + 1, {}, 0))
        for name in now - before if batch >= warm_up else ():
            found[int(name)].append(batch)
        before = now
    return [np.array(each, dtype=np.int64) for each in found]


def change_alarms(counts: Ints, options: ChangeOptions, *, warm_up: int) -> list[Ints]:
    """The same by change points, each of the K series by itself."""

    def series(column: Ints) -> Ints:
        changes, found, up = ChangePoints(options), [], False
        for batch, count in enumerate(column.tolist()):
            change = changes.observe(count)
            rose = change.fresh >= FRESH and change.rate > RISE * change.before
            if rose and not up and batch >= warm_up:
                found.append(batch)
            up = rose
        return np.array(found, dtype=np.int64)

    return _each(counts, series)


def sigma_alarms(counts: Ints, *, memory: int, warm_up: int) -> list[Ints]:
    """The same by SIGMAS standard deviations above the mean of the `memory` batches before."""

    def series(column: Ints) -> Ints:
        found, up = [], False
        for batch in range(warm_up, len(column)):
            past = column[max(0, batch - memory) : batch]
            over = bool(column[batch] > past.mean() + SIGMAS * past.std())
            if over and not up:
                found.append(batch)
            up = over
        return np.array(found, dtype=np.int64)

    return _each(counts, series)


def _each(counts: Ints, series: Callable[[Ints], Ints]) -> list[Ints]:
    return [series(counts[:, column]) for column in range(counts.shape[1])]
