"""Readings of a CSV file, or of standard input, as they are written."""

from __future__ import annotations

import asyncio
import gzip
import os
import threading
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from io import BufferedReader
from pathlib import Path
from typing import Self

from chimera.anomaly.sources.intake import Sieve, in_batches
from chimera.anomaly.sources.source import Readings, Source, SourceOptions
from chimera.anomaly.sources.table import Table
from chimera.core.errors import SourceError

STDIN = "-"

CHUNK_BYTES = 1 << 16

CHUNKS_AHEAD = 2
"""How far the thread that reads may be ahead of whoever takes the readings."""

Handed = Readings | Exception | None
"""Readings; why there will be none; or None, the end."""


class CsvSource(Source):
    """`FILE.csv`, `FILE.csv.gz`, or `-` for standard input: a header, and then a row for a moment.

    A column called timestamp, time, date, ds, ts or datetime holds the time (or else the first one that does). Every
    other column is a metric called by its header, or by the file where it is only called `value`. With the columns
    metric and value, a row is one reading. Commas, semicolons and tabs may separate. It is UTF-8, or UTF-16 with its
    byte order mark. `complaint` tells of the first line that was refused. Memory does not grow with the file. Raises
    SourceError when there is no such file, when two columns have one name, or when nothing in it can be read.
    """

    def __init__(self, path: str | Path, *, options: SourceOptions | None = None) -> None:
        self.name = str(path)
        self._sieve = Sieve((options or SourceOptions()).metrics)
        self.refused: dict[str, int] = self._sieve.refused
        self._table = Table("value" if self.name == STDIN else Path(self.name.removesuffix(".gz")).stem, self._sieve)
        self._file: BufferedReader | None = None
        self._handed: asyncio.Queue[Handed] = asyncio.Queue()
        self._room = threading.Semaphore(CHUNKS_AHEAD)
        self._closed = False

    async def __aenter__(self) -> Self:
        try:
            self._file = await _opened(os.dup(0) if self.name == STDIN else self.name)
        except (OSError, ValueError) as error:
            raise SourceError(f"{self.name}: {getattr(error, 'strerror', None) or error}") from error
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._closed = True
        self._room.release()
        self.finish()
        if self._file is not None:
            self._file.close()
            self._file = None

    def finish(self) -> None:
        self._handed.put_nowait(None)

    @property
    def complaint(self) -> str | None:
        return self._table.complaint

    async def batches(self) -> AsyncIterator[Readings]:
        """A batch for what one read gave, so that a pipe's readings come at once."""
        loop = asyncio.get_running_loop()
        if self._file is None:
            return

        def hand_over(what: Handed) -> None:
            with suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(self._handed.put_nowait, what)

        # A daemon, and not the loop's executor: a read of a silent pipe must not keep the program from ending.
        file, self._file = self._file, None
        threading.Thread(target=self._read, args=(file, hand_over), name=f"read {self.name[:40]}", daemon=True).start()
        while (what := await self._handed.get()) is not None:
            if isinstance(what, Exception):
                raise what
            for batch in in_batches(what):
                if self._closed:
                    return
                yield batch
            self._room.release()

    def _read(self, file: BufferedReader, hand_over: Callable[[Handed], None]) -> None:
        """In a thread of its own: reads, and waits for its readings to be taken."""
        table = self._table
        end: Handed = None
        try:
            with file:
                for chunk in _chunks(file):
                    if readings := table.feed(chunk):
                        self._room.acquire()
                        hand_over(readings)
                    if self._closed:
                        return
            hand_over(table.finish())
        except SourceError as error:
            end = SourceError(f"{self.name}: {error}")
        except (OSError, EOFError, ValueError, zlib.error) as error:
            self._sieve.refuse("file")
            table.complain(f"what follows it cannot be read: {error}")
            end = None if table.count else SourceError(f"{self.name}: it cannot be read: {error}")
        hand_over(end)


async def _opened(file: str | int) -> BufferedReader:
    """The file, opened. A pipe opens when somebody writes to it, and who waits for that can be cancelled."""
    opened: Future[BufferedReader] = Future()

    def work() -> None:
        try:
            found = open(file, "rb")  # noqa: SIM115 # closed by who has waited for it
        except (OSError, ValueError) as error:
            with suppress(InvalidStateError):
                opened.set_exception(error)
            return
        try:
            opened.set_result(found)
        except InvalidStateError:  # nobody waits any more
            found.close()

    # A daemon, and not the loop's executor: see `batches`.
    threading.Thread(target=work, name=f"open {str(file)[:40]}", daemon=True).start()
    return await asyncio.wrap_future(opened)


def _chunks(file: BufferedReader) -> Iterator[bytes]:
    """What is there, up to CHUNK_BYTES; inflated piece by piece if it is gzip."""
    stream = gzip.GzipFile(fileobj=file) if file.peek(2).startswith(b"\x1f\x8b") else file
    while chunk := stream.read1(CHUNK_BYTES):
        yield chunk
