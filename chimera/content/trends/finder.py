"""Items in, trends out. The same items give the same trends, in whatever portions they come, the earlier ones first."""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from typing import Annotated, Final

from pydantic import Field, ValidationError

from chimera.content.feeds.item import FeedItem
from chimera.content.feeds.merging import Merger
from chimera.content.trends.batch import Batch, Mention
from chimera.content.trends.bursts import NEVER, Burst, BurstTable, TableState
from chimera.content.trends.novelty import Memory, divergence, shares
from chimera.content.trends.tokens import terms_in, terms_of
from chimera.content.trends.topics import cluster, discoveries, label, tail
from chimera.content.trends.trend import MAX_EVIDENCE, Evidence, Intake, Trend, TrendOptions
from chimera.core.errors import InputError
from chimera.core.types import Frozen

MAX_CANDIDATES: Final = 300
"""Bursting terms that are looked at more closely, the strongest first."""

MAX_STATE_BYTES: Final = 256 << 20


class _Kept(Frozen):
    """A finder as it is saved."""

    version: Annotated[int, Field(ge=1, le=1)] = 1
    options: TrendOptions
    table: TableState
    open: tuple[Mention, ...]
    open_batch: int
    window: tuple[Mention, ...]
    names: tuple[str, ...]
    sketches: tuple[tuple[int, ...], ...]
    published: tuple[dict[str, float], ...]


class TrendFinder:
    """Keeps what is usual, and the last batches; finds what is not usual in them. Memory is bounded by its options."""

    def __init__(self, *, options: TrendOptions | None = None) -> None:
        self.options = options or TrendOptions()
        self._table = BurstTable(self.options.bursts)
        self._merger = Merger()
        self._open = Batch(NEVER, self.options)
        self._window: deque[Mention] = deque(maxlen=self.options.max_window_items)
        self._published = Memory()

    def add(self, items: Iterable[FeedItem], now: float) -> Intake:
        """Take items in, and close the batches that are over at `now`.

        Raises InputError for an item that is published later than `now`.
        """
        given = list(items)
        ahead = next((item for item in given if item.published_s > now), None)
        if ahead is not None:
            raise InputError(f"item {ahead.id} is published after now: read it with the time that it was read at")
        new = self._merger.new(given)
        taken = late = refused = 0
        for item in new:
            batch = self._batch_of(item.published_s)
            if batch < self._open.number:
                late += 1
                continue
            self._advance(batch)
            if self._open.take(Mention.of(item, batch, terms_of(item))):
                taken += 1
            else:
                refused += 1
        self._advance(self._batch_of(now))
        return Intake(taken=taken, copies=len(given) - len(new), late=late, refused=refused)

    def published(self, text: str) -> None:
        """Remember what was published, so that what comes near to it is no news."""
        self._published.remember(terms_in(text))

    def trends(self, k: int = 10) -> list[Trend]:
        """The `k` strongest trends, the strongest first; the batch that is still open counts."""
        batch = self._open
        bursts = self._table.bursts(batch.number, batch.mentions, batch.documents)
        bursts = [burst for burst in bursts if burst.since > batch.number - self.options.window]
        bursts.sort(key=lambda burst: (-burst.gain, burst.term))
        window = [*self._window, *batch.kept]
        postings = _postings(bursts[:MAX_CANDIDATES], window)
        heard = [burst for burst in bursts[:MAX_CANDIDATES] if self._enough([window[n] for n in postings[burst.term]])]
        chances = [self._chance(burst, [window[n] for n in postings[burst.term]], window) for burst in heard]
        tests = len(self._table) + len(batch.mentions)
        real = discoveries(chances, tests, self.options.false_discovery_rate)
        found = {b.term: (b, chance) for b, chance, passed in zip(heard, chances, real, strict=True) if passed}
        topics = cluster(list(found), postings)[: max(0, k)]
        return [self._trend(topic, *found[topic[0]], postings, window) for topic in topics]

    def save(self) -> str:
        """Its state as JSON: words and titles of others among it."""
        names, sketches = self._merger.kept()
        return _Kept(
            options=self.options,
            table=self._table.kept(),
            open=tuple(self._open.kept),
            open_batch=self._open.number,
            window=tuple(self._window),
            names=names,
            sketches=sketches,
            published=self._published.kept(),
        ).model_dump_json()

    @classmethod
    def load(cls, state: str) -> TrendFinder:
        """Go on where `save` was called. Raises InputError for what it did not write."""
        if len(state) > MAX_STATE_BYTES:
            raise InputError(f"a state of trends has at most {MAX_STATE_BYTES:,} characters")
        try:
            kept = _Kept.model_validate_json(state)
        except ValidationError as error:
            raise InputError(f"this is no state of trends, begin anew: {error.error_count()} errors") from None
        finder = cls(options=kept.options)
        finder._table.restore(kept.table)
        finder._merger.restore(kept.names, kept.sketches)
        finder._published.restore(kept.published)
        finder._window.extend(kept.window)
        finder._open = Batch(kept.open_batch, kept.options)
        for mention in kept.open:
            finder._open.take(mention)
        return finder

    def _batch_of(self, at: float) -> int:
        return math.floor(at / self.options.batch_s)

    def _advance(self, batch: int) -> None:
        """Close the open batch, if this one is later."""
        if batch <= self._open.number:
            return
        if self._open.documents:
            self._table.observe(self._open.number, self._open.mentions, self._open.documents)
            self._window.extend(self._open.kept)
        while self._window and self._window[0].batch <= batch - self.options.window:
            self._window.popleft()
        self._open = Batch(batch, self.options)

    def _enough(self, mentions: Sequence[Mention]) -> bool:
        """Whether enough voices say it, and somebody still does."""
        if not any(mention.batch >= self._open.number - self.options.quiet for mention in mentions):
            return False
        voices = {mention.voice for mention in mentions}
        several = len({_place(mention.source) for mention in mentions}) > 1
        return len(voices) >= (self.options.min_voices if several else self.options.lone_source_voices)

    def _chance(self, burst: Burst, mentions: Sequence[Mention], window: Sequence[Mention]) -> float:
        """How likely so many mentions since the burst began are, at the rate from before; counted as in batches.

        A burst may have begun in any batch: one of age a is held against a(a + 1) chances, whose inverses add up to 1.
        """
        since = [mention for mention in mentions if mention.batch >= burst.since]
        recent = _capped(((m.batch, m.voice) for m in since), self.options.voice_mentions)
        documents = _capped(
            ((m.batch, m.voice) for m in window if m.batch >= burst.since), self.options.voice_documents
        )
        closed = _capped(
            ((m.batch, m.voice) for m in since if m.batch < self._open.number), self.options.voice_mentions
        )
        closed_documents = documents - self._open.documents
        past = max(0.0, self._table.mass(burst.term) - closed)
        past_documents = max(0.0, self._table.documents - closed_documents)
        age, spread = self._open.number - burst.since + 1, self._table.spread(burst.term)
        chance = tail(recent / spread, documents / spread, past / spread, past_documents / spread)
        return min(1.0, chance * age * (age + 1))

    def _trend(
        self,
        topic: Sequence[str],
        burst: Burst,
        chance: float,
        postings: dict[str, frozenset[int]],
        window: Sequence[Mention],
    ) -> Trend:
        terms = label(topic)
        rows = sorted({row for term in topic[:5] for row in postings[term]})
        mentions = [window[row] for row in rows if window[row].batch >= burst.since]
        began = burst.since * self.options.batch_s
        hours = (self._open.number + 1 - burst.since) * self.options.batch_s / 3_600.0
        first = self._open.number - self.options.window + 1
        per_batch = Counter(mention.batch for mention in mentions)
        return Trend(
            terms=terms,
            strength=burst.gain,
            since_s=began,
            documents=len(mentions),
            voices=len({mention.voice for mention in mentions}),
            sources=len({_place(mention.source) for mention in mentions}),
            velocity=len(mentions) / hours,
            novelty=self._novelty(mentions),
            chance=chance,
            counts=tuple(per_batch[batch] for batch in range(first, self._open.number + 1)),
            evidence=_evidence(mentions),
        )

    def _novelty(self, mentions: Sequence[Mention]) -> float:
        said = _counts(mentions)
        topic = shares(said.elements())
        usual = max(1.0, self._table.total)
        background = {term: max(0.0, self._table.mass(term) - said[term]) / usual for term in topic}
        background[""] = max(0.0, 1.0 - sum(background.values()))
        return min(divergence(topic, background), self._published.novelty(topic))


def _counts(mentions: Sequence[Mention]) -> Counter[str]:
    return Counter(term for mention in mentions for term in mention.terms)


def _postings(bursts: Sequence[Burst], window: Sequence[Mention]) -> dict[str, frozenset[int]]:
    """Where in the window each bursting term is mentioned since it bursts."""
    since = {burst.term: burst.since for burst in bursts}
    found: dict[str, set[int]] = {term: set() for term in since}
    for place, mention in enumerate(window):
        for term in mention.terms:
            if term in since and mention.batch >= since[term]:
                found[term].add(place)
    return {term: frozenset(places) for term, places in found.items()}


def _capped(pairs: Iterable[tuple[int, str]], most: int) -> int:
    """How many there are, of one voice in one batch at most `most`."""
    return sum(min(count, most) for count in Counter(pairs).values())


def _place(source: str) -> str:
    """Two timelines of one network are one place: whoever posts there is in both."""
    return "bluesky" if source.startswith("bluesky:") else source


def _evidence(mentions: Sequence[Mention]) -> tuple[Evidence, ...]:
    """The first of each source, then of each voice, then the rest: as many who say it as there is room for."""
    sources: Counter[str] = Counter()
    voices: Counter[str] = Counter()
    ranked: list[tuple[int, int, float, str, Mention]] = []
    for mention in sorted(mentions, key=lambda each: (each.published_s, each.item_id)):
        ranked.append((sources[mention.source], voices[mention.voice], mention.published_s, mention.item_id, mention))
        sources[mention.source] += 1
        voices[mention.voice] += 1
    first = [each for each in ranked if each[0] == 0]
    rest = sorted((each for each in ranked if each[0]), key=lambda each: each[1:4])
    return tuple(
        Evidence(
            item_id=mention.item_id,
            url=mention.url,
            source=mention.source,
            title=mention.title,
            published_s=mention.published_s,
        )
        for *_, mention in (*first, *rest)[:MAX_EVIDENCE]
    )
