"""Readings of programs that speak StatsD, over UDP."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from typing import Self

from chimera.anomaly.sources.addresses import LOOPBACK, shown_address
from chimera.anomaly.sources.intake import Sieve, in_batches
from chimera.anomaly.sources.pacing import Pace
from chimera.anomaly.sources.source import Readings, Source, SourceOptions
from chimera.anomaly.sources.statsd_table import StatsdTable
from chimera.core.clock import Clock, SystemClock
from chimera.core.errors import SourceError

DEFAULT_PORT = 8125


class StatsdSource(Source):
    """Listens for StatsD and DogStatsD, and every `interval_s` makes readings of what came.

    A counter becomes `name.count`, what it grew by in the interval; a gauge `name`, repeated until it changes; a timer
    `name.count`, `.mean`, `.max`, `.p50`, `.p95`, `.p99`; a set `name.unique`. Tags become labels. An interval without
    news of a counter, a timer or a set gives a count of 0. Nobody is asked who they are: listen on loopback (the
    default), or where only friends can send. Raises SourceError when the address is taken.
    """

    def __init__(
        self,
        host: str = LOOPBACK,
        port: int = DEFAULT_PORT,
        *,
        options: SourceOptions | None = None,
        clock: Clock | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self._options = options or SourceOptions()
        self._clock = clock or SystemClock()
        self._host, self._port = host, port
        self._sieve = Sieve(self._options.metrics)
        self.refused: dict[str, int] = self._sieve.refused
        self._table = StatsdTable(rng=rng or random.Random(0), refused=self._sieve.refused)
        self._pace = Pace(self._options.interval_s)
        self._transport: asyncio.DatagramTransport | None = None
        self.name = f"statsd:{shown_address(host, port)}"

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        try:
            self._transport, self._receiver = await loop.create_datagram_endpoint(
                lambda: _Receiver(self._table), local_addr=(self._host, self._port)
            )
        except (OSError, UnicodeError) as error:
            raise SourceError(f"{self.name}: it cannot listen there: {error}") from error
        where = shown_address(*self._transport.get_extra_info("sockname")[:2])
        self.name, self.address = f"statsd:{where}", f"udp://{where}"
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.finish()
        if self._transport is not None:
            await self._receiver.closed.wait()

    def finish(self) -> None:
        """An interval that is not over is left out: its counts would look as if they had dropped."""
        self._pace.close()
        if self._transport is not None:
            self._transport.close()

    async def batches(self) -> AsyncIterator[Readings]:
        """A flush, every `interval_s` from now on."""
        await self._pace.tick()
        while await self._pace.tick():
            now = self._clock.now()
            for batch in in_batches(self._sieve.sift((name, now, value) for name, value in self._table.flush())):
                yield batch


class _Receiver(asyncio.DatagramProtocol):
    def __init__(self, table: StatsdTable) -> None:
        self._table = table
        self.closed = asyncio.Event()

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed.set()

    def datagram_received(self, data: bytes, addr: object) -> None:
        self._table.receive(data)
