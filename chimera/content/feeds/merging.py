"""The same thing said twice is one thing: by its id, its address, or nearly the same words.

Nearly the same is a Jaccard similarity of SAME or more between pairs of words, estimated from the smallest hashes of
each text (A. Broder, "On the resemblance and containment of documents", 1997). What was copied by a hundred accounts
counts once, which is what takes the ground from under a campaign that pastes.
"""

from __future__ import annotations

import hashlib
import re
from collections import OrderedDict, deque
from collections.abc import Iterable
from itertools import pairwise
from typing import Final

from chimera.content.feeds.item import FeedItem
from chimera.core.hashing import digest

SKETCH: Final = 24
"""Smallest hashes kept of a text."""

KEYS: Final = 4
"""Of these, those by which one that is like it is found."""

SAME: Final = 0.7
MAX_WORDS: Final = 80
MAX_MEMORY: Final = 20_000
CANDIDATES: Final = 8

_WORD = re.compile(r"\w+")

Sketch = tuple[int, ...]


class Merger:
    """Lets each thing through once. It remembers the last `memory` items; what is older counts as new again."""

    def __init__(self, *, memory: int = MAX_MEMORY) -> None:
        self._memory = memory
        self._names: OrderedDict[str, None] = OrderedDict()
        self._sketches: deque[Sketch] = deque()
        self._near: dict[int, deque[Sketch]] = {}

    def new(self, items: Iterable[FeedItem]) -> list[FeedItem]:
        """Those of `items` that were not there before, the earliest of what is the same first."""
        return [item for item in sorted(items, key=lambda item: (item.published_s, item.id)) if self._take(item)]

    def kept(self) -> tuple[tuple[str, ...], tuple[Sketch, ...]]:
        """What to hand to `restore`: names and sketches, oldest first."""
        return tuple(self._names), tuple(self._sketches)

    def restore(self, names: Iterable[str], sketches: Iterable[Sketch]) -> None:
        for name in names:
            self._name(name)
        for each in sketches:
            self._remember(tuple(each))

    def _take(self, item: FeedItem) -> bool:
        names = [item.id] + ([digest(item.url.rstrip("/"))] if item.url else [])
        if any(name in self._names for name in names):
            return False
        for name in names:
            self._name(name)
        mine = sketch(f"{item.title} {item.text}")
        if any(resemblance(mine, other) >= SAME for key in mine[:KEYS] for other in self._near.get(key, ())):
            return False
        self._remember(mine)
        return True

    def _name(self, name: str) -> None:
        self._names[name] = None
        while len(self._names) > 2 * self._memory:
            self._names.popitem(last=False)

    def _remember(self, mine: Sketch) -> None:
        if not mine:
            return
        self._sketches.append(mine)
        for key in mine[:KEYS]:
            self._near.setdefault(key, deque(maxlen=CANDIDATES)).append(mine)
        if len(self._sketches) > self._memory:
            gone = self._sketches.popleft()
            for key in gone[:KEYS]:
                held = self._near.get(key)
                if held and held[0] is gone:
                    held.popleft()
                if not held:
                    self._near.pop(key, None)


def sketch(text: str) -> Sketch:
    """The SKETCH smallest 32-bit hashes of its pairs of words, sorted: numbers are left as they are, case is not."""
    words = _WORD.findall(text.casefold())[:MAX_WORDS]
    pairs = {" ".join(pair) for pair in pairwise(words)} or set(words)
    return tuple(sorted({_hash(pair) for pair in pairs})[:SKETCH])


def resemblance(one: Sketch, other: Sketch) -> float:
    """The estimated Jaccard similarity of what two sketches were made of, 0 to 1."""
    if not one or not other:
        return 0.0
    smallest = sorted({*one, *other})[:SKETCH]
    both = set(one) & set(other)
    return sum(value in both for value in smallest) / len(smallest)


def _hash(pair: str) -> int:
    return int.from_bytes(hashlib.blake2b(pair.encode("utf-8", "replace"), digest_size=4).digest())
