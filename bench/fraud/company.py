"""A made-up company and its honest payments: agents, missions, payees, rhythms, and what only looks odd.

Synthetic: amounts are log-normal around each payee's own size, work has hours and weekdays, the company grows. So that
fraud does not stand out by itself there are honest large invoices, bursts at the end of a month, prices just below the
limit, the same price twice within a day, subscriptions, new payees (some named almost as known ones), agents who stand
in for one another, work at night, and requests that live unusually long.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from random import Random

from chimera.treasury.types import DAY_US, NANO

BEGIN_US = 1_767_225_600_000_000
"""2026-01-01, 00:00 UTC."""
DAYS = 120
HOUR_US = DAY_US // 24
CATEGORIES = ("cloud", "data", "tools", "travel", "ads", "legal", "office", "research")
STEMS = (
    *(
        "acme",
        "globex",
        "initech",
        "umbra",
        "hooli",
        "vandelay",
        "stark",
        "wayne",
        "cyber",
        "tyrell",
        "soylent",
        "aperture",
    ),
    *(
        "massive",
        "oscorp",
        "pied",
        "gringotts",
        "monsters",
        "duff",
        "wonka",
        "sirius",
        "nakatomi",
        "zorg",
        "bluth",
        "dunder",
    ),
)
LAST = ("", "-eu", "-us", "-labs", "-2", "-3", ".io", "-ltd")


@dataclass(frozen=True)
class Asking:
    """A payment that somebody asks for. `fraud` is its kind; "" for an honest one. Times are in microseconds."""

    at: int
    credit: str
    amount: int
    category: str
    requester: str
    mission: str
    reason: str
    lifetime_us: int
    fraud: str = ""


@dataclass
class Payee:
    name: str
    category: str
    size: float
    spread: float
    from_day: int
    share: float
    price: int = 0
    every_days: int = 0


@dataclass
class Agent:
    name: str
    hour: float
    categories: tuple[str, ...]
    lifetime: float
    share: float


class Company:
    """All of it follows from `seed`. `honest()` gives the honest payments in the order of their times."""

    def __init__(self, seed: int) -> None:
        self.rng = rng = Random(seed)
        self.agents = [self._agent(number) for number in range(rng.randint(5, 10))]
        self.missions = [f"mission-{number}" for number in range(rng.randint(12, 30))]
        self.names: set[str] = set()
        self.payees = [
            self._payee(0 if number < 20 else rng.randrange(5, DAYS)) for number in range(rng.randint(40, 60))
        ]
        self.a_day = rng.uniform(8, 20)
        self.growth = rng.uniform(0.0, 0.01)
        self.nights = rng.uniform(0.02, 0.08)

    def honest(self) -> list[Asking]:
        found: list[Asking] = []
        for day in range(DAYS):
            weekend = (day + 3) % 7 >= 5  # the first day is a Thursday
            found += self._subscriptions(day)
            for _ in range(self._poisson(self.a_day * (0.2 if weekend else 1.0) * math.exp(self.growth * day))):
                found += self._payment(day)
            if self.rng.random() < 0.06 and not weekend:
                found += self._burst(day)
        return sorted(found, key=lambda each: each.at)

    def payment(self, at: int, payee: Payee, agent: Agent | None = None) -> Asking:
        """An ordinary one: of an agent who pays such things, or of one who stands in."""
        rng = self.rng
        able = [each for each in self.agents if payee.category in each.categories] or self.agents
        if rng.random() < 0.06:
            able = self.agents
        agent = agent or rng.choices(able, [each.share for each in able])[0]
        return Asking(
            at=at,
            credit=payee.name,
            amount=self.amount(payee),
            category=payee.category if rng.random() > 0.03 else rng.choice(CATEGORIES),
            requester=agent.name,
            mission=rng.choice([*self.missions, ""]),
            reason=f"invoice {rng.randrange(10_000)}" if rng.random() < 0.6 else "",
            lifetime_us=self.lifetime(agent),
        )

    def visit(self, day: int, payee: Payee) -> Asking:
        """An ordinary payment of that day, in the hours of the agent who makes it."""
        asking = self.payment(0, payee)
        agent = next(each for each in self.agents if each.name == asking.requester)
        return replace(asking, at=self.moment(day, agent))

    def amount(self, payee: Payee) -> int:
        """In billionths; some are round, some end just below a round price, a few are much larger than usual."""
        rng = self.rng
        units = payee.size * math.exp(rng.gauss(0, payee.spread))
        if rng.random() < 0.025:
            units *= rng.uniform(4, 15)
        style = rng.random()
        if style < 0.25 and units > 3:
            units = float(round(units))
        elif style < 0.35 and 35 < units < 80:
            units = rng.choice([45.0, 48.0, 49.0, 49.5, 49.99, 50.0])
        return max(int(round(units, 2) * 100), 1) * NANO // 100

    def moment(self, day: int, agent: Agent | None = None) -> int:
        """Some time of that day: of an agent's hours, as a rule."""
        around = (agent or self.rng.choice(self.agents)).hour
        hour = self.rng.uniform(0, 24) if self.rng.random() < self.nights else self.rng.gauss(around, 2.2) % 24
        return BEGIN_US + day * DAY_US + int(hour * HOUR_US)

    def known(self, day: int) -> list[Payee]:
        return [each for each in self.payees if each.from_day <= day]

    def lifetime(self, agent: Agent) -> int:
        odd = self.rng.random()
        hours = agent.lifetime * math.exp(self.rng.gauss(0, 0.5))
        hours *= self.rng.uniform(10, 60) if odd < 0.01 else self.rng.uniform(0.01, 0.1) if odd < 0.02 else 1.0
        return max(int(hours * HOUR_US), 1_000_000)

    def name(self) -> str:
        while True:
            found = self.rng.choice(STEMS) + self.rng.choice(LAST)
            if found in self.names:
                found += f"-{self.rng.randrange(100)}"
            if found not in self.names:
                self.names.add(found)
                return found

    def _payment(self, day: int) -> list[Asking]:
        known = [each for each in self.known(day) if not each.every_days]
        payee = self.rng.choices(known, [each.share for each in known])[0]
        if self.rng.random() < 0.025:  # whom nobody pays again
            payee = replace(payee, name=self.name())
        asking = self.visit(day, payee)
        if self.rng.random() < 0.012:  # two of the same, as tickets
            return [asking, replace(asking, at=asking.at + self.rng.randrange(60_000_000, 5 * HOUR_US))]
        return [asking]

    def _subscriptions(self, day: int) -> list[Asking]:
        due = [each for each in self.known(day) if each.every_days and (day - each.from_day) % each.every_days == 0]
        return [
            replace(self.payment(self.moment(day, self.agents[0]), each, self.agents[0]), amount=each.price, reason="")
            for each in due
        ]

    def _burst(self, day: int) -> list[Asking]:
        """Many at a time: bills that were put aside, or many small things from one payee."""
        rng, agent = self.rng, self.rng.choice(self.agents)
        begin, several = self.moment(day, agent), rng.random() < 0.7
        one = rng.choice(self.known(day))
        found = []
        for _ in range(rng.randint(5, 16)):
            payee = rng.choice(self.known(day)) if several else one
            found.append(self.payment(begin + rng.randrange(2 * HOUR_US), payee, agent))
        return found

    def _payee(self, from_day: int) -> Payee:
        rng = self.rng
        size = math.exp(rng.gauss(2.6, 1.1))
        every_days = rng.choice([7, 30]) if rng.random() < 0.2 else 0
        return Payee(
            name=self.name(),
            category=rng.choice(CATEGORIES),
            size=size,
            spread=rng.uniform(0.2, 0.9),
            from_day=from_day,
            share=rng.expovariate(1.0) + 0.05,
            price=int(size * 100) * NANO // 100 + NANO,
            every_days=every_days,
        )

    def _agent(self, number: int) -> Agent:
        rng = self.rng
        return Agent(
            name=f"agent-{number}",
            hour=rng.choice([8.0, 10.0, 13.0, 15.0, 20.0]),
            categories=tuple(rng.sample(CATEGORIES, rng.randint(2, 4))),
            lifetime=rng.choice([1.0, 8.0, 24.0, 72.0]),
            share=rng.expovariate(1.0) + 0.1,
        )

    def _poisson(self, mean: float) -> int:
        """Knuth, "The Art of Computer Programming", volume 2, section 3.4.1."""
        count, product, least = 0, self.rng.random(), math.exp(-mean)
        while product > least:
            count, product = count + 1, product * self.rng.random()
        return count
