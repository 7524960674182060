from __future__ import annotations

from ratelimit import RateLimit


def test_what_was_refused_does_not_count() -> None:
    limit = RateLimit(1, 10.0)
    assert [limit.allows(at) for at in (0.0, 5.0, 9.0, 10.0, 12.0)] == [True, False, False, True, False]


def test_just_within() -> None:
    limit = RateLimit(1, 10.0)
    assert [limit.allows(0.0), limit.allows(9.999)] == [True, False]


def test_nothing_is_allowed() -> None:
    assert not RateLimit(0, 1.0).allows(0.0)
