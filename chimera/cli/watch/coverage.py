"""Which limits are about no metric at all: most likely their name is not what the metric is called."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from chimera.anomaly.forecast.warning import Limit
from chimera.cli.arena import command
from chimera.cli.watch import tell

NAMED = 3
"""Limits that are named; the others are counted."""


class Coverage:
    """Limits by their text, less those of which a metric has been seen."""

    def __init__(self, limits: Mapping[str, Limit]) -> None:
        self._left = dict(limits)

    def __bool__(self) -> bool:
        """Whether there is any limit left."""
        return bool(self._left)

    def see(self, metrics: Iterable[str]) -> None:
        known = set(metrics)
        for text, limit in list(self._left.items()):
            if limit.metric in known or ("*" in limit.metric and any(map(limit.covers, known))):
                del self._left[text]

    def remarks(self) -> list[str]:
        """`limit 'cpu=90' covered no metric` for each that is left, of too many the first."""
        named = [f"limit '{command.one_line(text)}' covered no metric" for text in list(self._left)[:NAMED]]
        further = len(self._left) - len(named)
        return named + ([f"{tell.many(further, 'more limit')} covered none"] if further else [])
