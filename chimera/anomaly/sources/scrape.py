"""Readings of /metrics endpoints: Prometheus' text format, which Ray's own agents speak too."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from typing import Self
from urllib.parse import urlsplit

import aiohttp

from chimera.anomaly.sources.addresses import shown_url
from chimera.anomaly.sources.exposition import OPENMETRICS, Page, read_page
from chimera.anomaly.sources.fetching import checked_url, fetch, open_session, token_of
from chimera.anomaly.sources.intake import Sieve, in_batches
from chimera.anomaly.sources.naming import canonical
from chimera.anomaly.sources.pacing import Pace
from chimera.anomaly.sources.source import Readings, Source, SourceOptions
from chimera.core.clock import Clock, SystemClock
from chimera.core.errors import InputError, SourceError

log = logging.getLogger(__name__)

Targets = Callable[[], Sequence[str] | Awaitable[Sequence[str]]]
"""The URLs there are now. They may be others the next time."""

MAX_TARGETS = 1_000
MAX_PAGE_BYTES = 16 * 1024 * 1024
AT_ONCE = 32

ACCEPT = f"text/plain;version=0.0.4;q=1,{OPENMETRICS};version=1.0.0;q=0.5"


class ScrapeSource(Source):
    """Asks every target every `interval_s`, AT_ONCE of them at a time, each for at most `timeout_s`.

    A metric is called as it is exposed, with its labels; where there may be several targets, with `instance` as well,
    unless it has that label. A target that cannot be read is counted in `refused` as `target`, and every target is a
    metric itself: `up{target="URL"}`, 1 or 0, where the URL is without its password and query. Raises SourceError when
    none of a fixed list of targets can be read at first, and InputError for what is no URL.
    """

    def __init__(
        self,
        targets: str | Sequence[str] | Targets,
        *,
        options: SourceOptions | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._options = options or SourceOptions()
        self._clock = clock or SystemClock()
        self._discover = targets if callable(targets) else None
        fixed = [targets] if isinstance(targets, str) else [] if callable(targets) else list(targets)
        self._fixed = list(dict.fromkeys(checked_url(url) for url in fixed))
        if not callable(targets) and not 1 <= len(self._fixed) <= MAX_TARGETS:
            raise InputError(f"there are {len(self._fixed):,} targets to scrape: give 1 to {MAX_TARGETS:,} URLs")
        self._token = token_of(self._options.token_env)
        self.name = f"scrape:{shown_url(self._fixed[0]) if len(self._fixed) == 1 else f'{len(self._fixed)} targets'}"
        self._sieve = Sieve(self._options.metrics)
        self.refused: dict[str, int] = self._sieve.refused
        self._pace = Pace(self._options.interval_s)
        self._session: aiohttp.ClientSession | None = None
        self._reached = self._discover is not None

    async def __aenter__(self) -> Self:
        self._session = open_session(self._options.timeout_s, self._token)
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.finish()
        if self._session is not None:
            await self._session.close()

    def finish(self) -> None:
        self._pace.close()

    async def batches(self) -> AsyncIterator[Readings]:
        """A target's readings together, as soon as it has answered."""
        while await self._pace.tick():
            now = self._clock.now()
            targets = await self._pace.until_closed(self._targets()) or []
            several = len(self._fixed) != 1
            limit = asyncio.Semaphore(AT_ONCE)
            asks = [
                asyncio.create_task(self._ask(url, called, now, several, limit))
                for url, called in _called_apart(targets)
            ]
            try:
                failures: list[str] = []
                for ask in asyncio.as_completed(asks):
                    answer = await self._pace.until_closed(ask)
                    if answer is None:
                        return
                    readings, failure = answer
                    failures += [failure] if failure else []
                    if len(failures) == len(asks) and not self._reached:
                        raise SourceError(failures[0])
                    for batch in in_batches(readings):
                        yield batch
                self._reached = self._reached or len(failures) < len(asks)
            finally:
                for task in asks:
                    task.cancel()
                await asyncio.gather(*asks, return_exceptions=True)

    async def _targets(self) -> list[str]:
        if self._discover is None:
            return self._fixed
        try:
            found = self._discover()
            urls = list(await found if inspect.isawaitable(found) else found)
        except Exception as error:  # whatever a discovery raises: the next one may go well
            log.warning("the targets cannot be listed: %s: %s", type(error).__name__, error)
            self._sieve.refuse("targets")
            return []
        usable = dict.fromkeys(url for url in urls if self._usable(url))
        self._sieve.refuse("targets", max(0, len(usable) - MAX_TARGETS))
        return list(usable)[:MAX_TARGETS]

    def _usable(self, url: str) -> bool:
        try:
            checked_url(url)
        except (InputError, AttributeError, TypeError):
            self._sieve.refuse("targets")
            return False
        return True

    async def _ask(
        self, url: str, called: str, now: float, several: bool, limit: asyncio.Semaphore
    ) -> tuple[Readings, str]:
        """A target's readings, and why it could not be read."""
        failure, page = "", Page([], {})
        try:
            async with limit:
                page = await self._page(url, {"instance": _instance(url)} if several else {})
        except SourceError as error:
            failure = str(error)
            self._sieve.refuse("target")
            log.info("%s", failure)
        for reason, count in page.refused.items():
            self._sieve.refuse(reason, count)
        up = (canonical("up", {"target": called}), now, 0.0 if failure else 1.0)
        values = ((metric, now if stamp is None else stamp, value) for metric, stamp, value in page.values)
        return self._sieve.sift([up, *values]), failure

    async def _page(self, url: str, labels: dict[str, str]) -> Page:
        assert self._session is not None
        document = await fetch(self._session, url, accept=ACCEPT, limit=MAX_PAGE_BYTES)
        if document.status != 200:
            raise SourceError(f"{shown_url(url)}: it answers with status {document.status}")
        page = await asyncio.to_thread(read_page, document.body, kind=document.kind, labels=labels)
        if page.refused and not page.values:
            raise SourceError(f"{shown_url(url)}: what it serves is not in Prometheus' text format")
        return page


def _called_apart(urls: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Each with what is shown of it; numbered, where only what is not shown tells it from one before it."""
    seen: Counter[str] = Counter()
    for url in urls:
        shown = shown_url(url)
        seen[shown] += 1
        yield url, shown if seen[shown] == 1 else f"{shown}#{seen[shown]}"


def _instance(url: str) -> str:
    parts = urlsplit(url)
    where = parts.netloc.rpartition("@")[2]
    return where if parts.path == "/metrics" else where + parts.path
