"""A way to a server that breaks when it is told to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Wire:
    """A way to the server that loses an answer when it is told to: the connection breaks instead."""

    def __init__(self, port: int, commit: bytes) -> None:
        self._port = port
        self._commit = commit
        self.lose_answers = 0
        self.lose_requests = 0
        self._carrying: list[asyncio.Future[None]] = []
        self._open: list[asyncio.StreamWriter] = []

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._carrying.append(done)
        self._open.append(writer)
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._port)
        lost = asyncio.Event()

        async def up() -> None:
            while part := await reader.read(2**20):
                if self._commit in part and self.lose_requests:
                    self.lose_requests -= 1
                    break
                if self._commit in part and self.lose_answers:
                    self.lose_answers -= 1
                    lost.set()
                up_writer.write(part)
                await up_writer.drain()

        async def down() -> None:
            while part := await up_reader.read(2**20):
                if lost.is_set():  # it has done what it was asked
                    break
                writer.write(part)
                await writer.drain()

        ways = [asyncio.ensure_future(up()), asyncio.ensure_future(down())]
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        for way in ways:
            way.cancel()
        for end in (writer, up_writer):
            end.close()
        done.set_result(None)

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[int]:
        listener = await asyncio.start_server(self.carry, "127.0.0.1", 0, limit=2**20)
        try:
            yield listener.sockets[0].getsockname()[1]
        finally:
            listener.close()
            for writer in self._open:
                writer.close()
            await asyncio.gather(*self._carrying)
