"""A server in a process of its own, spoken to over its standard input and output, one JSON-RPC message a line.

The SDK has a transport for this too. This one bounds a message and what is kept of stderr, tells at once that the
process is gone, and has its group ended when the hub dies.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Final

import anyio
import mcp_types
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.shared.message import SessionMessage

from chimera.mcp.watchdog import Watchdog

STDERR_KEPT: Final = 8 * 1024
QUEUED_MESSAGES: Final = 64
"""Messages that wait for a server that does not read; the next one waits with its caller."""

MAX_JUNK_LINES: Final = 10_000
"""Lines on stdout, one after the other, that are no messages: a server that says more of them is lost."""

CLOSE_S, TERM_S, KILL_S = 2.0, 1.0, 2.0
"""Waited for the process after its input is closed, after SIGTERM, after SIGKILL."""

_POLL_S = 0.02

Incoming = SessionMessage | Exception
Streams = tuple[MemoryObjectReceiveStream[Incoming], MemoryObjectSendStream[SessionMessage]]


class Tail:
    """The end of what was said, of at most `STDERR_KEPT` bytes."""

    def __init__(self) -> None:
        self._kept = bytearray()

    def add(self, said: bytes) -> None:
        self._kept += said[-STDERR_KEPT:]
        del self._kept[:-STDERR_KEPT]

    def __str__(self) -> str:
        return self._kept.decode("utf-8", "replace").strip()


class Child:
    """A process, and how it is stopped."""

    def __init__(self, process: asyncio.subprocess.Process, watchdog: Watchdog) -> None:
        self.process = process
        self.group = process.pid  # it leads a session of its own, so its pid is its group's
        self._watchdog = watchdog

    def watch(self) -> None:
        """Have it ended if we die."""
        self._watchdog.watch(self.group)

    async def stop(self) -> None:
        """Close its input, wait, then end it with all that it has started. Every wait is bounded."""
        if self.process.stdin is not None:
            self.process.stdin.close()
        if not await self._ended(CLOSE_S):
            self._signal(signal.SIGTERM)
            await self._ended(TERM_S)
        self._signal(signal.SIGKILL)
        await self._ended(KILL_S)
        self._watchdog.forget(self.group)
        # Pipes that a stray grandchild holds open would keep the transport, and nothing public closes it.
        self.process._transport.close()  # type: ignore[attr-defined]

    def _signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.group, number)

    async def _ended(self, within_s: float) -> bool:
        """`Process.wait` would wait for the ends of its pipes too, which others may hold."""
        for _ in range(round(within_s / _POLL_S)):
            if self.process.returncode is not None:
                return True
            await asyncio.sleep(_POLL_S)
        return self.process.returncode is not None


@asynccontextmanager
async def stdio_streams(
    command: Sequence[str],
    *,
    env: Mapping[str, str],
    cwd: str | None,
    max_message_bytes: int,
    said: Tail,
    watchdog: Watchdog,
    started: Callable[[int], None],
    lost: Callable[[str], None],
) -> AsyncIterator[Streams]:
    """Start the command and yield the streams that an MCP session reads and writes.

    `started` is told the process's group; `lost` why there will be no more messages, unless we closed it. What the
    process writes to stderr, and what on stdout is no message, goes to `said`. Raises OSError if it cannot be started.
    """
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=dict(env),
        cwd=cwd,
        start_new_session=True,
        limit=max_message_bytes,
    )
    child = Child(process, watchdog)
    incoming, session_reads = anyio.create_memory_object_stream[Incoming](0)
    session_writes, outgoing = anyio.create_memory_object_stream[SessionMessage](QUEUED_MESSAGES)
    closing = False

    async def read() -> None:
        async with incoming:
            why = await _read(process, incoming, said)
        if not closing:
            lost(why)
        await _drain(process.stdout)

    async def write() -> None:
        async with outgoing:
            if not await _write(process, outgoing) and not closing:
                await incoming.aclose()  # whoever waits for an answer hears at once that there will be none
                lost("its input is closed")

    async def hear() -> None:
        while heard := await _stream(process.stderr).read(STDERR_KEPT):
            said.add(heard)

    async with anyio.create_task_group() as tasks:
        for work in (read, write, hear):
            tasks.start_soon(work)
        try:
            child.watch()
            started(child.group)
            yield session_reads, session_writes
        finally:
            closing = True
            with anyio.CancelScope(shield=True):
                session_reads.close()
                session_writes.close()
                await child.stop()
            tasks.cancel_scope.cancel()


async def _read(process: asyncio.subprocess.Process, to: MemoryObjectSendStream[Incoming], said: Tail) -> str:
    """Hand on messages to the end of stdout; returns why it ended."""
    junk = 0
    while junk < MAX_JUNK_LINES:
        try:
            line = await _stream(process.stdout).readline()
        except ValueError:  # longer than the stream's limit
            return "it sent a message that is too long"
        if not line:
            return "its process has ended, or closed its output"
        message = _message(line)
        if message is None:
            junk += 1
            said.add(line)
            await asyncio.sleep(0)  # readline does not suspend as long as there is something to read
            continue
        junk = 0
        try:
            await to.send(SessionMessage(message))
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            return "the session has ended"
    return f"it wrote {MAX_JUNK_LINES} lines that are no messages"


def _message(line: bytes) -> mcp_types.JSONRPCMessage | None:
    if line.isspace():
        return None
    try:
        return mcp_types.jsonrpc_message_adapter.validate_json(line, by_name=False)
    except ValueError:
        return None


async def _write(process: asyncio.subprocess.Process, outgoing: MemoryObjectReceiveStream[SessionMessage]) -> bool:
    """Write messages until there are no more; False if the process does not take them."""
    if process.stdin is None:
        return False
    async for outgoing_message in outgoing:
        text = outgoing_message.message.model_dump_json(by_alias=True, exclude_unset=True)
        process.stdin.write(f"{text}\n".encode())
        try:
            await process.stdin.drain()
        except ConnectionError:
            return False
    return True


async def _drain(stream: asyncio.StreamReader | None) -> None:
    """A server that still flushes must not block on a full pipe: it would not get to its end."""
    while await _stream(stream).read(64 * 1024):
        pass


def _stream(stream: asyncio.StreamReader | None) -> asyncio.StreamReader:
    if stream is None:
        raise RuntimeError("the process was started without pipes")
    return stream
