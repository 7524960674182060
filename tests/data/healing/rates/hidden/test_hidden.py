from __future__ import annotations

import pytest
from rates import RATES, convert


def test_every_currency_in_turn() -> None:
    for _ in range(2):
        assert [convert(7, currency) for currency in RATES] == [770, 630, 700, 665]


def test_unknown_currency_of_a_known_amount() -> None:
    convert(7, "USD")
    with pytest.raises(KeyError):
        convert(7, "XXX")
