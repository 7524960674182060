"""Flower's `Grid` over the swarm's own calls: no server in between, and Flower's strategies run on it unmodified."""

from __future__ import annotations

import asyncio
import concurrent.futures
import secrets
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

from chimera.core.errors import ChimeraError, InputError, ReplyError, SwarmError
from chimera.sandbox.federation.flower import Error, ErrorCode, Grid, Message, RecordDict, Run
from chimera.sandbox.federation.wire import MAX_MESSAGE_BYTES, decode, encode

Send = Callable[[bytes], Awaitable[bytes]]
"""Brings a message to a node, and its reply back; raises what went wrong. It is cancelled when its time is up."""

MAX_NODES = 256
MAX_WAIT_S = 86_400.0


class SwarmGrid(Grid):
    """Brings messages to nodes by calls, all at once, and their replies back.

    The strategy runs in a thread of its own, and the calls in `loop`. A node that died, or whose reply cannot be read,
    gives an error reply as a SuperLink's would; one that does not answer in time gives none. A reply is taken as the
    reply of the node that was asked, whatever it says of itself.
    """

    def __init__(
        self,
        *,
        nodes: Mapping[int, Send],
        loop: asyncio.AbstractEventLoop,
        max_message_bytes: int = MAX_MESSAGE_BYTES,
    ) -> None:
        if not 1 <= len(nodes) <= MAX_NODES:
            raise InputError(f"a federation has 1 to {MAX_NODES} nodes here, and not {len(nodes)}")
        self._nodes = dict(nodes)
        self._loop = loop
        self._max_bytes = max_message_bytes
        self._run_id = secrets.randbits(62) | 1
        self._going: concurrent.futures.Future[list[Message]] | None = None
        self._changing = threading.Lock()
        self._closed = False

    def set_run(self, run: Run) -> None:
        """Not used: the run is numbered here."""

    @property
    def run(self) -> Run:
        """The run, as Flower describes it."""
        return Run.create_empty(self._run_id)

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        """All of them, also those that died: a process may be started again."""
        return list(self._nodes)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        raise NotImplementedError("calls bring their replies back: use send_and_receive")

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        raise NotImplementedError("calls bring their replies back: use send_and_receive")

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Ask all at once; the replies that came within `timeout` seconds, in the order of asking.

        Raises InputError for a message that is too large, SwarmError once the grid is closed.
        """
        asked = [self._numbered(message) for message in messages]
        packed = [encode(message, max_bytes=self._max_bytes) for message in asked]
        wait_s = MAX_WAIT_S if timeout is None else min(timeout, MAX_WAIT_S)
        with self._changing:
            if self._closed:
                raise SwarmError("the federation was ended")
            going = asyncio.run_coroutine_threadsafe(self._ask_all(asked, packed, wait_s), self._loop)
            self._going = going
        try:
            return going.result()
        except concurrent.futures.CancelledError:
            raise SwarmError("the federation was ended") from None

    def close(self) -> None:
        """Give up what is being asked; whoever waits for it gets a SwarmError."""
        with self._changing:
            self._closed = True
            if self._going:
                self._going.cancel()

    def _numbered(self, message: Message) -> Message:
        if message.metadata.dst_node_id not in self._nodes:
            raise InputError(f"node {message.metadata.dst_node_id} is not of this federation")
        # Flower's own Grid fills these in the same way: there is no public one.
        message.metadata.__dict__.update(_run_id=self._run_id, _src_node_id=0, _message_id=secrets.token_hex(16))
        return message

    async def _ask_all(self, asked: list[Message], packed: list[bytes], wait_s: float) -> list[Message]:
        end = time.monotonic() + wait_s
        replies = await asyncio.gather(*map(self._ask, asked, packed, [end] * len(asked)))
        return [reply for reply in replies if reply is not None]

    async def _ask(self, message: Message, packed: bytes, end: float) -> Message | None:
        """The reply, an error reply, or None when the time was up."""
        try:
            async with asyncio.timeout(max(0.0, end - time.monotonic())) as limit:
                raw = await self._nodes[message.metadata.dst_node_id](packed)
            reply = decode(raw, max_bytes=self._max_bytes)
        except Exception as error:
            if limit.expired():
                return None
            return _fault(message, error)
        content: Any = reply.error if reply.has_error() else reply.content
        return Message(content, reply_to=message)


def _fault(message: Message, error: Exception) -> Message:
    code = ErrorCode.REPLY_MESSAGE_UNAVAILABLE if isinstance(error, ReplyError) else ErrorCode.NODE_UNAVAILABLE
    reason = str(error) if isinstance(error, ChimeraError) else f"{type(error).__name__}: {error}"
    return Message(Error(code, reason[:1_000]), reply_to=message)
