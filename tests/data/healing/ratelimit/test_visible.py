from __future__ import annotations

from ratelimit import RateLimit


def test_two_in_ten_seconds() -> None:
    limit = RateLimit(2, 10.0)
    assert [limit.allows(at) for at in (0.0, 1.0, 2.0)] == [True, True, False]


def test_the_edge_of_the_window() -> None:
    limit = RateLimit(1, 10.0)
    assert limit.allows(0.0)
    assert limit.allows(10.0)
