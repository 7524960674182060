from __future__ import annotations

from billing import cents, with_tax


def test_half_a_cent_is_rounded_up() -> None:
    assert cents("0.125", 1) == 13


def test_whole_cents() -> None:
    assert cents("1.10", 3) == 330


def test_tax() -> None:
    assert with_tax(250, "19") == 298
