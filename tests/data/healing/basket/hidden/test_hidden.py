from __future__ import annotations

from basket import merged, put


def test_new_baskets_are_not_the_same() -> None:
    first, second = put("apple"), put("pear")
    assert (first, second) == (["apple"], ["pear"])


def test_the_given_one_is_left_alone() -> None:
    mine = ["fig"]
    assert put("nut", mine) == ["fig", "nut"]
    assert mine == ["fig"]


def test_order_of_many() -> None:
    letters = list("zyxwvutsrqponm")
    assert merged(letters, letters[::-1]) == letters
