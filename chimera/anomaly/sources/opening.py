"""The one place where what a user names becomes a source of readings."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

from chimera.anomaly.sources.addresses import parse_address, shown_url
from chimera.anomaly.sources.csv_file import STDIN, CsvSource
from chimera.anomaly.sources.push import PushSource
from chimera.anomaly.sources.source import Source, SourceOptions
from chimera.anomaly.sources.statsd import DEFAULT_PORT as STATSD_PORT
from chimera.anomaly.sources.statsd import StatsdSource
from chimera.core.clock import Clock, SystemClock
from chimera.core.errors import InputError, MissingExtra

__all__ = ["FORMS", "PushSource", "SourceOptions", "open_source"]

FORMS = (
    "FILE.csv, - (standard input), prometheus:http://HOST:9090, scrape:http://HOST:PORT/metrics[,URL...], "
    "statsd:HOST:PORT, otlp:HOST:PORT, http:HOST:PORT"
)

MAX_SPEC_CHARS = 16_384

Opener = Callable[[str, SourceOptions, Clock, random.Random], Source]


def open_source(
    spec: str,
    *,
    options: SourceOptions | None = None,
    clock: Clock | None = None,
    rng: random.Random | None = None,
) -> Source:
    """The source of this name, in one of the FORMS. Nothing is read or listened to before `async with`.

    `rng` chooses which timings of a busy StatsD timer are kept. Raises InputError for any other name, for a
    Prometheus without queries and a token that is not set, and MissingExtra.
    """
    options, clock, rng = options or SourceOptions(), clock or SystemClock(), rng or random.Random(0)
    if not spec or len(spec) > MAX_SPEC_CHARS or not spec.isprintable():
        raise InputError(f"{shown_url(spec)!a:.200} is no source of readings: use {FORMS}")
    kind, colon, rest = spec.partition(":")
    if kind in ("http", "https") and rest.startswith("//"):
        url = shown_url(spec)[:200]
        raise InputError(
            f"{url}: say what is there: prometheus:{url} for a Prometheus server, "
            f"scrape:{url} for an endpoint such as /metrics"
        )
    if colon and (opener := _OPENERS.get(kind)):
        try:
            return opener(rest, options, clock, rng)
        except ImportError as error:
            raise MissingExtra((error.name or kind).partition(".")[0], "anomaly") from error
    if spec == STDIN or Path(spec).suffix.lower() in (".csv", ".tsv", ".gz") or Path(spec).is_file():
        return CsvSource(spec, options=options)
    raise InputError(f"{shown_url(spec)[:200]!r} is no source of readings, and no file: use {FORMS}")


def _prometheus(rest: str, options: SourceOptions, clock: Clock, _rng: random.Random) -> Source:
    from chimera.anomaly.sources.prometheus import PrometheusSource

    return PrometheusSource(rest, options=options, clock=clock)


def _scrape(rest: str, options: SourceOptions, clock: Clock, _rng: random.Random) -> Source:
    from chimera.anomaly.sources.scrape import ScrapeSource

    return ScrapeSource(rest.split(","), options=options, clock=clock)


def _statsd(rest: str, options: SourceOptions, clock: Clock, rng: random.Random) -> Source:
    host, port = parse_address(rest, port=STATSD_PORT)
    return StatsdSource(host, port, options=options, clock=clock, rng=rng)


def _otlp(rest: str, options: SourceOptions, clock: Clock, _rng: random.Random) -> Source:
    from chimera.anomaly.sources.otlp import DEFAULT_PORT, OtlpSource

    host, port = parse_address(rest, port=DEFAULT_PORT)
    return OtlpSource(host, port, options=options, clock=clock)


def _http(rest: str, options: SourceOptions, clock: Clock, _rng: random.Random) -> Source:
    from chimera.anomaly.sources.http_push import DEFAULT_PORT, HttpSource

    host, port = parse_address(rest, port=DEFAULT_PORT)
    return HttpSource(host, port, options=options, clock=clock)


_OPENERS: dict[str, Opener] = {
    "http": _http,
    "otlp": _otlp,
    "prometheus": _prometheus,
    "scrape": _scrape,
    "statsd": _statsd,
}
