"""What is counted of models' calls, in whole units: an account, what may be spent of it, and who it is.

Its own module because a meter keeps three of them for each call: of the mission, of the agent, and of the day.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Annotated, NamedTuple

from pydantic import Field

from chimera.core.types import Frozen
from chimera.llm.prices import NANO, nano

Count = Annotated[int, Field(ge=0, le=10**15)]


class Cap(Frozen):
    """The most that may be spent in US dollars, in tokens (read and written) and in calls. None: no limit."""

    usd: Annotated[float, Field(ge=0.0, le=1e9, allow_inf_nan=False)] | None = None
    tokens: Count | None = None
    calls: Count | None = None


class Caps(Frozen):
    """A cap for each mission, for each agent, and for each day (UTC)."""

    mission: Cap = Cap()
    agent: Cap = Cap()
    day: Cap = Cap()


class Totals(Frozen):
    """What was spent. `usd` is the sum of the known costs; `unpriced` calls have one that is not known.

    `tokens_reserved` and `usd_reserved` are set aside for the calls in progress, `calls_reserved` of them.
    """

    usd: float = 0.0
    tokens: int = 0
    calls: int = 0
    unpriced: int = 0
    usd_reserved: float = 0.0
    tokens_reserved: int = 0
    calls_reserved: int = 0


class Payer(NamedTuple):
    """Whose call it is. Calls of nobody in particular are together one mission and one agent, both named ""."""

    mission: str = ""
    agent: str = ""


_payer: ContextVar[Payer] = ContextVar("chimera_llm_payer", default=Payer())  # noqa: B039 - a tuple does not change


@contextmanager
def charged_to(*, mission: str | None = None, agent: str | None = None) -> Iterator[None]:
    """Calls made inside are this mission's and this agent's; None: whose they were.

    It goes along into tasks that are started inside, and into threads of `asyncio.to_thread`.
    """
    outer = _payer.get()
    token = _payer.set(Payer(outer.mission if mission is None else mission, outer.agent if agent is None else agent))
    try:
        yield
    finally:
        _payer.reset(token)


def payer() -> Payer:
    """Who pays for a call that is made here."""
    return _payer.get()


class Amounts(NamedTuple):
    """Billionths of a dollar, tokens, calls."""

    usd: int = 0
    tokens: int = 0
    calls: int = 0


class Account:
    """What one mission, one agent or one day has spent and set aside. `whose` names it in a refusal."""

    def __init__(self, whose: str, cap: Cap) -> None:
        self.whose = whose
        self.used_at_s = 0.0
        self.in_usd = cap.usd is not None
        self._limit = (None if cap.usd is None else nano(cap.usd), cap.tokens, cap.calls)
        self._spent = Amounts()
        self._reserved = Amounts()
        self._unpriced = 0

    @property
    def idle(self) -> bool:
        """Whether no call of it is in progress."""
        return not self._reserved.calls

    def refusal(self, ask: Amounts) -> str | None:
        """Why `ask` cannot be set aside: the cap, what is left of it, what was asked. None: it can."""
        for name, limit, spent, reserved, asked in zip(
            Amounts._fields, self._limit, self._spent, self._reserved, ask, strict=True
        ):
            if limit is not None and spent + reserved + asked > limit:
                left = max(0, limit - spent - reserved)
                cap, rest, wish = (_told(name, amount) for amount in (limit, left, asked))
                return f"the cap of {cap} for {self.whose}: {rest} are left, and this call may take up to {wish}"
        return None

    def reserve(self, ask: Amounts) -> None:
        self._reserved = _plus(self._reserved, ask)

    def settle(self, ask: Amounts, spent: Amounts, unpriced: bool) -> None:
        self._reserved = _plus(self._reserved, Amounts(*(-amount for amount in ask)))
        self._spent = _plus(self._spent, spent)
        self._unpriced += unpriced

    def totals(self) -> Totals:
        return Totals(
            usd=self._spent.usd / NANO,
            tokens=self._spent.tokens,
            calls=self._spent.calls,
            unpriced=self._unpriced,
            usd_reserved=self._reserved.usd / NANO,
            tokens_reserved=self._reserved.tokens,
            calls_reserved=self._reserved.calls,
        )


def _plus(one: Amounts, other: Amounts) -> Amounts:
    return Amounts(one.usd + other.usd, one.tokens + other.tokens, one.calls + other.calls)


def _told(name: str, amount: int) -> str:
    return f"{amount / NANO:.9f}".rstrip("0").rstrip(".") + " USD" if name == "usd" else f"{amount} {name}"
