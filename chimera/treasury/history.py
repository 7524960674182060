"""What the ledger's rows tell of how money is usually spent: by payee, requester, mission and category (pure).

Habits are learnt from payments that were carried out, so that nobody teaches it by asking; how much is asked for at a
time is counted from every request. Times are those at which the ledger took a row, whatever anybody else's clock says.
Everything is bounded: who has not been heard of for longest is forgotten, and what is old weighs less.
"""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Generic, TypeVar

from chimera.treasury.rows import AnyRow
from chimera.treasury.types import (
    DAY_US,
    Account,
    AccountKind,
    Approval,
    CfoDecision,
    PaymentRequest,
    Rules,
    Transfer,
    TransferKind,
)

HOUR_US = DAY_US // 24
SLOT_US = HOUR_US // 2
"""How finely what is asked for is counted over the last day."""
SLOTS = DAY_US // SLOT_US + 1

ACCOUNTS = 100_000
REQUESTS = 50_000
"""Requests that are remembered by their ids: one that is older counts as not filed, and its transfer is not learnt."""
SUBJECTS = 2_048
"""Of each kind (payees, requesters, missions, categories)."""
RECENT = 64
"""Requests that are remembered of each subject, the last ones."""
PARTNERS = 64
"""Categories that are remembered of each subject."""

SETTLES = 50
"""From so many on, an older value weighs less with each that comes: the mean follows growth."""
HALF_LIFE_US = 14 * DAY_US
"""How fast a usual pace is forgotten."""

_T = TypeVar("_T")


class Flow(StrEnum):
    """Which way money goes: to us, between our funds, out, or out to one who is paid by use."""

    INCOME = "income"
    INTERNAL = "internal"
    SPEND = "spend"
    METERED = "metered"


class Lately(OrderedDict[tuple[str, str], _T], Generic[_T]):
    """By name and currency, at most `limit` of them: whoever was not used for longest goes."""

    def __init__(self, make: Callable[[], _T], limit: int = SUBJECTS) -> None:
        super().__init__()
        self._make = make
        self._limit = limit

    def use(self, key: tuple[str, str]) -> _T:
        found = self.get(key)
        if found is None:
            found = self[key] = self._make()
            if len(self) > self._limit:
                self.popitem(last=False)
        else:
            self.move_to_end(key)
        return found


@dataclass(slots=True)
class Usual:
    """Mean and variance of what is learnt, the last values weighing more (West, CACM 22, 1979; Finch, 2009).

    A value far out is learnt as one four deviations out: one payment moves nothing far.
    """

    count: int = 0
    mean: float = 0.0
    variance: float = 0.0

    def learn(self, value: float) -> None:
        if self.count >= 5:
            far = 4 * self.deviation(0.5)
            value = min(max(value, self.mean - far), self.mean + far)
        self.count += 1
        weight = max(1 / self.count, 1 / SETTLES)
        delta = value - self.mean
        self.mean += weight * delta
        self.variance = (1 - weight) * (self.variance + weight * delta * delta)

    def deviation(self, prior: float) -> float:
        """The standard deviation, as if two values that are `prior` from the mean had been seen too.

        Never less than a third of `prior`: who always paid the same may once pay a little more.
        """
        seen = min(self.count, SETTLES)
        return max(math.sqrt((seen * self.variance + 2 * prior * prior) / (seen + 2)), prior / 3)


@dataclass(slots=True)
class Pace:
    """How many and how much: in each half hour of the last day, and usually in a day."""

    slots: deque[list[int]] = field(default_factory=deque)
    count: float = 0.0
    amount: float = 0.0
    begun: int = 0
    at: int = 0

    def add(self, at: int, amount: int) -> None:
        slot = at // SLOT_US
        while self.slots and self.slots[0][0] <= slot - SLOTS:
            self.slots.popleft()
        if not self.slots or self.slots[-1][0] != slot:
            self.slots.append([slot, 0, 0])
        self.slots[-1][1] += 1
        self.slots[-1][2] += amount
        self.begun = self.begun or at
        faded = 0.5 ** ((at - self.at) / HALF_LIFE_US)
        self.count, self.amount, self.at = self.count * faded + 1, self.amount * faded + amount, at

    def free(self, at: int, amount: int) -> None:
        """So much of what was added at that time counts no more."""
        for each in self.slots:
            if each[0] == at // SLOT_US:
                each[2] -= amount

    def within(self, at: int, length_us: int) -> tuple[int, int]:
        """Count and amount of the slots that the time before `at` touches: never less than there was."""
        first = (at - length_us) // SLOT_US
        touched = [each for each in self.slots if each[0] >= first]
        return sum(each[1] for each in touched), sum(each[2] for each in touched)

    def daily(self, at: int) -> tuple[float, float]:
        """Count and amount of a usual day before the last one. Who is young is taken for three days old."""
        age_us = max(at - self.begun, 3 * DAY_US)
        faded = 0.5 ** (max(at - self.at, 0) / HALF_LIFE_US)
        days = HALF_LIFE_US / DAY_US / math.log(2) * (1 - 0.5 ** (age_us / HALF_LIFE_US))
        count, amount = self.within(at, DAY_US)
        return max(self.count * faded - count, 0.0) / days, max(self.amount * faded - amount, 0.0) / days


@dataclass(slots=True)
class Habits:
    """What is usual for a subject: logarithms of amounts and of lifetimes (both base e), hours of UTC, categories."""

    amounts: Usual = field(default_factory=Usual)
    lifetimes: Usual = field(default_factory=Usual)
    hours: list[float] = field(default_factory=lambda: [0.0] * 24)
    weekends: float = 0.0
    categories: Lately[list[int]] = field(default_factory=lambda: Lately(lambda: [0], PARTNERS))
    begun: int = 0
    last_at: int = 0

    @property
    def count(self) -> int:
        return self.amounts.count

    def learn(self, asked: Asked) -> None:
        self.begun = self.begun or asked.at
        self.last_at = asked.at
        self.amounts.learn(math.log(asked.amount))
        self.lifetimes.learn(math.log(max(asked.lifetime_us, 1)))
        hour, weekend = hour_of(asked.at)
        self.hours = [0.99 * each for each in self.hours]
        self.hours[hour] += 1
        self.weekends = 0.99 * self.weekends + weekend
        self.categories.use((asked.category, ""))[0] += 1


@dataclass(slots=True, eq=False)
class Asked:
    """A request as it is remembered. `moved_at` is 0 until it is carried out; `unapproved` counts towards splitting."""

    number: int
    id: str
    at: int
    amount: int
    currency: str
    debit: str
    credit: str
    category: str
    requester: str
    mission: str
    reason: str
    lifetime_us: int
    flow: Flow
    moved_at: int = 0
    approved_until: int = 0
    dead: bool = False
    unapproved: int = 0


class Subjects:
    """All that is known of one kind: of payees, say. `of` names the subject of a request, "" where it has none."""

    def __init__(self, of: Callable[[Asked], str]) -> None:
        self.of = of
        self.habits: Lately[Habits] = Lately(Habits)
        self.recent: Lately[deque[Asked]] = Lately(lambda: deque(maxlen=RECENT))
        self.pace: Lately[Pace] = Lately(Pace)
        self.unapproved: Lately[Pace] = Lately(Pace)

    def key(self, asked: Asked) -> tuple[str, str]:
        return self.of(asked), asked.currency

    def habits_of(self, asked: Asked) -> Habits:
        """Empty ones where nothing is known."""
        return self.habits.get(self.key(asked)) or Habits()

    def before(self, asked: Asked) -> list[Asked]:
        """What was asked for before it, the last first, less what was refused or let go."""
        recent = self.recent.get(self.key(asked)) or ()
        return [each for each in reversed(recent) if each.number < asked.number and not each.dead]


class History:
    """Told every row of the ledger in its order. A row costs the same however many were before."""

    def __init__(self) -> None:
        self.at = 0
        self.rules: dict[str, Rules] = {}
        self.payees = Subjects(lambda asked: asked.credit)
        self.requesters = Subjects(lambda asked: asked.requester)
        self.missions = Subjects(lambda asked: asked.mission)
        self.categories = Subjects(lambda asked: asked.category)
        self.refused: Lately[Pace] = Lately(Pace)
        self._split_by = (self.payees, self.missions)
        self._kinds: OrderedDict[str, AccountKind] = OrderedDict()
        self._asked: OrderedDict[str, Asked] = OrderedDict()
        self._numbers = 0

    def take(self, row: AnyRow, at: int) -> None:
        """A row that is in the ledger since `at`, in microseconds."""
        self.at = at = max(self.at, at)
        match row:
            case Account():
                self._kinds[row.id] = row.kind
                if len(self._kinds) > ACCOUNTS:
                    self._kinds.popitem(last=False)
            case PaymentRequest():
                self._file(row)
            case CfoDecision() | Approval():
                self._heard(row)
            case Transfer():
                self._moved(row)
            case Rules():
                if row.currency in self.rules or len(self.rules) < SUBJECTS:
                    self.rules[row.currency] = row
            case _:
                pass

    def asked(self, request: PaymentRequest, at: int) -> Asked:
        """That request as it was filed; as if it were filed at `at`, or with the last row, where it was not."""
        found = self._asked.get(request.id)
        return found if found is not None else self._read(request, self._numbers + 1, max(at, self.at))

    def flow(self, request: PaymentRequest) -> Flow:
        """Which way its money goes. An account that is not known is ours as a payer, and a stranger's as a payee."""
        if self._kinds.get(request.debit, AccountKind.FUND) is not AccountKind.FUND:
            return Flow.INCOME
        match self._kinds.get(request.credit):
            case AccountKind.FUND:
                return Flow.INTERNAL
            case AccountKind.METERED:
                return Flow.METERED
            case _:
                return Flow.SPEND

    def subjects(self, asked: Asked) -> Iterator[Subjects]:
        """The kinds in which this request has a subject.

        Who is paid by use is paid so often that an agent's own payments would not show beside it: it counts for the
        payee and the category alone.
        """
        metered = asked.flow is Flow.METERED
        kinds = (self.payees, self.categories) if metered else (*self._split_by, self.requesters, self.categories)
        return (each for each in kinds if each.of(asked))

    def beside(self, asked: Asked) -> int:
        """What nobody approved of the last day to the same payee, or for the same mission: the larger of both.

        In billionths. The ledger counts to the microsecond and has the last word; this is never less by more than what
        was forgotten.
        """
        sums = [0]
        for each in self._split_by:
            pace = each.unapproved.get(each.key(asked)) if each.of(asked) else None
            if pace is not None:
                sums.append(pace.within(self.at, DAY_US)[1])
        return max(max(sums) - asked.unapproved, 0)

    def _read(self, request: PaymentRequest, number: int, at: int) -> Asked:
        told = request.model_dump(exclude={"expires_at"})
        lifetime_us = max(request.expires_at - at, 0)
        return Asked(number=number, at=at, lifetime_us=lifetime_us, flow=self.flow(request), **told)

    def _file(self, request: PaymentRequest) -> None:
        if request.id in self._asked:
            return
        self._numbers += 1
        asked = self._asked[request.id] = self._read(request, self._numbers, self.at)
        if len(self._asked) > REQUESTS:
            self._asked.popitem(last=False)
        for each in self.subjects(asked):
            key = each.key(asked)
            each.recent.use(key).append(asked)
            each.pace.use(key).add(asked.at, asked.amount)

    def _heard(self, word: CfoDecision | Approval) -> None:
        asked = self._asked.get(word.request_id)
        if asked is None:
            return
        if isinstance(word, Approval):
            asked.approved_until = max(asked.approved_until, word.expires_at if word.verdict == "approved" else 0)
        refused = word.verdict == "refused"
        if refused and not asked.dead:
            self.refused.use(self.requesters.key(asked)).add(self.at, asked.amount)
        asked.dead = refused

    def _moved(self, transfer: Transfer) -> None:
        asked = self._asked.get(transfer.request_id)
        if asked is None:
            return
        if transfer.kind in (TransferKind.PENDING, TransferKind.POSTED):
            self._carried_out(asked)
            return
        freed = asked.amount - transfer.amount
        asked.dead = transfer.kind is TransferKind.VOID
        if asked.unapproved:
            asked.unapproved -= freed
            for each in self._split_by:
                if each.of(asked):
                    each.unapproved.use(each.key(asked)).free(asked.moved_at, freed)

    def _carried_out(self, asked: Asked) -> None:
        if asked.moved_at:
            return
        asked.moved_at = self.at
        for each in self.subjects(asked):
            each.habits.use(each.key(asked)).learn(asked)
        if asked.approved_until <= self.at and asked.flow in (Flow.SPEND, Flow.INTERNAL):
            asked.unapproved = asked.amount
            for each in self._split_by:
                if each.of(asked):
                    each.unapproved.use(each.key(asked)).add(self.at, asked.amount)


def hour_of(at: int) -> tuple[int, bool]:
    """The hour of UTC, and whether it is a Saturday or Sunday."""
    moment = datetime.fromtimestamp(at / 1_000_000, UTC)
    return moment.hour, moment.weekday() >= 5
