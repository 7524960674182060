"""A table of readings, line by line: what its header means, and what each row says. Bounded, and pure.

One line is one row: a quote that is never closed spoils its own line and no other.
"""

from __future__ import annotations

import codecs
import csv
from dataclasses import dataclass

from chimera.anomaly.sources.intake import Sieve
from chimera.anomaly.sources.source import Readings
from chimera.anomaly.sources.timestamps import EXPECTED, is_date, seconds_of
from chimera.core.errors import SourceError

MAX_LINE_BYTES = 1_000_000
MAX_COLUMNS = 10_000

EPOCH_LEAST = 1e8
"""Below it (1973), a number in a column without a telling name is not taken for a timestamp."""

TIME_COLUMNS = ("timestamp", "time", "date", "ds", "ts", "datetime")
METRIC_COLUMNS = ("metric", "series", "unique_id")
VALUE_COLUMNS = ("value", "y")
MISSING = frozenset({"", "nan", "na", "n/a", "null", "none"})


class Lines:
    """Bytes in, whole lines out. A line that is too long is left out, and None stands in its place."""

    def __init__(self) -> None:
        self._tail = b""
        self._skipping = False

    def feed(self, chunk: bytes) -> list[bytes | None]:
        *whole, self._tail = (self._tail + chunk).split(b"\n")
        lines: list[bytes | None] = []
        for line in whole:
            lines.append(None if self._skipping or len(line) > MAX_LINE_BYTES else line)
            self._skipping = False
        if len(self._tail) > MAX_LINE_BYTES:
            self._tail, self._skipping = b"", True
        return lines

    def finish(self) -> list[bytes | None]:
        """The last line, if it has no end."""
        return self.feed(b"\n") if self._tail or self._skipping else []


@dataclass(frozen=True, slots=True)
class Layout:
    """Which column is what. Long form where `metric` is a column: then there is one value column."""

    time: int
    values: tuple[tuple[int, str], ...]
    metric: int | None = None


class Table:
    """Rows to readings. `stem` names the metric whose column is only called `value`.

    Refused, and counted by the line or the cell: `line` (too long, or no row), `timestamp`, `value`, `name`.
    """

    def __init__(self, stem: str, sieve: Sieve) -> None:
        self.count = 0
        self.complaint = ""
        self._stem = stem
        self._sieve = sieve
        self._lines = Lines()
        self._number = 0
        self._delimiter = ","
        self._header: list[str] = []
        self._layout: Layout | None = None

    def feed(self, chunk: bytes) -> Readings:
        """Raises SourceError when the header cannot be used."""
        return [reading for line in self._lines.feed(chunk) for reading in self._line(line)]

    def finish(self) -> Readings:
        """What is left. Raises SourceError when nothing at all could be read."""
        last = [reading for line in self._lines.finish() for reading in self._line(line)]
        if not self._header:
            raise SourceError("it is empty: expected a header such as timestamp,value, and rows below it")
        if not self.count and self._sieve.unwanted:
            raise SourceError(f"no metric of it is asked for; its columns are {', '.join(self._header)[:200]}")
        if not self.count:
            raise SourceError(self.complaint or "there are no rows below its header")
        return last

    def _line(self, line: bytes | None) -> Readings:
        self._number += 1
        if line is None:
            return self._refuse("line", f"it is longer than {MAX_LINE_BYTES:,} bytes")
        if not self._header:
            self._read_header(line)
            return []
        text = line.decode("utf-8", "replace").rstrip("\r")
        if not text.strip():
            return []
        try:
            row = next(csv.reader([text], delimiter=self._delimiter, strict=True))
        except (csv.Error, StopIteration) as error:
            return self._refuse("line", f"it is no row: {error}")
        return self._row(row)

    def _read_header(self, line: bytes) -> None:
        text = line.removeprefix(codecs.BOM_UTF8).decode("utf-8", "replace").strip()
        if not text:
            return
        self._delimiter = max(",;\t", key=text.count)
        try:
            header = [cell.strip() for cell in next(csv.reader([text], delimiter=self._delimiter, strict=True))]
        except csv.Error as error:
            raise SourceError(f"line {self._number}: its header is no row: {error}") from error
        if not 2 <= len(header) <= MAX_COLUMNS:
            raise SourceError(
                f"line {self._number}: it has {len(header):,} columns, and needs 2 to {MAX_COLUMNS:,}: a timestamp and "
                f"a value at least, as in timestamp,value; it begins {text[:40]!r}"
            )
        if all(seconds_of(cell) is not None for cell in header):
            raise SourceError(f"line {self._number}: expected a header such as timestamp,value, and not {text[:40]!r}")
        self._header = header
        named = [name.lower() for name in header]
        if (time := _first(named, TIME_COLUMNS)) is not None:
            self._layout = self._laid_out(time)

    def _laid_out(self, time: int) -> Layout:
        named = [name.lower() for name in self._header]
        metric, value = _first(named, METRIC_COLUMNS), _first(named, VALUE_COLUMNS)
        if metric is not None and value is not None:
            return Layout(time, ((value, ""),), metric)
        others = [at for at in range(len(named)) if at != time]
        if len(others) == 1 and named[others[0]] in VALUE_COLUMNS:
            return Layout(time, ((others[0], self._stem),))
        return Layout(time, tuple((at, self._header[at]) for at in others))

    def _row(self, row: list[str]) -> Readings:
        if self._layout is None and (at := _time_column(row)) is not None and at < len(self._header):
            self._layout = self._laid_out(at)
        layout = self._layout
        if layout is None:
            return self._refuse("timestamp", f"no column holds a timestamp: expected {EXPECTED}")
        if len(row) != len(self._header):
            return self._refuse("line", f"it has {len(row)} columns, and the header {len(self._header)}")
        timestamp = seconds_of(row[layout.time])
        if timestamp is None:
            return self._refuse("timestamp", f"{row[layout.time][:40]!r} is no timestamp: expected {EXPECTED}")
        readings: Readings = []
        for at, metric in layout.values:
            value = _value(row[at])
            if value is None:
                self._refuse("value", f"{row[at][:40]!r} in column {self._header[at][:40]!r} is no number")
                continue
            name = metric if layout.metric is None else row[layout.metric]
            unwanted = self._sieve.unwanted
            if (reading := self._sieve.take(name, timestamp, value)) is not None:
                readings.append(reading)
            elif unwanted == self._sieve.unwanted:
                self._complain(f"{name[:40]!r} is no name for a metric")
        self.count += len(readings)
        return readings

    def _refuse(self, reason: str, why: str) -> Readings:
        self._sieve.refuse(reason)
        self._complain(why)
        return []

    def _complain(self, why: str) -> None:
        """Keep the first: it says what the user has to change."""
        self.complaint = self.complaint or f"line {self._number}: {why}"


def _first(named: list[str], wanted: tuple[str, ...]) -> int | None:
    return next((named.index(name) for name in wanted if name in named), None)


def _time_column(row: list[str]) -> int | None:
    for at, cell in enumerate(row):
        if is_date(cell):
            return at
    return next((at for at, cell in enumerate(row) if (seconds_of(cell) or 0.0) >= EPOCH_LEAST), None)


def _value(cell: str) -> float | None:
    cell = cell.strip()
    if cell.lower() in MISSING:
        return float("nan")
    try:
        return None if "_" in cell else float(cell)
    except ValueError:
        return None
