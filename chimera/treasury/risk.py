"""How much speaks for a payment being wrong or fraudulent, from 0 to 1, and every reason by name (pure).

The score is a noisy-or of its factors: risk = 1 - product of (1 - weight * value), each reason being able to make the
payment a bad one by itself, and independently of the others (Pearl, "Probabilistic Reasoning in Intelligent Systems",
1988, section 4.3.2). So it can be worked out by hand from what is listed, and more of any factor never lowers it.

The weights were set on synthetic histories (`bench/risk.py`): they rank payments, and are no probabilities of fraud.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import pairwise
from statistics import median
from typing import Annotated, NamedTuple

from pydantic import Field

from chimera.core.types import Frozen, Share
from chimera.treasury.history import HOUR_US, Asked, Flow, Habits, History, Pace, Subjects, hour_of
from chimera.treasury.types import DAY_US, NANO, Factor, PaymentRequest, Rules, shown

DUPLICATE_US = 3 * DAY_US
REPLAY_US = 120 * DAY_US
"""The same payee and amount is a duplicate up to DUPLICATE_US, and then, up to this, an old invoice come again."""
RHYTHMS_US = tuple(days * DAY_US for days in (7, 14, 28, 30, 31))
"""After so long, within a day, what is paid again may be a subscription."""
YOUNG_US = 28 * DAY_US
"""So long a payee is new."""

WEIGHTS: Mapping[str, float] = {
    "base": 0.02,
    "amount": 0.31,
    "amount-requester": 0.09,
    "new-payee": 0.46,
    "new-requester": 0.15,
    "look-alike": 0.36,
    "stand-in": 0.22,
    "duplicate": 0.52,
    "velocity": 0.53,
    "volume": 0.09,
    "hour": 0.49,
    "category": 0.24,
    "splitting": 0.34,
    "lifetime": 0.49,
    "refusals": 0.3,
    "reputation": 0.4,
}
"""Of each factor: what the risk is where it alone is at 1."""

Told = tuple[float, str]
"""A value from 0 to 1, and a line for people."""


class Assessment(Frozen):
    """`factors` are those that count, the weightiest first; one that is not listed is at zero.

    `beside`, in billionths, is what nobody approved of the last day to the same payee, or for the same mission: it goes
    with the amount when that is held against a limit.
    """

    risk: Share
    factors: Annotated[tuple[Factor, ...], Field(max_length=32)] = ()
    flow: Flow = Flow.SPEND
    beside: Annotated[int, Field(ge=0)] = 0


def assess(request: PaymentRequest, history: History, *, at: int, reputation: float | None = None) -> Assessment:
    """The risk of a request. `reputation` is its requester's, from 0 to 1; None where nothing is known of it.

    A request that is in the history is judged as of the moment at which the ledger took it, by what came before it;
    for another one that is `at`, in microseconds, and never earlier than the history's last row.
    """
    asked = history.asked(request, at)
    case = _Case(asked, history, reputation)
    told = {name: look(case) for name, look in FACTORS.items()}
    factors = [
        Factor(name=name, value=round(value, 4), weight=WEIGHTS[name], why=why[:1_000])
        for name, (value, why) in told.items()
        if round(value, 4) > 0
    ]
    factors.sort(key=lambda factor: factor.value * factor.weight, reverse=True)
    return Assessment(risk=combined(factors), factors=tuple(factors), flow=asked.flow, beside=history.beside(asked))


def combined(factors: Iterable[Factor]) -> float:
    """The risk that these come to, to six decimals."""
    return round(1 - math.prod(1 - factor.weight * factor.value for factor in factors), 6)


@dataclass
class _Case:
    """A request, and what is known of its subjects."""

    asked: Asked
    history: History
    reputation: float | None

    @cached_property
    def payee(self) -> Habits:
        return self.history.payees.habits_of(self.asked)

    @cached_property
    def requester(self) -> Habits:
        """Empty for what is paid by use: software spends it, at any hour."""
        return Habits() if self.asked.flow is Flow.METERED else self.history.requesters.habits_of(self.asked)

    @cached_property
    def category(self) -> Habits:
        return self.history.categories.habits_of(self.asked)

    @cached_property
    def ask_over(self) -> int:
        currency = self.asked.currency
        return max(self.history.rules.get(currency, Rules(currency=currency)).ask_over, 1)

    def newness(self) -> float:
        """Of the payee: 1 for one who was never paid, then less with each day of the first weeks.

        One whom only this requester pays stays new for longer. While few payees are known at all, a new one says less.
        """
        if self.asked.flow is not Flow.SPEND:
            return 0.0
        if not self.payee.count:
            known = len(self.history.payees.habits)
            return (known + 3) / (known + 6)
        before = self.history.payees.before(self.asked)
        alone = all(each.requester == self.asked.requester for each in before)
        age = (self.asked.at - self.payee.begun) / YOUNG_US
        return (0.6 if alone else 0.3) * max(1 - age, 0.0)


def _base(case: _Case) -> Told:
    return 1.0, "any payment"


def _amount(case: _Case) -> Told:
    asked, payee, category = case.asked, case.payee, case.category
    if not payee.count and not category.count:
        against = asked.amount / (asked.amount + 2 * case.ask_over)
        return against, "nothing is known to hold the amount against"
    prior = category.amounts.deviation(0.8)
    known = category.count and 2
    mean = (payee.count * payee.amounts.mean + known * category.amounts.mean) / (payee.count + known)
    deviation = payee.amounts.deviation(prior) if payee.count else prior
    whose = asked.credit if payee.count else f"the category {asked.category}"
    return _beyond(asked.amount, mean, deviation, whose)


def _amount_requester(case: _Case) -> Told:
    usual = case.requester.amounts
    if usual.count < 3:
        return 0.0, ""
    return _beyond(case.asked.amount, usual.mean, usual.deviation(1.0), case.asked.requester)


def _beyond(amount: int, mean: float, deviation: float, whose: str) -> Told:
    distance = math.log(amount) - mean
    return _ramp(
        distance / deviation, 1.0, 5.0
    ), f"{math.exp(min(distance, 50)):,.1f} times the usual amount for {whose}"


def _new_payee(case: _Case) -> Told:
    return case.newness(), f"{case.asked.credit} was {'not paid until lately' if case.payee.count else 'never paid'}"


def _new_requester(case: _Case) -> Told:
    if case.asked.flow is Flow.METERED:
        return 0.0, ""
    count = case.requester.count
    return _ramp(5 - count, 0, 5), f"{count} payments of {case.asked.requester} are known"


def _look_alike(case: _Case) -> Told:
    asked = case.asked
    if case.newness() < 0.2:
        return 0.0, ""
    for known, currency in case.history.payees.habits:
        if currency == asked.currency and known != asked.credit and alike(known, asked.credit):
            return 1.0, f"{asked.credit} is written almost as {known}, who is known"
    return 0.0, ""


def _stand_in(case: _Case) -> Told:
    asked = case.asked
    if not case.newness():
        return 0.0, ""
    for other in case.history.categories.before(asked):
        if other.credit != asked.credit and other.moved_at and _same(asked, other):
            # A price that many ask says little: whole units of a currency do that.
            return (0.4 if asked.amount % NANO == 0 else 1.0), f"{other.credit} is paid the same amount"
    return 0.0, ""


def _duplicate(case: _Case) -> Told:
    asked = case.asked
    same = [each for each in case.history.payees.before(asked) if _same(asked, each)]
    if not same or asked.flow is Flow.METERED:
        return 0.0, ""
    gap_us = asked.at - same[0].at
    gaps = [later.at - each.at for later, each in pairwise(same)]
    if gap_us > REPLAY_US:
        return 0.0, ""
    value = 1.0 if gap_us <= DUPLICATE_US else 0.6
    if asked.reason and any(asked.reason == each.reason for each in same):
        value = 1.0
    else:
        if asked.reason and same[0].reason:
            value *= 0.6
        if asked.amount != same[0].amount or asked.amount % NANO == 0:
            value *= 0.6  # many prices are round, or close to one another
        older = sum(asked.at - each.at > DUPLICATE_US for each in same)
        value /= math.sqrt(max(older, 1))  # and some are a payee's usual ones
    if len(gaps) >= 2 and 0.75 * median(gaps) <= gap_us <= 1.5 * median(gaps):
        value *= 0.1
    elif len(gaps) < 2 and any(abs(gap_us - each) < DAY_US for each in RHYTHMS_US):
        value *= 0.4
    return value, f"{asked.credit} was to be paid as much {_ago(gap_us)} before, as {same[0].id}"


def _velocity(case: _Case) -> Told:
    most: Told = (0.0, "")
    for subjects in _counted(case) if case.asked.flow is Flow.SPEND else ():
        pace = subjects.pace.get(subjects.key(case.asked)) or Pace()
        usual, _ = pace.daily(case.asked.at)
        for length_us, name, allowed in ((HOUR_US, "an hour", 1.5 + usual / 3), (DAY_US, "a day", 2 + 2 * usual)):
            count = pace.within(case.asked.at, length_us)[0]
            value = _ramp(math.log(max(count, 1) / allowed), 0.0, 1.8)
            if value > most[0]:
                most = value, f"{count} requests within {name} for {subjects.of(case.asked)}; a day has {usual:.1f}"
    return most


def _volume(case: _Case) -> Told:
    most: Told = (0.0, "")
    for subjects in _counted(case):
        pace = subjects.pace.get(subjects.key(case.asked)) or Pace()
        usual, amount = pace.daily(case.asked.at)[1], pace.within(case.asked.at, DAY_US)[1]
        value = _ramp(math.log(max(amount, 1) / (2 * usual + case.ask_over)), 0.0, 2.5)
        if value > most[0]:
            told = shown(amount, case.asked.currency)
            most = value, f"{told} within a day for {subjects.of(case.asked)}"
    return most


def _counted(case: _Case) -> list[Subjects]:
    return [each for each in case.history.subjects(case.asked) if each is not case.history.categories]


def _hour(case: _Case) -> Told:
    habits = case.requester
    hour, weekend = hour_of(case.asked.at)
    total = sum(habits.hours)
    around = (habits.hours[hour - 1] + 2 * habits.hours[hour] + habits.hours[(hour + 1) % 24]) / 4
    of_hour = 24 * (around + 0.05) / (total + 24 * 0.05)
    weekends = (habits.weekends + 0.3) / (total + 1)
    of_day = weekends * 3.5 if weekend else 1.0
    day = " at a weekend" if weekend else ""
    told = f"{case.asked.requester} seldom asks between {hour}:00 and {(hour + 1) % 24}:00 UTC{day}"
    return _ramp(0.6 - of_hour * min(of_day, 1.0), 0.0, 0.6) * total / (total + 10), told


def _category(case: _Case) -> Told:
    most: Told = (0.0, "")
    for habits, whose, scale in ((case.requester, case.asked.requester, 0.6), (case.payee, case.asked.credit, 1.0)):
        if (case.asked.category, "") not in habits.categories:
            value = scale * habits.count / (habits.count + 4)
            if value > most[0]:
                most = value, f"the category {case.asked.category} is new for {whose}"
    return most


def _splitting(case: _Case) -> Told:
    asked, limit = case.asked, case.ask_over
    if asked.flow not in (Flow.SPEND, Flow.INTERNAL) or not 0.5 * limit <= asked.amount <= limit:
        return 0.0, ""
    most: Told = (0.0, "")
    for subjects in (case.history.payees, case.history.missions):
        near = [
            each
            for each in subjects.before(asked)
            if asked.at - each.at < DAY_US and 0.5 * limit <= each.amount <= limit
        ]
        close = sum(each.amount for each in (asked, *near)) / (limit * (len(near) + 1))
        value = _ramp(len(near), 0, 3) * close
        if value > most[0]:
            told = shown(limit, asked.currency)
            most = value, f"{len(near) + 1} payments just below {told} within a day for {subjects.of(asked)}"
    return most


def _lifetime(case: _Case) -> Told:
    usual = case.requester.lifetimes
    if usual.count < 5:
        return 0.0, ""
    distance = math.log(max(case.asked.lifetime_us, 1)) - usual.mean
    how = "later" if distance > 0 else "sooner"
    told = f"it expires much {how} than what {case.asked.requester} asks for"
    return _ramp(abs(distance) / usual.deviation(1.2), 2.0, 5.0), told


def _refusals(case: _Case) -> Told:
    refused = case.history.refused.get(case.history.requesters.key(case.asked))
    count = refused.within(case.asked.at, DAY_US)[0] if refused else 0
    return _ramp(count, 0, 5), f"{count} requests of {case.asked.requester} were refused within a day"


def _reputation(case: _Case) -> Told:
    known = 0.5 if case.reputation is None else case.reputation
    return _ramp(0.5 - known, 0.0, 0.5), f"the reputation of {case.asked.requester} is {known:.2f}"


FACTORS: Mapping[str, Callable[[_Case], Told]] = {
    "base": _base,
    "amount": _amount,
    "amount-requester": _amount_requester,
    "new-payee": _new_payee,
    "new-requester": _new_requester,
    "look-alike": _look_alike,
    "stand-in": _stand_in,
    "duplicate": _duplicate,
    "velocity": _velocity,
    "volume": _volume,
    "hour": _hour,
    "category": _category,
    "splitting": _splitting,
    "lifetime": _lifetime,
    "refusals": _refusals,
    "reputation": _reputation,
}


def _ramp(value: float, low: float, high: float) -> float:
    """0 up to `low`, 1 from `high` on, and straight between them."""
    return min(max((value - low) / (high - low), 0.0), 1.0)


def _same(one: Asked, other: Asked) -> bool:
    """The same amount, to half a percent."""
    return abs(one.amount - other.amount) * 200 <= other.amount


def _ago(gap_us: int) -> str:
    return f"{gap_us / DAY_US:.0f} days" if gap_us >= 2 * DAY_US else f"{gap_us / HOUR_US:.1f} hours"


_LOOKS = str.maketrans("0153$", "olsse")
_ADDRESS = re.compile(r"^(.*0x)([0-9a-f]{4})[0-9a-f]{32}([0-9a-f]{4})$")


def alike(one: str, other: str) -> bool:
    """Whether people may take one for the other.

    That is: but for case, punctuation and letters that look the same they are equal, or one letter was changed, added,
    left out, or swapped with the next; or they are addresses of a chain whose first and last four digits are the same.
    Where only a digit differs they are neighbours in a list, as acme-1 and acme-2.
    """
    first, second = _written(one), _written(other)
    if first.ends and second.ends:
        return first.ends == second.ends and first.folded != second.folded
    if first.digitless == second.digitless and first.folded != second.folded:
        return False
    return min(len(first.letters), len(second.letters)) >= 4 and _one_edit(first.letters, second.letters)


class _Written(NamedTuple):
    """How a name looks. `ends` are those of an address, and what stands before it."""

    folded: str
    letters: str
    digitless: str
    ends: tuple[str, ...]


@lru_cache(maxsize=8_192)
def _written(name: str) -> _Written:
    folded = name.casefold()
    letters = re.sub(r"[_.\-:/]", "", folded).translate(_LOOKS).replace("rn", "m").replace("vv", "w")
    address = _ADDRESS.match(folded)
    return _Written(folded, letters, re.sub(r"\d+", "0", folded), address.groups() if address else ())


def _one_edit(one: str, other: str) -> bool:
    """At most one change, addition, omission or swap of neighbours apart (Damerau, CACM 7, 1964)."""
    if abs(len(one) - len(other)) > 1 or (one[0] != other[0] and one[-1] != other[-1]):
        return False
    if len(one) > len(other):
        one, other = other, one
    begin = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), len(one))
    left, right = one[begin:], other[begin:]
    if len(one) < len(other):
        return left == right[1:]
    return left[1:] == right[1:] or (left[:2] == right[1::-1] and left[2:] == right[2:])
