from __future__ import annotations

import pytest
from billing import cents, with_tax


@pytest.mark.parametrize(("price", "quantity", "expected"), [("1.005", 1, 101), ("0.125", 1, 13), ("2.675", 1, 268)])
def test_half_a_cent(price: str, quantity: int, expected: int) -> None:
    assert cents(price, quantity) == expected


@pytest.mark.parametrize(("amount", "percent", "expected"), [(150, "7", 161), (50, "5", 53), (100, "0", 100)])
def test_tax(amount: int, percent: str, expected: int) -> None:
    assert with_tax(amount, percent) == expected
