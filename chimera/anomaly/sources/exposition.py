"""The text that a /metrics endpoint serves, to values by name: Prometheus' format, and OpenMetrics."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_prometheus
from prometheus_client.samples import Sample

from chimera.anomaly.sources.naming import canonical

OPENMETRICS = "application/openmetrics-text"

MAX_LINE_CHARS = 4_096
"""A name of 512 characters has room in it. The parser's time grows with the square of a line's length."""

MAX_SERIES = 50_000


class Exposed(NamedTuple):
    """`timestamp` is None where the endpoint gives none, as most do."""

    metric: str
    timestamp: float | None
    value: float


class Page(NamedTuple):
    """`refused` counts lines that could not be read, and series above the limit, by reason."""

    values: list[Exposed]
    refused: dict[str, int]


def read_page(body: bytes, *, kind: str = "text/plain", labels: dict[str, str] | None = None) -> Page:
    """Every sample of the text, named as it is there. `labels` are added where a sample has none of that name.

    A line that is no sample is counted, and the next is read; OpenMetrics is read up to its first defect, because
    it is defined as a whole. Never raises for what is in `body`.
    """
    page = Page([], {})
    text = body.decode("utf-8", "replace")
    for sample in _openmetrics(text, page) if kind == OPENMETRICS else _prometheus(text, page):
        if len(page.values) >= MAX_SERIES:
            _count(page, "series")
            continue
        try:
            stamp = None if sample.timestamp is None else float(sample.timestamp)
            name = canonical(sample.name, {**(labels or {}), **sample.labels})
            page.values.append(Exposed(name, stamp, float(sample.value)))
        except (OverflowError, TypeError, ValueError):
            _count(page, "value")
    return page


def _prometheus(text: str, page: Page) -> Iterator[Sample]:
    """Line by line and without the comments: they would rename counters, and one bad line would end it all."""
    for line in text.split("\n"):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        if len(line) > MAX_LINE_CHARS:
            _count(page, "line")
            continue
        try:
            yield from _samples(read_prometheus(line))
        except (ValueError, IndexError, KeyError, TypeError):
            _count(page, "line")


def _openmetrics(text: str, page: Page) -> Iterator[Sample]:
    if any(len(line) > MAX_LINE_CHARS for line in text.split("\n")):
        _count(page, "line")
        return
    try:
        yield from _samples(read_openmetrics(text))  # type: ignore[no-untyped-call]
    except (ValueError, IndexError, KeyError, TypeError, AttributeError):
        _count(page, "line")


def _samples(families: Iterable[object]) -> Iterator[Sample]:
    for family in families:
        yield from family.samples  # type: ignore[attr-defined]


def _count(page: Page, reason: str) -> None:
    page.refused[reason] = page.refused.get(reason, 0) + 1
