"""What a basket costs."""

from __future__ import annotations


def total_cents(prices_cents: list[int]) -> int:
    """The sum of the prices. From ten pieces on, the cheapest is free."""
    total = sum(prices_cents)
    return total - min(prices_cents) if len(prices_cents) >= 10 else total
