"""Standard input by the line, for a server that has to end while its client is silent.

The SDK reads it in a thread, which nothing can wake: a server that was told to end would wait for the next line.
"""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

MAX_LINE_BYTES: Final = 16 * 1024 * 1024
"""Of one message. A client that sends a longer one is not heard any further."""


class Lines:
    """The lines of a stream, as text."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader = reader

    def __aiter__(self) -> Lines:
        return self

    async def __anext__(self) -> str:
        try:
            line = await self._reader.readline()
        except ValueError:  # over the limit
            raise StopAsyncIteration from None
        if not line:
            raise StopAsyncIteration
        return line.decode("utf-8", "replace")


@asynccontextmanager
async def standard_input() -> AsyncIterator[Any]:
    """The lines of a pipe or socket on standard input, which reads nothing for anybody else meanwhile.

    None for what is neither, such as a file: there the SDK's own reading will do, as it never waits.
    """
    mode = os.fstat(0).st_mode
    if not (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)):
        yield None
        return
    private = os.dup(0)
    os.set_inheritable(private, False)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    reader = asyncio.StreamReader(limit=MAX_LINE_BYTES)
    loop = asyncio.get_running_loop()
    pipe = os.fdopen(private, "rb", buffering=0, closefd=False)
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), pipe)
    try:
        yield Lines(reader)
    finally:
        transport.close()
        os.set_blocking(private, True)
        os.dup2(private, 0)
        os.close(private)
