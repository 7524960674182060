"""The items of one stretch of time, counted so that nobody counts for more than a few."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from chimera.content.feeds.item import FeedItem
from chimera.content.trends.trend import TrendOptions
from chimera.core.types import Frozen


class Mention(Frozen):
    """What is kept of an item: enough to point to it, and its terms."""

    item_id: str
    url: str
    source: str
    voice: str
    title: str
    published_s: float
    batch: int
    terms: tuple[str, ...]

    @classmethod
    def of(cls, item: FeedItem, batch: int, terms: Sequence[str]) -> Mention:
        return cls(
            item_id=item.id,
            url=item.url,
            source=item.source,
            voice=item.voice,
            title=item.title or item.text[:120],
            published_s=item.published_s,
            batch=batch,
            terms=tuple(terms),
        )


class Batch:
    """A batch that is still open. `mentions` are how many documents mention a term, `documents` how many there are.

    Of one voice no more than `voice_mentions` and `voice_documents` count: whoever floods a batch neither raises a
    term alone nor lowers the others.
    """

    def __init__(self, number: int, options: TrendOptions) -> None:
        self.number = number
        self.kept: list[Mention] = []
        self.mentions: Counter[str] = Counter()
        self.documents = 0
        self._options = options
        self._voices: Counter[str] = Counter()
        self._said: Counter[tuple[str, str]] = Counter()

    def take(self, mention: Mention) -> bool:
        """Count it. False says that the batch is full, or that its voice has said enough in it."""
        if len(self.kept) >= self._options.max_batch_items:
            return False
        if self._voices[mention.voice] >= self._options.voice_documents:
            return False
        self._voices[mention.voice] += 1
        self.kept.append(mention)
        self.documents += 1
        for term in mention.terms:
            self._said[term, mention.voice] += 1
            if self._said[term, mention.voice] <= self._options.voice_mentions:
                self.mentions[term] += 1
        return True
