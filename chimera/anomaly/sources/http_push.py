"""Readings that anyone may post: one JSON object, an array of them, or JSON lines."""

from __future__ import annotations

import asyncio
import io
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from chimera.anomaly.sources.intake import Raw, Sieve
from chimera.anomaly.sources.serving import (
    MAX_ELEMENTS,
    MAX_FAULTS,
    Answer,
    Post,
    Refusal,
    ServerSource,
    check_json,
    too_many,
)
from chimera.anomaly.sources.source import Readings
from chimera.anomaly.sources.timestamps import EXPECTED, seconds_of

DEFAULT_PORT = 8787

JSON_LINES = ("application/x-ndjson", "application/jsonl", "application/json-lines")

WRONG = {
    "name": "metric must be 1 to 512 printable characters",
    "timestamp": f"timestamp must be seconds since the epoch, or text: {EXPECTED}",
    "value": "value must be a number, or null for one that is missing",
    "field": 'expected {"metric": "name", "timestamp": seconds (or nothing: now), "value": number}',
    "json": "this is no JSON",
}


class HttpSource(ServerSource):
    """POST /readings with `{"metric": ..., "timestamp": ..., "value": ...}`; GET /health.

    A request is taken in whole, or not at all: then its answer names what is wrong with which line (of JSON lines) or
    element (of an array), from 1. 202 says how many were accepted; 429 that there is no room now, and when to come
    again. The browser's `Origin` header is refused, so that no web page can send.
    """

    scheme = "http"
    default_port = DEFAULT_PORT
    path = "/readings"
    kinds = ("application/json", *JSON_LINES)

    async def take(self, post: Post) -> Answer:
        """Raises Refusal."""
        sieve = self._sieve.apart()
        readings, faults, reasons = await asyncio.to_thread(_judged, post, self._clock.now(), sieve)
        if faults:
            self._refuse(faults, reasons, "line" if post.kind in JSON_LINES else "item")
        self.accept(readings)
        self._sieve.add(sieve)
        return Answer(202, json.dumps({"accepted": len(readings)}).encode())

    def _refuse(self, faults: list[tuple[int, str]], reasons: Counter[str], unit: str) -> None:
        at, first = faults[0]
        for reason, count in reasons.items():
            self._sieve.refuse(reason, count - (reason == first))  # one is counted with the Refusal
        more = f", and {reasons.total() - 1:,} more" if reasons.total() > 1 else ""
        named: list[dict[str, object]] = [{unit: each, "reason": why, "message": WRONG[why]} for each, why in faults]
        raise Refusal(400, first, f"nothing was taken in: {unit} {at}: {WRONG[first]}{more}", faults=named)


def _judged(post: Post, now: float, sieve: Sieve) -> tuple[Readings, list[tuple[int, str]], Counter[str]]:
    """The readings, the first faults, and how many there are of each. Raises Refusal."""
    readings: Readings = []
    faults: list[tuple[int, str]] = []
    reasons: Counter[str] = Counter()
    for at, item in _items(post):
        raw = item if isinstance(item, str) else _raw(item, now)
        fault = raw if isinstance(raw, str) else sieve.fault(*raw)
        if fault and fault != "unwanted":
            reasons[fault] += 1
            if len(faults) < MAX_FAULTS:
                faults.append((at, fault))
        elif not isinstance(raw, str) and (reading := sieve.take(*raw)) is not None:
            readings.append(reading)
    return readings, faults, reasons


def _items(post: Post) -> Iterator[tuple[int, Any]]:
    """What was sent, numbered from 1; a reason, as text, for a line that is no JSON."""
    check_json(post.body)
    if post.kind in JSON_LINES:
        lines = enumerate(io.BytesIO(post.body), start=1)
        return _few((at, _line(line)) for at, line in lines if line.strip())
    try:
        whole = json.loads(post.body)
    except (ValueError, RecursionError) as error:
        hint = "; for several lines of JSON send Content-Type application/x-ndjson" if b"\n" in post.body else ""
        raise Refusal(400, "json", f"the body is no JSON: {error}"[:300] + hint) from None
    items = whole if isinstance(whole, list) else [whole]
    return _few((at, "field" if isinstance(item, str) else item) for at, item in enumerate(items, start=1))


def _few(items: Iterable[tuple[int, Any]]) -> Iterator[tuple[int, Any]]:
    for count, item in enumerate(items):
        if count >= MAX_ELEMENTS:
            raise too_many()
        yield item


def _line(line: bytes) -> Any:
    try:
        item = json.loads(line)
    except (ValueError, RecursionError):
        return "json"
    return "field" if isinstance(item, str) else item


def _raw(item: Any, now: float) -> Raw | str:
    if not isinstance(item, dict) or not {"metric", "value"} <= item.keys() <= {"metric", "timestamp", "value"}:
        return "field"
    value, stamp = item["value"], item.get("timestamp")
    if isinstance(stamp, str):
        stamp = seconds_of(stamp)
        if stamp is None:
            return "timestamp"
    return item["metric"], now if stamp is None else stamp, float("nan") if value is None else value
