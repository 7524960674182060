from __future__ import annotations


def cents(price: str, quantity: int) -> int:
    """What `quantity` pieces cost, in cents; half a cent is rounded up. `price` is in euros, such as "1.005"."""
    return round(float(price) * quantity * 100)


def with_tax(amount_cents: int, percent: str) -> int:
    """The amount with tax, in cents; half a cent is rounded up."""
    return amount_cents + int(amount_cents * float(percent) / 100)
