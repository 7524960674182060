"""Frauds among a company's payments. Whoever commits them knows what is usual, and mostly keeps close to it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from random import Random

from bench.fraud.company import BEGIN_US, CATEGORIES, DAYS, HOUR_US, Asking, Company, Payee
from chimera.treasury.types import DAY_US, NANO

QUIET_DAYS = 30
"""Before them nobody commits a fraud, and nothing is scored."""
LIMIT = 50 * NANO

Fraud = Callable[[Company, Sequence[Asking]], list[Asking]]


def with_frauds(seed: int) -> list[Asking]:
    """The payments of a company, its frauds among them, in the order of their times."""
    company = Company(seed)
    honest = company.honest()
    found = list(honest)
    for kind, commit in FRAUDS.items():
        for _ in range(company.rng.randint(*TIMES[kind])):
            found += [replace(each, fraud=kind) for each in commit(company, honest)]
    return sorted(found, key=lambda each: each.at)


def duplicate(company: Company, honest: Sequence[Asking]) -> list[Asking]:
    """An invoice once more within two days, under another id, at times by another agent or a little changed."""
    rng = company.rng
    victim = _victim(rng, honest)
    amount = victim.amount if rng.random() < 0.75 else int(victim.amount * rng.uniform(0.992, 1.008))
    requester = victim.requester if rng.random() < 0.6 else rng.choice(company.agents).name
    reason = victim.reason if rng.random() < 0.6 else f"invoice {rng.randrange(10_000)}"
    at = victim.at + rng.randrange(HOUR_US // 2, 48 * HOUR_US)
    return [replace(victim, at=at, amount=max(amount, 1), requester=requester, reason=reason)]


def replay(company: Company, honest: Sequence[Asking]) -> list[Asking]:
    """An old invoice, weeks later."""
    rng = company.rng
    old = _victim(rng, [each for each in honest if each.at < BEGIN_US + (DAYS - 20) * DAY_US])
    at = max(old.at + rng.randrange(8 * DAY_US, 60 * DAY_US), _day(QUIET_DAYS))
    requester = old.requester if rng.random() < 0.5 else rng.choice(company.agents).name
    return [replace(old, at=at, requester=requester)] if at < _day(DAYS) else []


def look_alike(company: Company, honest: Sequence[Asking]) -> list[Asking]:
    """Bills in the name of somebody whose name is almost that of a known payee."""
    rng = company.rng
    day = rng.randrange(QUIET_DAYS, DAYS - 3)
    payee = rng.choice(company.known(day))
    other = replace(payee, name=_misspelt(rng, payee.name, company.names))
    return [company.visit(day + rng.randrange(3), other) for _ in range(rng.randint(1, 2))]


def changed_payee(company: Company, honest: Sequence[Asking]) -> list[Asking]:
    """The next bill of a known payee is to go to an account that is not theirs, and has a name like any other."""
    rng = company.rng
    day = rng.randrange(QUIET_DAYS, DAYS - 1)
    payee = rng.choice(company.known(day))
    asking = company.visit(day, replace(payee, name=company.name()))
    if payee.every_days:
        return [replace(asking, amount=payee.price)]
    return [replace(asking, amount=int(asking.amount * rng.uniform(1.0, 3.0)))]


def structuring(company: Company, honest: Sequence[Asking]) -> list[Asking]:
    """What a person would have to approve, in parts: to one payee, or for one mission to several."""
    rng = company.rng
    day = rng.randrange(QUIET_DAYS, DAYS - 1)
    agent, mission = rng.choice(company.agents), rng.choice(company.missions)
    begin, several = company.moment(day, agent), rng.random() < 0.5
    one = rng.choice(company.known(day))
    found = []
    for _ in range(rng.randint(3, 6)):
        payee = rng.choice(company.known(day)) if several else one
        asking = company.payment(begin + rng.randrange(10 * HOUR_US), payee, agent)
        found.append(replace(asking, amount=int(LIMIT * rng.uniform(0.55, 0.99)), mission=mission))
    return found


def takeover(company: Company, honest: Sequence[Asking]) -> list[Asking]:
    """Somebody else acts as an agent: at odd hours, for other things, and for more."""
    rng = company.rng
    day, agent = rng.randrange(QUIET_DAYS, DAYS - 1), rng.choice(company.agents)
    begin = _day(day) + int(((agent.hour + rng.uniform(7, 17)) % 24) * HOUR_US)
    stranger = rng.random() < 0.5
    payee = rng.choice(company.known(day))
    if stranger:
        payee = replace(payee, name=company.name())
    found = []
    for _ in range(rng.randint(1, 4)):
        asking = company.payment(begin + rng.randrange(2 * HOUR_US), payee, agent)
        category = rng.choice(CATEGORIES) if rng.random() < 0.6 else asking.category
        found.append(replace(asking, category=category, amount=int(asking.amount * rng.uniform(1.5, 8))))
    return found


def burst(company: Company, honest: Sequence[Asking]) -> list[Asking]:
    """As many as one can before somebody looks, each of an ordinary size."""
    rng = company.rng
    day, agent = rng.randrange(QUIET_DAYS, DAYS - 1), rng.choice(company.agents)
    begin, one = company.moment(day, agent), rng.choice(company.known(day))
    if rng.random() < 0.4:
        one = replace(one, name=company.name())
    payees = [one] if rng.random() < 0.6 else rng.choices(company.known(day), k=6)
    count = rng.randint(8, 20)
    return [company.payment(begin + rng.randrange(HOUR_US), rng.choice(payees), agent) for _ in range(count)]


def drip(company: Company, honest: Sequence[Asking]) -> list[Asking]:
    """A little every few days, for weeks, to an account of one's own: nearly what an honest new payee looks like."""
    rng = company.rng
    day, agent = rng.randrange(QUIET_DAYS, DAYS - 30), rng.choice(company.agents)
    like = rng.choice(company.known(day))
    own = Payee(company.name(), like.category, max(like.size, 8.0), 0.3, day, 0.0)
    found = []
    for _ in range(rng.randint(5, 9)):
        found.append(company.payment(company.moment(day, agent), own, agent))
        day += rng.randint(1, 4)
    return found


def clock(company: Company, honest: Sequence[Asking]) -> list[Asking]:
    """An ordinary payment that must be decided at once, or may be carried out much later; dated back in its reason."""
    rng = company.rng
    day = rng.randrange(QUIET_DAYS, DAYS - 1)
    asking = company.visit(day, rng.choice(company.known(day)))
    lifetime_us = rng.randrange(1_000_000, 120_000_000) if rng.random() < 0.5 else rng.randrange(90, 3_000) * DAY_US
    return [replace(asking, lifetime_us=lifetime_us, amount=int(asking.amount * rng.uniform(1, 3)))]


FRAUDS: Mapping[str, Fraud] = {
    "duplicate": duplicate,
    "replay": replay,
    "look-alike": look_alike,
    "changed-payee": changed_payee,
    "structuring": structuring,
    "takeover": takeover,
    "burst": burst,
    "drip": drip,
    "clock": clock,
}
TIMES: Mapping[str, tuple[int, int]] = {
    "duplicate": (4, 8),
    "replay": (3, 6),
    "look-alike": (3, 5),
    "changed-payee": (4, 7),
    "structuring": (1, 2),
    "takeover": (2, 4),
    "burst": (0, 1),
    "drip": (0, 1),
    "clock": (4, 7),
}
"""How often each is committed, at least and at most. They come to about as many payments of each kind."""


def _victim(rng: Random, honest: Sequence[Asking]) -> Asking:
    return rng.choice([each for each in honest if each.at >= _day(QUIET_DAYS)])


def _day(number: int) -> int:
    return BEGIN_US + number * DAY_US


def _misspelt(rng: Random, name: str, taken: Collection[str]) -> str:
    """Another name, at a glance the same."""
    while True:
        at = rng.randrange(1, len(name) - 1)
        found = rng.choice(
            [
                name[:at] + name[at] + name[at:],
                name[:at] + name[at + 1 :],
                name[:at] + rng.choice("aeiolrs") + name[at + 1 :],
                name.replace("o", "0", 1).replace("l", "1", 1),
            ]
        )
        if found not in taken and found != name:
            return found
