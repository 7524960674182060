"""Alternative text: what a picture says, for whoever does not see it. Made from what was drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from chimera.core.errors import InputError

MAX_CHARS: Final = 1_000
"""The least that a platform takes that is published to; Bluesky takes 2,000, Mastodon 1,500."""

MAX_POINTS: Final = 24
"""Of a chart that are told one by one; of more, the first, the last and the extremes."""


def check_alt(text: str, most_chars: int = MAX_CHARS) -> str:
    """`text` in one line, if it can stand for a picture. Raises InputError for an empty one or one that is too long."""
    alt = " ".join(text.split())
    if not any(letter.isalnum() for letter in alt):
        raise InputError("a picture needs an alternative text: say what is seen in it")
    if len(alt) > most_chars:
        raise InputError(f"an alternative text of {len(alt)} characters is too long: at most {most_chars}")
    return alt


def card_alt(heading: str, body: str, source: str) -> str:
    """Of a card with these words on it."""
    parts = (heading, f"“{body}”" if source and body else body, f"Source: {source}" if source else "")
    return _cut("Text card. " + " ".join(_sentence(part) for part in parts if part.strip()))


def chart_alt(
    title: str, kind: str, labels: Sequence[str], values: Sequence[float], *, unit: str = "", source: str = ""
) -> str:
    """Of a chart: its kind, its title, its numbers, its source. Of more than MAX_POINTS, the ends and extremes."""
    pairs = list(zip(labels, values, strict=True))
    if len(pairs) <= MAX_POINTS:
        told = ", ".join(f"{label} {number(value)}" for label, value in pairs)
    else:
        low, high = min(pairs, key=lambda pair: pair[1]), max(pairs, key=lambda pair: pair[1])
        words = ("first", pairs[0]), ("lowest", low), ("highest", high), ("last", pairs[-1])
        told = f"{len(pairs)} values; " + ", ".join(f"{word} {pair[0]} {number(pair[1])}" for word, pair in words)
    measured = f" in {unit}" if unit else ""
    cited = f" {_sentence(f'Source: {source}')}" if source else ""
    head = f"{kind.capitalize()} chart: {_sentence(title)}"
    return _cut(f"{head} Values{measured}: {told}.", MAX_CHARS - len(cited)) + cited


def number(value: float) -> str:
    """As it is read: `1,234.5`, `3`, `0.0012`."""
    return f"{value:,.6g}" if abs(value) < 1e6 else f"{value:,.0f}"


def _sentence(text: str) -> str:
    text = text.strip()
    return text if text[-1:] in ".!?”" else f"{text}."


def _cut(text: str, most_chars: int = MAX_CHARS) -> str:
    text = " ".join(text.split())
    return text if len(text) <= most_chars else text[: most_chars - 1].rstrip() + "…"
