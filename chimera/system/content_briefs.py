"""From feeds to briefs: what was read, what is talked about more than it was, and what an item on it may rest on."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final
from urllib.parse import urlsplit

from pydantic import ValidationError

from chimera.content.accounts import MAX_CHARS, Platform
from chimera.content.create.brief import BLUESKY, MASTODON, OUTBOX, Brief, ChannelLimits, Source
from chimera.content.feeds.files import read_file
from chimera.content.feeds.item import FeedItem, Origin, Parsed
from chimera.content.media.chart import Chart
from chimera.content.trends.finder import TrendFinder
from chimera.content.trends.trend import Trend, TrendOptions
from chimera.core.clock import Clock
from chimera.core.errors import ChimeraError
from chimera.core.hashing import digest
from chimera.system.content_campaign import Campaign
from chimera.system.feeds import FeedReader, read_bluesky, read_mastodon

MAX_SOURCES: Final = 6
MAX_CHARTED: Final = 24
CANDIDATES: Final = 4
"""Trends that are looked at for each item that is wanted: some were spoken of already."""
LIMITS: Final[dict[Platform, ChannelLimits]] = {
    "bluesky": BLUESKY,
    "mastodon": MASTODON,
    "outbox": OUTBOX.model_copy(update={"part_chars": min(OUTBOX.part_chars, MAX_CHARS["outbox"])}),
}


async def read_feeds(campaign: Campaign, *, clock: Clock, secret: bytes) -> tuple[list[FeedItem], list[str]]:
    """The items of all feeds, and what is wrong with those that could not be read: one holds up none of the others."""
    items: list[FeedItem] = []
    problems: list[str] = []
    urls = [place for place in campaign.file.feeds if place.startswith(("http://", "https://"))]

    def take(name: str, parsed: Parsed) -> None:
        items.extend(parsed.items)
        if parsed.refused:
            problems.append(f"{name}: {parsed.refused} entries are of no use: {parsed.why}")

    for place in campaign.file.feeds:
        if place in urls:
            continue
        path = campaign.path(place)
        try:
            take(place, read_file(path, file_origin(path.stem, clock=clock, secret=secret)))
        except ChimeraError as error:
            problems.append(str(error))
    if urls:
        async with FeedReader(clock=clock, secret=secret, private_hosts=campaign.file.private_hosts) as reader:
            for fetched in await reader.read_all(urls):
                take(fetched.url, fetched.parsed)
                if fetched.error:
                    problems.append(fetched.error)
    for timeline in campaign.file.timelines:
        read = read_bluesky if timeline.platform == "bluesky" else read_mastodon
        try:
            take(timeline.platform, await read(campaign.path(timeline.credentials), clock=clock, secret=secret))
        except ChimeraError as error:
            problems.append(str(error))
    return items, problems


def file_origin(stem: str, *, clock: Clock, secret: bytes = b"") -> Origin:
    """Where the items of a file are from, by its name."""
    name = re.sub(r"[^A-Za-z0-9_.-]", "-", stem)[:100]
    return Origin(source=f"file:{name}", seen_s=clock.now(), secret=secret)


def find_trends(
    items: Sequence[FeedItem], k: int, *, now: float | None, options: TrendOptions, published: Iterable[str] = ()
) -> list[Trend]:
    """The `k` strongest trends at `now`, or with None at the time of the last item. `published` is no news any more."""
    if not items:
        return []
    finder = TrendFinder(options=options)
    for text in published:
        finder.published(text)
    finder.add(items, max(item.published_s for item in items) if now is None else now)
    return finder.trends(k)


def brief_of(trend: Trend, items: dict[str, FeedItem], campaign: Campaign) -> Brief | None:
    """An order for an item on a trend; None where nothing of its evidence can be cited."""
    sources = [source for one in trend.evidence if (source := _source(items.get(one.item_id)))][:MAX_SOURCES]
    if not sources:
        return None
    account, file = campaign.account, campaign.file
    topic = ", ".join(trend.terms[:3])[:120]
    rests = sorted(source.id for source in sources)
    name = digest([campaign.name, account.name, *sorted(trend.terms), *rests])
    return Brief(
        id=name[:32],
        topic=topic,
        terms=tuple(term[:60] for term in trend.terms),
        sources=tuple(sources),
        audience=file.readers,
        voice=file.voice,
        language=account.language,
        limits=LIMITS[account.platform],
        chart=_chart(trend, topic, sources[0]) if file.picture == "chart" else None,
        picture=file.picture != "none",
    )


def is_told(trend: Trend, told: Iterable[frozenset[str]]) -> bool:
    """Whether something rests on half of its evidence, or half of it on this: the same story under other words."""
    own = {one.item_id for one in trend.evidence}
    return any(2 * len(own & other) >= min(len(own), len(other)) for other in told)


def _source(item: FeedItem | None) -> Source | None:
    if item is None:
        return None
    try:
        return Source(
            id=item.id,
            url=item.url,
            title=item.title or urlsplit(item.url).netloc[:300] or item.source,
            quote=item.text or item.title,
        )
    except ValidationError:  # an address that nobody can be sent to
        return None


def _chart(trend: Trend, topic: str, source: Source) -> Chart | None:
    """How often it was mentioned, of our own counting; none where there are too few times to compare."""
    counts = trend.counts[-MAX_CHARTED:]
    if len(counts) < 2:
        return None
    return Chart(
        title=f"Mentions of {topic}"[:120],
        kind="line" if len(counts) > 12 else "bar",
        labels=tuple(f"-{len(counts) - 1 - n}" for n in range(len(counts))),
        values=tuple(map(float, counts)),
        unit="items",
        source=f"own count of {trend.documents} items in {trend.sources} feeds",
        source_id=source.id,
    )
