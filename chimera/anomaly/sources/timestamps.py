"""Timestamps as people write them, to seconds since the epoch."""

from __future__ import annotations

from datetime import UTC, datetime

EXPECTED = "ISO 8601, 'YYYY-MM-DD HH:MM:SS' (UTC), or unix seconds, milliseconds, microseconds or nanoseconds"

MAX_CHARS = 64

_UNITS = ((1e17, 1e9), (1e14, 1e6), (1e11, 1e3))


def seconds_of(text: str) -> float | None:
    """Seconds since the epoch, or None for what is no timestamp. Without a zone it is UTC.

    A plain number is seconds, or what its size says: from 1e11 on (the year 5138 in seconds) milliseconds, from 1e14
    on microseconds, from 1e17 on nanoseconds.
    """
    text = text.strip()
    if not text or len(text) > MAX_CHARS or "_" in text:
        return None
    try:
        number = float(text)
    except ValueError:
        return _of_date(text)
    if not abs(number) < 1e20:
        return None
    return next((number / unit for least, unit in _UNITS if abs(number) >= least), number)


def is_date(text: str) -> bool:
    """Whether this is a date, and not just a number."""
    return len(text) <= MAX_CHARS and _of_date(text.strip()) is not None and any(sign in text for sign in "-:T")


def _of_date(text: str) -> float | None:
    try:
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None
