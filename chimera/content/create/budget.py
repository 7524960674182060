"""What one item may cost: a hard cap, reserved before each call and settled after it."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Final

from chimera.core.clock import Clock
from chimera.core.errors import InputError
from chimera.llm.account import Cap, Caps, charged_to
from chimera.llm.chat import ChatModel
from chimera.llm.meter import Meter, Metered
from chimera.llm.prices import Prices

ITEM_USD: Final = 0.05


class ItemBudget:
    """The money for one item, in USD. Models that only extract are free, and need no price.

    Calls through `over`, and pictures paid with `picture`, that could pass the cap raise BudgetExceeded and are not
    made; one of a model whose price is not known raises InputError, since no cap could hold then.
    """

    def __init__(self, item: str, *, prices: Prices, clock: Clock, cap_usd: float = ITEM_USD) -> None:
        if not 0 < cap_usd <= 100:
            raise InputError(f"an item may cost above 0 and at most 100 US dollars, not {cap_usd}")
        self.cap_usd = cap_usd
        self._item = item
        self._meter = Meter(prices, Caps(mission=Cap(usd=cap_usd)), clock)

    def over(self, model: ChatModel) -> ChatModel:
        """The model, each call of which is paid from here."""
        return Metered(model, self._meter) if model.writes else model

    def charged(self) -> AbstractContextManager[None]:
        """The context in which this item's calls are made."""
        return charged_to(mission=self._item)

    @property
    def spent_usd(self) -> float:
        return self._meter.totals(mission=self._item).usd

    @property
    def meter(self) -> Meter:
        """For what is not a chat: reserve and settle within `charged`."""
        return self._meter
