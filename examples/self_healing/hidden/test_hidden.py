from __future__ import annotations

from till import total_cents


def test_nine_are_all_paid_for() -> None:
    assert total_cents(list(range(1, 10))) == 45


def test_the_list_is_left_alone() -> None:
    prices = [5, 4, 3] * 4
    total_cents(prices)
    assert prices == [5, 4, 3] * 4
