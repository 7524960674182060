"""Connections that cannot be held for nothing: uvicorn's own HTTP, with an end to what it waits for without one.

uvicorn waits for ever for the head of a first request, and for the rest of one that has begun; and a connection that is
closed while its client does not read stays. `uvicorn.Config(http=Connections)`.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Any, ClassVar

from uvicorn.protocols.http.h11_impl import H11Protocol


class Connections(H11Protocol):
    """One connection. `head_s`: how long a request's head may take; `unread_s`: how long nothing may be read."""

    head_s: ClassVar[float] = 10.0
    unread_s: ClassVar[float] = 15.0

    _waiting: asyncio.TimerHandle | None = None
    _stalled: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        made = transport.get_extra_info("socket")
        if made is not None and made.family in (socket.AF_INET, socket.AF_INET6):
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(self.unread_s * 1_000))
        self._look()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._look()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stalled = self.loop.call_later(self.unread_s, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        _cancel(self._stalled)

    def connection_lost(self, exc: Exception | None) -> None:
        _cancel(self._waiting)
        _cancel(self._stalled)
        super().connection_lost(exc)

    def _look(self) -> None:
        """After the last byte that came: is a request's head on its way?"""
        elsewhere: Any = self.transport.get_protocol() is not self  # it is a WebSocket now
        if elsewhere or (self.cycle is not None and not self.cycle.response_complete):
            _cancel(self._waiting)
            self._waiting = None
        elif self._waiting is None:
            self._waiting = self.loop.call_later(self.head_s, self._give_up)

    def _give_up(self) -> None:
        self._waiting = None
        if self.cycle is None or self.cycle.response_complete:
            self.transport.abort()


def _cancel(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()
