"""Readings of a Prometheus server: first its past, so that whoever watches begins warm, then its present."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncIterator
from typing import Self

import aiohttp

from chimera.anomaly.sources.addresses import shown_url
from chimera.anomaly.sources.fetching import checked_url, fetch, open_session, token_of
from chimera.anomaly.sources.intake import Raw, Sieve, in_batches
from chimera.anomaly.sources.pacing import Pace
from chimera.anomaly.sources.prometheus_api import read_answer
from chimera.anomaly.sources.source import Readings, Source, SourceOptions
from chimera.core.clock import Clock, SystemClock
from chimera.core.errors import InputError, QueryRefused, SourceError

log = logging.getLogger(__name__)

MAX_PAGE_POINTS = 10_000
"""Of one series in one range query. Prometheus itself refuses more than 11,000."""

MAX_PAGE_SAMPLES = 200_000
"""Of all series in one range query: about 10 MB of JSON."""

MAX_SERIES = 50_000
"""Of one query. One that gives more is refused: it was hardly meant."""

MAX_GAP_S = 3_600.0
"""How much of the past is asked for after the server was out of reach."""


class PrometheusSource(Source):
    """PromQL `queries` over the last `history_s` in steps of `interval_s`, and then every `interval_s`.

    A series is called as Prometheus writes it, `name{label="value"}`, labels sorted; where the query takes the name
    away, as rate() does, the query stands in its place. A poll that fails is counted as `unreachable`, and what was
    missed is asked for when the server is back. A clock that was set back is counted as `clock`, and from there it
    goes on. Raises SourceError, with Prometheus' own words, when a query is wrong
    or the server cannot be reached at first.
    """

    def __init__(self, url: str, *, options: SourceOptions, clock: Clock | None = None) -> None:
        self._options = options
        self._clock = clock or SystemClock()
        self._url = checked_url(url)
        self._token = token_of(options.token_env)
        if not options.queries:
            raise InputError(
                f"{shown_url(url)}: say what to ask Prometheus for: a PromQL query such as 'up' or 'rate(x[5m])'"
            )
        self.name = f"prometheus:{shown_url(self._url)}"
        self._sieve = Sieve(options.metrics)
        self.refused: dict[str, int] = self._sieve.refused
        self._pace = Pace(options.interval_s)
        self._session: aiohttp.ClientSession | None = None
        self._seen: dict[str, float] = {}
        self._series: dict[str, int] = {}

    async def __aenter__(self) -> Self:
        self._session = open_session(self._options.timeout_s, self._token)
        try:
            now = self._clock.now()
            for query in self._options.queries:
                await self._instant(query, now)
                self._seen[query] = now - self._options.history_s
        except BaseException:
            await self._session.close()
            raise
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.finish()
        if self._session is not None:
            await self._session.close()

    def finish(self) -> None:
        self._pace.close()

    async def batches(self) -> AsyncIterator[Readings]:
        """A page of the past, or a poll, of one query; in it, readings are in order of time."""
        least = max(MAX_GAP_S, self._options.history_s)
        while await self._pace.tick():
            now = self._clock.now()
            for query in self._options.queries:
                if self._seen[query] > now:
                    self._sieve.refuse("clock")
                    self._seen[query] = now
                self._seen[query] = max(self._seen[query], now - least)
                while self._seen[query] < now:
                    raw = await self._pace.until_closed(self._next(query, now))
                    if raw is None:
                        break
                    for batch in in_batches(self._sieve.sift(raw)):
                        yield batch

    async def _next(self, query: str, now: float) -> list[Raw] | None:
        """The next page of what has not been seen; None when it cannot be had now."""
        step, seen = self._options.interval_s, self._seen[query]
        try:
            if now - seen < 2 * step:
                raw, until = await self._instant(query, now), now
            else:
                room = max(1, min(MAX_PAGE_POINTS, MAX_PAGE_SAMPLES // max(1, self._series[query])))
                points = min(room, math.floor((now - seen) / step))
                until = seen + points * step
                raw = await self._range(query, seen + step, until, step)
        except SourceError as error:
            log.warning("%s: %s", self.name, error)
            self._sieve.refuse("unreachable")
            return None
        self._seen[query] = until
        return raw

    async def _instant(self, query: str, now: float) -> list[Raw]:
        return await self._ask("query", query, {"time": f"{now:.3f}"})

    async def _range(self, query: str, start: float, end: float, step: float) -> list[Raw]:
        span = {"start": f"{start:.3f}", "end": f"{end:.3f}", "step": f"{step:g}"}
        return await self._ask("query_range", query, span)

    async def _ask(self, path: str, query: str, span: dict[str, str]) -> list[Raw]:
        assert self._session is not None
        form = {"query": query, "timeout": f"{self._options.timeout_s:g}s", **span}
        document = await fetch(self._session, f"{self._url}/api/v1/{path}", form=form)
        try:
            raw, series, unread = await asyncio.to_thread(read_answer, document.status, document.body, query=query)
        except QueryRefused as error:
            raise QueryRefused(f"{shown_url(self._url)} refuses {query[:200]!r}: {error}") from None
        except SourceError as error:
            raise SourceError(f"{shown_url(self._url)}: {error}") from None
        if series > MAX_SERIES:
            raise SourceError(f"{query[:200]!r} gives {series:,} series: ask for at most {MAX_SERIES:,}")
        self._series[query] = max(series, self._series.get(query, 0))
        self._sieve.refuse("value", unread)
        return raw
