"""How much of each cap was used in a month: exact at every moment, and in little memory (pure).

The sums are those of `periods.Sum`, over spends that lie in two arrays, 16 bytes each; what is too old for every window
is forgotten. Use only rises when something is spent or a cap is set, so its highest is found at these moments and at
the month's first.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass, field

from chimera.treasury.periods import begins
from chimera.treasury.statement_lines import CapLine
from chimera.treasury.types import DAY_US, Cap, Window

LONGEST_US = 31 * DAY_US
"""No window reaches further back."""

TRIM_FROM = 4_096
"""Spends that are kept without asking whether they are too old."""

Place = tuple[tuple["Spends", int], ...]
"""Where a spend is counted, so that what of it is let go can be taken out again."""


class Spends:
    """What was spent from one account, or from all, oldest first. A spend keeps its number when older ones go."""

    def __init__(self) -> None:
        self.times = array("q")
        self.amounts = array("q")
        self.first = 0
        self.uses: list[Use] = []
        self._trim_at = TRIM_FROM

    def add(self, at: int, amount: int) -> int:
        """Its number."""
        self.times.append(at)
        self.amounts.append(amount)
        for use in self.uses:
            use.used += amount
        if len(self.times) >= self._trim_at:
            self._trim(at)
        return self.first + len(self.times) - 1

    def release(self, number: int, amount: int) -> None:
        """`amount` of that spend counts no more."""
        if number >= self.first:
            self.amounts[number - self.first] -= amount
            for use in self.uses:
                if number >= use.next:
                    use.used -= amount

    def from_on(self, at: int) -> int:
        """The number of the first spend that is not older."""
        return self.first + bisect_left(self.times, at)

    def _trim(self, at: int) -> None:
        for use in self.uses:
            use.move_to(at)
        old = bisect_left(self.times, at - LONGEST_US)
        del self.times[:old], self.amounts[:old]
        self.first += old
        self._trim_at = max(TRIM_FROM, 2 * len(self.times))


@dataclass(slots=True)
class Use:
    """A cap: `used` is the sum of its spends from the number `next` on."""

    cap: Cap
    spends: Spends
    next: int = 0
    used: int = 0
    highest: int = 0
    highest_at: int = 0
    by_day: dict[int, int] = field(default_factory=dict)

    def move_to(self, at: int) -> int:
        """How much is used at `at`, which is never before that of an earlier call."""
        since, spends = begins(self.cap.window, at), self.spends
        while self.next < spends.first + len(spends.times) and spends.times[self.next - spends.first] < since:
            self.used -= spends.amounts[self.next - spends.first]
            self.next += 1
        return self.used

    def see(self, at: int, day: int) -> None:
        used = self.move_to(at)
        self.by_day[day] = max(self.by_day.get(day, 0), used)
        if used > self.highest or not self.highest_at:
            self.highest, self.highest_at = used, at


class CapUses:
    """All caps of a ledger from `since` to before `until`; times of calls never run backwards."""

    def __init__(self, since: int, until: int) -> None:
        self._since, self._until = since, until
        self._spends: dict[tuple[str, str], Spends] = {}
        self._uses: dict[tuple[str, str, Window], Use] = {}
        self.next_day = since
        """When to call `begin_day` next, before anything that happens then or later is told."""

    def set(self, cap: Cap, at: int) -> None:
        key = (cap.account, cap.currency, cap.window)
        if key in self._uses:
            self._uses[key].cap = cap
        else:
            spends = self._of(cap.account, cap.currency)
            number = spends.from_on(begins(cap.window, at))
            use = Use(cap, spends, number, sum(spends.amounts[number - spends.first :]))
            self._uses[key] = use
            spends.uses.append(use)
        self._see([self._uses[key]], at)

    def spend(self, account: str, currency: str, amount: int, at: int) -> Place:
        both = [self._of(name, currency) for name in ("*", account)]
        place = tuple((spends, spends.add(at, amount)) for spends in both)
        for spends in both:
            self._see(spends.uses, at)
        return place

    def release(self, place: Place, amount: int) -> None:
        for spends, number in place:
            spends.release(number, amount)

    def begin_day(self) -> None:
        """A day of the month begins."""
        at, self.next_day = self.next_day, self.next_day + DAY_US
        if at < self._until:
            self._see(self._uses.values(), at)

    def lines(self) -> tuple[CapLine, ...]:
        """At the end: every day until then has begun."""
        days = range(-(-(self._until - self._since) // DAY_US))
        return tuple(
            CapLine(
                cap=use.cap,
                highest=use.highest,
                highest_at=use.highest_at,
                now=use.move_to(self._until - 1),
                by_day=tuple(use.by_day.get(day, 0) for day in days),
            )
            for _, use in sorted(self._uses.items())
        )

    def _see(self, uses: Iterable[Use], at: int) -> None:
        if self._since <= at < self._until:
            for use in uses:
                use.see(at, (at - self._since) // DAY_US)

    def _of(self, account: str, currency: str) -> Spends:
        return self._spends.setdefault((account, currency), Spends())
