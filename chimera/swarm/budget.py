"""Hard budgets: what an attempt may spend is reserved before it starts and settled when it has ended.

Amounts are counted in whole units (billionths of a dollar, microseconds), so that no rounding lets a budget be passed.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from chimera.core.types import Budget, Spend
from chimera.swarm.known import known

_USD, _SECOND = 1_000_000_000, 1_000_000

_MOST = 1_000_000.0
"""Dollars or seconds: more counts as so many, so that amounts stay exact as floats too."""


class _Units(NamedTuple):
    """Amounts in whole units. None is "no limit", and only in a limit, a wish or a grant."""

    usd: int | None
    tokens: int | None
    calls: int | None
    seconds: int | None


class Purse:
    """A mission's budget. At every moment: spent + reserved <= limit, in each of its dimensions.

    What is reserved for an attempt is the most that is ever counted for it: the cell refuses to spend more.
    """

    def __init__(self, limit: Budget) -> None:
        self._limit = _units(limit)
        self._grants: dict[str, _Units] = {}
        self._reserved = [0, 0, 0, 0]
        self._spent = [0, 0, 0, 0]
        self.limited = any(amount is not None for amount in self._limit)
        """Whether there is any limit at all."""

    @property
    def spent(self) -> Spend:
        """What the attempts that have ended have spent."""
        return _spend(self._spent)

    @property
    def reserved(self) -> Spend:
        """What the attempts in progress may still spend."""
        return _spend(self._reserved)

    @property
    def attempts(self) -> list[str]:
        """The attempts that have a reservation."""
        return list(self._grants)

    def grant(self, attempt_id: str) -> Budget:
        """What is reserved for an attempt in progress."""
        return _budget(self._grants[attempt_id])

    def share(self, of: int, wanted: Budget | None = None) -> Budget:
        """What the next of `of` tries may ask for: what is `wanted`, else its equal share of what is left.

        At least one unit: where nothing is left of a limit, so much cannot be reserved. What is forbidden (a limit of
        zero) is not asked for; but no attempt takes no time.
        """
        asked = []
        for wish, limit, reserved, spent in zip(
            _units(wanted or Budget()), self._limit, self._reserved, self._spent, strict=True
        ):
            if wish is None and limit is not None:
                wish = min(limit, max(1, (limit - spent - reserved) // of))
            asked.append(wish)
        if asked[-1] == 0:
            asked[-1] = 1
        return _budget(_Units(*asked))

    def reserve(self, attempt_id: str, ask: Budget) -> bool:
        """Set `ask` aside for the attempt, or change nothing and return False. A second call for it changes nothing."""
        if attempt_id in self._grants:
            return True
        grant = _units(ask)
        if not self._allows(grant, [spent + had for spent, had in zip(self._spent, self._reserved, strict=True)]):
            return False
        self._grants[attempt_id] = grant
        self._reserved = [had + (amount or 0) for had, amount in zip(self._reserved, grant, strict=True)]
        return True

    def could(self, ask: Budget) -> bool:
        """Whether `ask` could be reserved once every attempt in progress has ended and spent nothing more."""
        return self._allows(_units(ask), self._spent)

    def settle(self, attempt_id: str, spent: Spend | None) -> bool:
        """The attempt has ended; False if it had no reservation.

        With None, what it spent is not known (its host died): all it had counts as spent.
        """
        grant = self._grants.pop(attempt_id, None)
        if grant is None:
            return False
        told = grant if spent is None else _units(spent)
        for at, (granted, amount) in enumerate(zip(grant, told, strict=True)):
            self._reserved[at] -= granted or 0
            self._spent[at] += min(amount or 0, granted) if granted is not None else amount or 0
        return True

    def _allows(self, ask: _Units, used: list[int]) -> bool:
        """Whether `ask` fits in beside what is `used`. What has no end fits in nowhere."""
        return all(
            limit is None or (amount is not None and had + amount <= limit)
            for limit, amount, had in zip(self._limit, ask, used, strict=True)
        )


class Bill:
    """What attempts say that they have spent, summed up."""

    def __init__(self) -> None:
        self._usd = self._seconds = 0.0
        self._tokens = self._calls = 0

    def add(self, spent: Spend, seconds: float) -> None:
        self._usd += spent.usd
        self._tokens += spent.tokens
        self._calls += spent.calls
        self._seconds += seconds

    @property
    def total(self) -> Spend:
        return known(Spend, usd=self._usd, tokens=self._tokens, calls=self._calls, seconds=self._seconds)


def total(spends: Iterable[Spend]) -> Spend:
    """The sum of them."""
    several = tuple(spends)
    return Spend(**{name: sum(getattr(each, name) for each in several) for name in Spend.model_fields})


def _units(amounts: Budget | Spend) -> _Units:
    usd = None if amounts.usd is None else round(min(amounts.usd, _MOST) * _USD)
    seconds = None if amounts.seconds is None else round(min(amounts.seconds, _MOST) * _SECOND)
    return _Units(usd, amounts.tokens, amounts.calls, seconds)


def _budget(units: _Units) -> Budget:
    return Budget(
        usd=None if units.usd is None else units.usd / _USD,
        tokens=units.tokens,
        calls=units.calls,
        seconds=None if units.seconds is None else units.seconds / _SECOND,
    )


def _spend(units: list[int]) -> Spend:
    return Spend(usd=units[0] / _USD, tokens=units[1], calls=units[2], seconds=units[3] / _SECOND)
