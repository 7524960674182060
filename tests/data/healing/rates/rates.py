from __future__ import annotations

RATES = {"USD": 110, "GBP": 90, "EUR": 100, "CHF": 95}

_known: dict[int, int] = {}


def convert(amount: int, currency: str) -> int:
    """So many euros in another currency, in hundredths of it. What was asked before is remembered."""
    if amount not in _known:
        _known[amount] = amount * RATES[currency]
    return _known[amount]
