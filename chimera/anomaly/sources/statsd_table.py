"""StatsD lines to aggregates, and aggregates to readings. Bounded, and pure but for the generator of its samples."""

from __future__ import annotations

import hashlib
import math
import random
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from chimera.anomaly.sources.naming import canonical
from chimera.core.watching import MAX_METRIC_CHARS

MAX_NAMES = 10_000
MAX_TIMINGS = 512
"""Of one timer in one interval, from which its quantiles are taken: a fair sample, where there are more."""
MAX_KEPT = 500_000
"""Timings and members of sets of all names together, in one interval."""
MAX_IDLE_FLUSHES = 360
"""A name that nobody has sent for so many intervals is forgotten, so that its place is free again."""
MAX_LINE_CHARS = 4_096
MAX_TAGS = 64
MAX_SUFFIX_CHARS = 7
"""What `.unique`, the longest of the endings, needs of a name's 512 characters."""

QUANTILES = ((0.5, "p50"), (0.95, "p95"), (0.99, "p99"))

_KINDS = {"c": "counter", "g": "gauge", "ms": "timer", "h": "timer", "d": "timer", "s": "set"}

_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")


@dataclass(slots=True)
class Series:
    """What is known of one name since the last flush; a gauge's value stays."""

    kind: str
    name: str
    labels: dict[str, str]
    count: float = 0.0
    total: float = 0.0
    most: float = -math.inf
    seen: int = 0
    kept: list[float] = field(default_factory=list)
    members: set[bytes] = field(default_factory=set)
    """Eight bytes for each, however long its text."""
    idle: int = 0


class StatsdTable:
    """Counters `c`, gauges `g` (also +3, -3), timers `ms` `h` `d`, sets `s`; sample rates; DogStatsD's tags and packed
    values.

    Refused, and counted: `line` (no StatsD), `name`, `value`, `names` (there are too many), `members` (of sets).
    """

    def __init__(self, *, rng: random.Random, refused: Counter[str]) -> None:
        self._rng = rng
        self._refused = refused
        self._series: dict[tuple[str, str], Series] = {}
        self._kept = 0

    def receive(self, packet: bytes) -> None:
        """Take in the lines of one packet. Never raises."""
        for line in packet.decode("utf-8", "replace").split("\n"):
            if line := line.strip():
                self._line(line)

    def flush(self) -> Iterator[tuple[str, float]]:
        """Names and values of the interval that ends now; the next begins."""
        self._kept = 0
        for key, series in list(self._series.items()):
            yield from _values(series)
            series.idle = 0 if series.seen else series.idle + 1
            if series.idle > MAX_IDLE_FLUSHES:
                del self._series[key]
            series.count, series.most, series.seen = 0.0, -math.inf, 0
            series.total = series.total if series.kind == "gauge" else 0.0
            series.kept, series.members = [], set()

    def _line(self, line: str) -> None:
        if len(line) > MAX_LINE_CHARS:
            self._refused["line"] += 1
            return
        head, *sections = line.split("|")
        name, colon, packed = head.partition(":")
        kind = _KINDS.get(sections[0]) if sections else None
        if not colon or kind is None:
            self._refused["line"] += 1
            return
        rate, labels = 1.0, {}
        for section in sections[1:]:
            if section.startswith("@"):
                rate = _number(section[1:])
            elif section.startswith("#"):
                labels = _labels(section[1:])
        if not 0.0 < rate <= 1.0:
            self._refused["value"] += 1
            return
        texts = [packed] if kind == "set" else packed.split(":")
        read = [(text, 0.0 if kind == "set" else _number(text)) for text in texts]
        values = [(text, value) for text, value in read if not math.isnan(value)]
        if len(values) < len(texts):
            self._refused["value"] += len(texts) - len(values)
        if not values or (series := self._find(kind, name, labels)) is None:
            return
        series.seen += len(values)
        if kind == "set":
            self._add_member(series, packed)
        for text, value in values:
            if kind == "gauge":
                series.total = series.total + value if text[0] in "+-" else value
            elif kind != "set":
                self._add(series, value, rate)

    def _find(self, kind: str, name: str, labels: dict[str, str]) -> Series | None:
        full = canonical(name, labels)
        if not name or len(full) > MAX_METRIC_CHARS - MAX_SUFFIX_CHARS or not full.isprintable():
            self._refused["name"] += 1
            return None
        series = self._series.get((kind, full))
        if series is None and len(self._series) >= MAX_NAMES:
            self._refused["names"] += 1
            return None
        return series or self._series.setdefault((kind, full), Series(kind, name, labels))

    def _add(self, series: Series, value: float, rate: float) -> None:
        series.count += 1.0 / rate
        series.total += value / rate
        series.most = max(series.most, value)
        if series.kind == "timer":
            self._sample(series, value)

    def _sample(self, series: Series, value: float) -> None:
        """Algorithm R (Vitter 1985): every timing has the same chance to be kept."""
        if len(series.kept) < MAX_TIMINGS and self._kept < MAX_KEPT:
            series.kept.append(value)
            self._kept += 1
        elif (at := self._rng.randrange(series.seen)) < len(series.kept):
            series.kept[at] = value

    def _add_member(self, series: Series, text: str) -> None:
        member = hashlib.blake2b(text.encode(), digest_size=8).digest()
        if member in series.members:
            return
        if self._kept >= MAX_KEPT:
            self._refused["members"] += 1
            return
        series.members.add(member)
        self._kept += 1


def _values(series: Series) -> Iterator[tuple[str, float]]:
    def called(suffix: str) -> str:
        return canonical(series.name + suffix, series.labels)

    if series.kind == "gauge":
        yield called(""), series.total
    elif series.kind == "counter":
        yield called(".count"), series.total
    elif series.kind == "set":
        yield called(".unique"), float(len(series.members))
    else:
        yield called(".count"), series.count
        if series.count:
            yield called(".mean"), series.total / series.count
            yield called(".max"), series.most
        if series.kept:
            ordered = sorted(series.kept)
            for share, suffix in QUANTILES:
                yield called(f".{suffix}"), ordered[math.ceil(share * len(ordered)) - 1]


def _labels(text: str) -> dict[str, str]:
    labels: dict[str, str] = {}
    for tag in text.split(",")[:MAX_TAGS]:
        key, _, value = tag.strip().partition(":")
        if key:
            labels[key] = value
    return labels


def _number(text: str) -> float:
    """NaN for what is no finite number."""
    value = float(text) if _NUMBER.fullmatch(text) else math.nan
    return value if math.isfinite(value) else math.nan
