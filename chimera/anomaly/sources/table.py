"""A table of readings, line by line: what its header means, and what each row says. Bounded, and pure.

One line is one row: a quote that is never closed spoils its own line and no other.
"""

from __future__ import annotations

import codecs
import csv
import io
from collections import Counter
from dataclasses import dataclass

from chimera.anomaly.sources.intake import Sieve
from chimera.anomaly.sources.source import Readings
from chimera.anomaly.sources.timestamps import EXPECTED, is_date, seconds_of
from chimera.core.errors import SourceError

MAX_LINE_CHARS = 1_000_000
MAX_COLUMNS = 10_000

EPOCH_LEAST = 1e8
"""Below it (1973), a number in a column without a telling name is not taken for a timestamp."""

TIME_COLUMNS = ("timestamp", "time", "date", "ds", "ts", "datetime")
METRIC_COLUMNS = ("metric", "series", "unique_id")
VALUE_COLUMNS = ("value", "y")
MISSING = frozenset({"", "nan", "na", "n/a", "null", "none"})


class Lines:
    """Bytes in, whole lines out. A line that is too long is left out, and None stands in its place.

    The text is UTF-8, or UTF-16 that begins with its byte order mark. A line ends with LF, CR LF or CR.
    """

    def __init__(self) -> None:
        self._head = b""
        self._decoder: io.IncrementalNewlineDecoder | None = None
        self._tail = ""
        self._skipping = False

    def feed(self, chunk: bytes) -> list[str | None]:
        return self._cut(self._text(chunk))

    def finish(self) -> list[str | None]:
        """What is left, and the last line, if it has no end."""
        lines = self._cut(self._text(b"", final=True))
        return lines + (self._cut("\n") if self._tail or self._skipping else [])

    def _text(self, chunk: bytes, *, final: bool = False) -> str:
        if self._decoder is None:
            self._head += chunk
            if len(self._head) < len(codecs.BOM_UTF16) and not final:
                return ""
            wide = self._head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
            decoder = codecs.getincrementaldecoder("utf-16" if wide else "utf-8-sig")("replace")
            self._decoder = io.IncrementalNewlineDecoder(decoder, translate=True)
            chunk, self._head = self._head, b""
        return self._decoder.decode(chunk, final)

    def _cut(self, text: str) -> list[str | None]:
        *whole, self._tail = (self._tail + text).split("\n")
        lines: list[str | None] = []
        for line in whole:
            lines.append(None if self._skipping or len(line) > MAX_LINE_CHARS else line)
            self._skipping = False
        if len(self._tail) > MAX_LINE_CHARS:
            self._tail, self._skipping = "", True
        return lines


@dataclass(frozen=True, slots=True)
class Layout:
    """Which column is what. Long form where `metric` is a column: then there is one value column."""

    time: int
    values: tuple[tuple[int, str], ...]
    metric: int | None = None


class Table:
    """Rows to readings. `stem` names the metric whose column is only called `value`.

    Refused, and counted by the line or the cell: `line` (too long, or no row), `timestamp`, `value`, `name`; and, once
    each, `column`: beside metric and value there is no use for it.
    """

    def __init__(self, stem: str, sieve: Sieve) -> None:
        self.count = 0
        self._present = False
        self._first = ""
        self._unused = ""
        self._stem = stem
        self._sieve = sieve
        self._lines = Lines()
        self._number = 0
        self._delimiter = ","
        self._header: list[str] = []
        self._layout: Layout | None = None

    @property
    def complaint(self) -> str | None:
        """What was wrong with the first line that was refused, or with all; and which columns have no use."""
        return "; ".join(filter(None, (self._unused, self._first))) or None

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
        if not self._present:
            self.complain("up to here, every value is missing")
        return last

    def _line(self, line: str | None) -> Readings:
        self._number += 1
        if line is None:
            return self._refuse("line", f"it is longer than {MAX_LINE_CHARS:,} characters")
        if not self._header:
            self._read_header(line)
            return []
        if not line.strip():
            return []
        try:
            row = next(csv.reader([line], delimiter=self._delimiter, strict=True))
        except (csv.Error, StopIteration) as error:
            return self._refuse("line", f"it is no row: {error}")
        return self._row(row)

    def _read_header(self, line: str) -> None:
        text = line.strip()
        if not text:
            return
        if "\0" in text:
            raise SourceError(f"line {self._number}: it holds NUL characters: save it as UTF-8 (iconv -t UTF-8 does)")
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
        if twice := [name for name, count in Counter(header).items() if name and count > 1]:
            raise SourceError(f"line {self._number}: two columns are called {twice[0][:40]!r}: give each its own name")
        self._header = header
        named = [name.lower() for name in header]
        if (time := _first(named, TIME_COLUMNS)) is not None:
            self._layout = self._laid_out(time)

    def _laid_out(self, time: int) -> Layout:
        named = [name.lower() for name in self._header]
        metric, value = _first(named, METRIC_COLUMNS), _first(named, VALUE_COLUMNS)
        if metric is not None and value is not None:
            if unused := [self._header[at] for at in range(len(named)) if at not in (time, metric, value)]:
                self._sieve.refuse("column", len(unused))
                self._unused = f"columns that are not read, beside metric and value: {', '.join(unused)[:200]}"
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
                self._present = self._present or value == value
            elif unwanted == self._sieve.unwanted:
                self.complain(f"{name[:40]!r} is no name for a metric")
        self.count += len(readings)
        return readings

    def _refuse(self, reason: str, why: str) -> Readings:
        self._sieve.refuse(reason)
        self.complain(why)
        return []

    def complain(self, why: str) -> None:
        """Keep the first: it says what the user has to change."""
        self._first = self._first or f"line {self._number:,}: {why}"


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
