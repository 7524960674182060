"""One server's connection: one task opens it, holds it and closes it; everybody's calls go through its session.

The SDK's cancel scopes belong to the task that entered them: a session that is opened in one task and closed in
another takes both down. So callers only ever wait for a future and send requests.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, contextmanager, suppress
from typing import Final

from mcp import MCPError
from pydantic import JsonValue, ValidationError

from chimera.core.clock import Clock
from chimera.core.errors import ChimeraError, InputError, Overloaded, SourceError
from chimera.mcp.answers import refusal_of, result_of
from chimera.mcp.caps import pause_s
from chimera.mcp.config import ServerConfig
from chimera.mcp.failures import BUSY_S, explained, failure_of, fault_of, first_of, kind_of
from chimera.mcp.session import Ground, Live, Session, open_session
from chimera.mcp.status import State, Status
from chimera.mcp.stdio import Tail
from chimera.mcp.types import ToolDefinition, ToolResult
from chimera.mcp.wire import Fault

TOOLS_KEPT_S: Final = 300.0
"""A list of tools is asked for again after this, since not every server says that it has changed."""

RESTARTS: Final = 6
"""Tries to bring back a server that was lost, before the next one waits for somebody to need it."""

STEADY_S: Final = 30.0
"""A connection that stood so long has made its server's failures good."""

QUEUE: Final = 8
"""Calls that wait for their turn, for each that may be in progress."""

SILENT_CALLS: Final = 3
PROBE_S: Final = 5.0
"""After so many calls in a row without an answer the server is asked for its tools, and is lost if that fails too."""

FINISH_S: Final = 1.0
"""For calls in progress to end when their session turns out to be of no use for further ones."""


class Connection:
    """See the module. `admit` bounds how many connect at once, and makes room: it is held while connecting."""

    def __init__(
        self,
        config: ServerConfig,
        *,
        ground: Ground,
        clock: Clock,
        rng: random.Random,
        admit: Callable[[Connection], AbstractAsyncContextManager[None]],
    ) -> None:
        self.config = config
        self.used_s = clock.monotonic()
        self.group = 0
        self.memory_bytes = 0
        self.known: tuple[ToolDefinition, ...] = ()
        """Its tools when they were last listed, whether it is connected or not."""
        self._ground, self._clock, self._rng, self._admit = ground, clock, rng, admit
        self._state = State.IDLE
        self._live: Live | None = None
        self._task: asyncio.Task[None] | None = None
        self._probe: asyncio.Task[None] | None = None
        self._opened: asyncio.Future[Live]
        self._over = asyncio.Event()
        self._closing = self._interruptible = False
        """The owner waits for something other than `_over`, and holds nothing that it could not give back."""
        self._turns = asyncio.Semaphore(config.at_once)
        self._listing = asyncio.Lock()
        self._said = Tail()
        self._error: ChimeraError | None = None
        self._why_lost = ""
        self._retry_at_s = 0.0
        self._failures = self._restarts = self._calls = self._silent = self._in_flight = 0

    @property
    def held(self) -> bool:
        """Whether it holds anything: a task, a process, sockets."""
        return self._task is not None

    @property
    def busy(self) -> bool:
        return self._in_flight > 0 or self._state is not State.READY

    def status(self) -> Status:
        live = self._live
        return Status(
            server=self.config.name,
            state=self._state,
            transport=self.config.transport,
            place=self.config.place,
            protocol=live.session.protocol if live else "",
            tools=len(self.known),
            left_out=live.left_out if live else 0,
            in_flight=self._in_flight,
            calls=self._calls,
            restarts=self._restarts,
            error=self.config.problem or (str(self._error) if self._error else ""),
            retry_in_s=max(0.0, self._retry_at_s - self._clock.monotonic()),
            memory_bytes=self.memory_bytes,
            stderr=self.config.scrub(str(self._said)),
            notes=self.config.notes,
        )

    async def connect(self) -> None:
        """Be connected. Raises what `Tools` says."""
        async with self._used():
            await self._connected()

    async def tools(self) -> tuple[ToolDefinition, ...]:
        """What the server offers, listed again if that may have changed."""
        try:
            async with asyncio.timeout(self.config.timeout_s), self._used():
                live = await self._connected()
                async with self._listing:
                    if live.changed or self._clock.monotonic() - live.listed_s > TOOLS_KEPT_S:
                        await self._list(live)
                return live.tools
        except TimeoutError:
            raise SourceError(f"the server {self.config.name} does not list its tools in time") from None
        except (MCPError, ValidationError, RuntimeError) as error:
            raise SourceError(f"the server {self.config.name} does not list its tools: {kind_of(error)}") from None

    async def call(self, tool: str, arguments: Mapping[str, JsonValue], *, timeout_s: float) -> ToolResult:
        """One call. It is sent a second time only if the server had forgotten the session, and so has done nothing."""
        sent = False
        try:
            async with asyncio.timeout(timeout_s), self._used(), self._turns:
                for again in (True, False):
                    live = await self._connected()
                    sent = True
                    try:
                        with live.asked():
                            answer = await live.session.call(tool, dict(arguments))
                    except MCPError as error:
                        if not again or fault_of(live.session, error)[0] is not Fault.SESSION:
                            return self._judged(live, error)
                        sent = False
                        if self._live is live:
                            self._lose(error.error.message)
                    else:
                        self._silent = 0
                        return result_of(answer, max_bytes=self.config.max_output_bytes)
                raise AssertionError("the second round always ends the call")
        except TimeoutError:
            raise self._out_of_time(timeout_s, sent=sent) from None
        except (ValidationError, RecursionError):
            raise SourceError(f"the server {self.config.name} answered with what is no result of a call") from None

    async def close(self) -> None:
        """Give everything back. Calls in progress fail; the next use connects again."""
        if self._probe is not None:
            self._probe.cancel()
        task = self._task
        if task is None:
            return
        self._live, self._closing = None, True
        self._state = State.CLOSING
        self._over.set()
        if self._interruptible:
            self._interruptible = False  # once: a second time would hit it as it gives things back
            task.cancel()
        await asyncio.wait([task])

    # The callers' side.

    @asynccontextmanager
    async def _used(self) -> AsyncIterator[None]:
        if self._in_flight >= self.config.at_once * (1 + QUEUE):
            raise Overloaded(f"too many calls wait for the server {self.config.name}", BUSY_S)
        self._in_flight += 1
        try:
            yield
        finally:
            self._in_flight -= 1
            self.used_s = self._clock.monotonic()

    async def _connected(self) -> Live:
        if self.config.problem:
            raise InputError(f"the server {self.config.name} cannot be used: {self.config.problem}")
        while self._live is None:
            if self._task is not None and self._closing:
                await asyncio.wait([self._task])
                continue
            if self._task is None:
                self._refuse_too_soon()
                self._over.clear()
                self._expect()
                self._state = State.CONNECTING
                self._task = asyncio.create_task(self._hold(), name=f"mcp:{self.config.name}")
            return await asyncio.shield(self._opened)
        return self._live

    def _refuse_too_soon(self) -> None:
        wait_s = self._retry_at_s - self._clock.monotonic()
        if self._error is not None and wait_s > 0:
            raise self._refusal(self._error, wait_s)

    def _refusal(self, error: ChimeraError, wait_s: float) -> ChimeraError:
        return InputError(str(error)) if isinstance(error, InputError) else Overloaded(str(error), wait_s)

    def _judged(self, live: Live, error: MCPError) -> ToolResult:
        """The server's own answer, if that is what the error is; raises otherwise."""
        fault, _ = fault_of(live.session, error)
        if fault in (Fault.UNSENT, Fault.SESSION) and self._live is live:
            self._lose(error.error.message)
        if (failure := failure_of(live.session, error, self._why_lost)) is not None:
            raise failure
        self._silent = 0
        return refusal_of(error, max_bytes=self.config.max_output_bytes)

    def _out_of_time(self, timeout_s: float, *, sent: bool) -> ChimeraError:
        name = self.config.name
        if not sent:
            return Overloaded(f"the server {name} was not ready within {timeout_s:g} s", BUSY_S)
        self._silent += 1
        live = self._live
        if live is not None and self._silent >= SILENT_CALLS and (self._probe is None or self._probe.done()):
            self._probe = asyncio.create_task(self._is_there(live))
        return SourceError(f"the server {name} gave no answer within {timeout_s:g} s. It may have worked")

    async def _is_there(self, live: Live) -> None:
        try:
            async with asyncio.timeout(PROBE_S):
                await self._list(live)
        except (TimeoutError, MCPError, ValidationError, RuntimeError):
            if self._live is live:
                self._lose("it does not answer any more")

    # The owner's side: one task, from the first try to the last close.

    async def _hold(self) -> None:
        left = 0
        try:
            while True:
                if await self._once():
                    left = RESTARTS
                if self._closing or left == 0:
                    return
                left -= 1
                self._restarts += 1
                self._state = State.CONNECTING
                if self._opened.done():
                    self._expect()
                with self._waiting():
                    await asyncio.sleep(pause_s(self._failures, self._rng))
                self._over.clear()
        finally:
            self._live, self._task, self._closing = None, None, False
            self._state = State.FAILED if self._error else State.IDLE
            if not self._opened.done():
                self._opened.set_exception(Overloaded(f"the server {self.config.name} is being closed", BUSY_S))

    async def _once(self) -> bool:
        """Connect, and hold the session until it is over. Whether it was ever ready."""
        live: Live | None = None
        trouble: BaseException | None = None
        self._why_lost, self._said = "", Tail()
        try:
            async with AsyncExitStack() as connecting:
                with self._waiting():
                    await connecting.enter_async_context(self._admit(self))
                async with self._open() as session:
                    live, trouble = await self._ready(session, connecting)
                    await connecting.aclose()
                    if live is not None:
                        await self._over.wait()
                        await self._let_finish(live)
        except Exception as error:  # whatever the server or the SDK did, the next try starts afresh
            trouble = error
        finally:
            self.group = self.memory_bytes = 0
        if self._closing:
            return False
        if live is not None:
            self._lose("the connection was closed")
            if self._clock.monotonic() - live.since_s < STEADY_S:
                self._failures += 1
            return True
        self._fail(first_of(trouble))
        return False

    async def _let_finish(self, live: Live) -> None:
        """Calls over HTTP each have their own exchange with the server: those that it still answers are heard."""
        if not self._closing and live.session.wire is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(FINISH_S):
                    await live.quiet.wait()

    def _open(self) -> AbstractAsyncContextManager[Session]:
        def started(group: int) -> None:
            self.group = group

        def changed() -> None:
            if self._live is not None:
                self._live.changed = True

        return open_session(
            self.config, self._ground, said=self._said, started=started, lost=self._lose, changed=changed
        )

    async def _ready(self, session: Session, start: AsyncExitStack) -> tuple[Live | None, BaseException | None]:
        """Greet the server and tell who waits; what went wrong is returned, not raised through the SDK's scopes."""
        live = Live(session, self._clock.monotonic())
        live.quiet.set()
        try:
            with self._waiting():
                async with asyncio.timeout(self.config.connect_s):
                    await session.greet()
                    if session.wire is None:
                        await start.aclose()  # its process has started
                    await self._list(live)
        except (TimeoutError, MCPError, ValidationError, RuntimeError) as error:
            return None, explained(self.config, error, session, self._why_lost)
        if self._closing:
            return None, None
        self._live, self._error, self._silent = live, None, 0
        self._state = State.READY
        self.used_s = self._clock.monotonic()
        if not self._opened.done():
            self._opened.set_result(live)
        return live, None

    @contextmanager
    def _waiting(self) -> Iterator[None]:
        if self._closing:
            raise SourceError(f"the server {self.config.name} is being closed")
        self._interruptible = True
        try:
            yield
        finally:
            self._interruptible = False

    async def _list(self, live: Live) -> None:
        live.changed = False
        try:
            live.tools, live.left_out = await live.session.list_tools()
        except BaseException:  # whoever asked has given up: the change is still to be seen
            live.changed = True
            raise
        live.listed_s = self._clock.monotonic()
        self.known = live.tools

    def _expect(self) -> None:
        """A new future for those who wait for the connection."""
        self._opened = asyncio.get_running_loop().create_future()
        self._opened.add_done_callback(lambda done: done.cancelled() or done.exception())  # nobody may be waiting

    def _lose(self, why: str) -> None:
        """The session is of no use any more. Its calls fail as it is closed."""
        self._why_lost = self._why_lost or why
        if self._live is None:
            return
        self._live = None
        self._error = SourceError(f"the server {self.config.name} was lost: {why}")
        self._state = State.CONNECTING
        self._expect()
        self._over.set()

    def _fail(self, error: BaseException) -> None:
        if isinstance(error, Overloaded):  # there is no room for it, which is no failure of its own
            self._error, wait_s = error, error.retry_after_s
        else:
            self._failures += 1
            wait_s = pause_s(self._failures, self._rng)
            self._error = explained(self.config, error, why_lost=self._why_lost)
            self._retry_at_s = self._clock.monotonic() + wait_s
        if not self._opened.done():
            self._opened.set_exception(self._refusal(self._error, wait_s))
