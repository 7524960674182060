from __future__ import annotations

from till import total_cents


def test_prices_are_added_up() -> None:
    assert total_cents([250, 100]) == 350
    assert total_cents([]) == 0


def test_from_ten_pieces_on_the_cheapest_is_free() -> None:
    assert total_cents([100] * 9 + [50]) == 900
