from __future__ import annotations

from basket import merged, put


def test_baskets_are_apart() -> None:
    assert put("apple") == ["apple"]
    assert put("pear") == ["pear"]


def test_merged() -> None:
    assert merged(["b", "a"], ["a", "c"]) == ["b", "a", "c"]
