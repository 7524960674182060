from __future__ import annotations

from rates import convert


def test_dollars() -> None:
    assert convert(2, "USD") == 220


def test_pounds_after_dollars() -> None:
    assert convert(3, "USD") == 330
    assert convert(3, "GBP") == 270
