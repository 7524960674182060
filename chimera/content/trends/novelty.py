"""How new a topic is: against what is usually said, what was a topic before, and what was published already."""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Iterable, Mapping
from typing import Final

MAX_MEMORY: Final = 500
"""Earlier topics and published items that a new one is compared with."""

Shares = Mapping[str, float]
"""Terms with their shares, which add up to 1."""


def shares(terms: Iterable[str], most: int = 100) -> dict[str, float]:
    """The distribution of the `most` frequent of these terms."""
    counts = Counter(terms)
    kept = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))[:most]
    total = sum(count for _, count in kept)
    return {term: count / total for term, count in kept}


def divergence(one: Shares, other: Shares) -> float:
    """The Jensen-Shannon divergence in bits: 0 for the same distribution, 1 for nothing in common.

    Source: J. Lin, "Divergence measures based on the Shannon entropy", IEEE Trans. Information Theory 37 (1991).
    """
    found = 0.0
    for term in sorted({*one, *other}):
        p, q = one.get(term, 0.0), other.get(term, 0.0)
        middle = (p + q) / 2
        found += (p * math.log2(p / middle) if p else 0.0) + (q * math.log2(q / middle) if q else 0.0)
    return min(1.0, max(0.0, found / 2))


class Memory:
    """The last things that were said, each as a distribution of terms."""

    def __init__(self, *, limit: int = MAX_MEMORY) -> None:
        self._kept: deque[dict[str, float]] = deque(maxlen=limit)

    def remember(self, terms: Iterable[str]) -> None:
        if found := shares(terms):
            self._kept.append(found)

    def novelty(self, topic: Shares) -> float:
        """The divergence from what comes nearest to it, 0 to 1; 1 where nothing is remembered."""
        return min((divergence(topic, other) for other in self._kept), default=1.0)

    def kept(self) -> tuple[dict[str, float], ...]:
        return tuple(self._kept)

    def restore(self, kept: Iterable[dict[str, float]]) -> None:
        self._kept.extend(kept)
