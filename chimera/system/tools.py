"""The tools of a node in one place: servers, approvals, the catalog, and the guarded way to call.

    async with Toolbox(settings) as toolbox:
        await toolbox.refresh(15.0)
        for found in await toolbox.search("what time is it in Tokyo"): ...

Everything is kept in CHIMERA_HOME/tools: `pins` (approvals), `audit` (each call), `vectors.db` (the tools' embeddings)
and `examples.json` (queries that a tool was right for). The servers are those of a file in the form that people have.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Literal, Self

from pydantic import TypeAdapter, ValidationError

from chimera.core.clock import Clock, SystemClock
from chimera.core.config import Settings
from chimera.core.errors import AuditBusy, ChimeraError, InputError, SourceError
from chimera.llm.models import open_model
from chimera.mcp.calls import ToolCaller
from chimera.mcp.catalog.embedder import Embedder, ModelEmbedder
from chimera.mcp.catalog.index import Catalog, Found
from chimera.mcp.catalog.vectors import VectorFile
from chimera.mcp.config import load_servers
from chimera.mcp.outcome import Outcome
from chimera.mcp.pins import Approval, Pins, ToolStanding
from chimera.mcp.status import Status
from chimera.mcp.types import ToolDefinition
from chimera.security.audit import AuditLog
from chimera.security.audit_entry import signing_key
from chimera.security.gateway.gateway import SecurityGateway
from chimera.security.gateway.guard import Capability
from chimera.system.tool_hubs import ToolHubs

if TYPE_CHECKING:
    from chimera.mcp.config import ServerConfig

SERVERS_FILE: Final = "mcp.json"
AUDIT_WAIT_S: Final = 10.0
"""For another command to be done with the log of calls: it has one writer."""
RETRY_S: Final = 0.05
LISTING_AT_ONCE: Final = 32
MAX_EXAMPLES_BYTES: Final = 8_000_000

Meaning = Literal["none", "minilm", "model"]
"""What tools are compared by besides their words: nothing, MiniLM on this machine, or the settings' model."""

_EXAMPLES = TypeAdapter(dict[str, list[str]])


class Toolbox:
    """Opened with `async with`; belongs to one event loop.

    `servers` is the file with the servers; CHIMERA_HOME/mcp.json unless given. With `on_ray` they are held by actors on
    the cluster that the settings name. Raises InputError for a file that cannot be used, and what `ToolHubs` raises; a
    call raises AuditBusy while another process keeps the log of calls.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        servers: Path | None = None,
        meaning: Meaning = "none",
        on_ray: bool = False,
        clock: Clock | None = None,
    ) -> None:
        self._settings = settings
        self._file = servers or settings.home / SERVERS_FILE
        self._meaning = meaning
        self._on_ray = on_ray
        self._clock = clock or SystemClock()
        self._stack = AsyncExitStack()
        self._calling = asyncio.Lock()
        self._caller: ToolCaller | None = None
        self._catalog: Catalog | None = None
        self._definitions: dict[str, tuple[ToolDefinition, ...]] = {}
        self._listings = 0
        self._seen: object = None
        self.problems: dict[str, str] = {}
        """Why a server could not be listed by the last `refresh`."""

    @property
    def home(self) -> Path:
        return self._settings.home / "tools"

    async def __aenter__(self) -> Self:
        try:
            self.servers: Mapping[str, ServerConfig] = load_servers(self._file)
            self._gateway = await asyncio.to_thread(SecurityGateway)
            self.pins = Pins(self.home / "pins", clock=self._clock, gateway=self._gateway)
            self._examples = _examples(self.home / "examples.json")
            on_ray = self._settings if self._on_ray else None
            self.hubs = await self._stack.enter_async_context(ToolHubs(self.servers, settings=on_ray))
            self._embedder = await asyncio.to_thread(embedder_for, self._meaning, self._settings)
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def refresh(self, timeout_s: float = 15.0, *, only: Sequence[str] | None = None) -> None:
        """List the tools of all servers, or of `only` these, again. Who does not answer in time is in `problems`."""
        names = self.hubs.names() if only is None else only
        self.problems = {} if only is None else {n: why for n, why in self.problems.items() if n not in names}
        turn = asyncio.Semaphore(LISTING_AT_ONCE)

        async def listed(server: str) -> None:
            try:
                async with turn, asyncio.timeout(timeout_s):
                    self._definitions[server] = await self.hubs.tools(server)
            except TimeoutError:
                self._gone(server, f"did not answer within {timeout_s:g} s")
            except ChimeraError as error:
                self._gone(server, str(error))

        await asyncio.gather(*map(listed, names))
        self._listings += 1
        for name, config in self.servers.items() if only is None else ():
            if config.problem:
                self.problems[name] = config.problem
        self._catalogued()

    def _gone(self, server: str, why: str) -> None:
        self._definitions.pop(server, None)
        self.problems[server] = why

    def offered(self, server: str) -> tuple[ToolDefinition, ...]:
        """What a server offered at the last `refresh`, approved or not: for people, never for a planner."""
        self.hubs.config(server)
        if server in self.problems:
            raise SourceError(f"{server}: {self.problems[server]}")
        return self._definitions.get(server, ())

    def standings(self, server: str) -> tuple[ToolStanding, ...]:
        """How each of its tools stands: new, approved, changed or gone."""
        return self.pins.standings(server, self.offered(server))

    def approve(self, server: str, *, by: str, only: Sequence[str] | None = None, despite: bool = False) -> Approval:
        """See `Pins.approve`: of what the last `refresh` listed, which is what the person was shown."""
        made = self.pins.approve(server, self.offered(server), by=by, only=only, despite=despite)
        self._catalogued()
        return made

    def revoke(self, server: str, tools: Sequence[str] | None = None) -> tuple[str, ...]:
        """See `Pins.revoke`."""
        taken = self.pins.revoke(server, tools)
        self._catalogued()
        return taken

    async def search(self, query: str, k: int = 5) -> tuple[Found, ...]:
        """The few approved tools that fit. See `Catalog.search`."""
        self._catalogued()  # what was revoked or has changed since is in no answer
        assert self._catalog is not None
        return await self._catalog.search(query, k)

    async def call(
        self,
        server: str,
        tool: str,
        arguments: Mapping[str, object],
        *,
        actor: str,
        capability: Capability | None,
        trail_sources: frozenset[str] = frozenset(),
        timeout_s: float | None = None,
    ) -> Outcome:
        """See `ToolCaller.call`. The first call opens the log, which one process has at a time."""
        caller = await self._opened()
        return await caller.call(
            server,
            tool,
            arguments,
            trail_sources=trail_sources,
            capability=capability,
            actor=actor,
            timeout_s=timeout_s,
        )

    async def status(self) -> dict[str, Status]:
        return await self.hubs.status()

    def _catalogued(self) -> None:
        """Bring the catalog up to date, if what is offered or approved has changed: that costs as much as an index."""
        names = tuple(sorted(self._definitions))
        seen = (self._listings, self.pins.stamp(names))
        if self._catalog is not None and seen == self._seen:
            return
        self._seen = seen
        definitions = [each for name in sorted(self._definitions) for each in self._definitions[name]]
        if self._catalog is not None:
            self._catalog.replace(definitions)
            return
        vectors = None
        if self._embedder is not None:
            vectors = VectorFile(self.home / "vectors.db")
            self._stack.callback(vectors.close)
        self._catalog = Catalog(
            definitions,
            approved=self.pins.approved,
            embedder=self._embedder,
            examples=self._examples,
            vectors=vectors,
        )

    async def _opened(self) -> ToolCaller:
        async with self._calling:
            if self._caller is None:
                log = await self._log()
                self._stack.callback(log.close)
                self._caller = ToolCaller(
                    self.hubs, self.pins, gateway=self._gateway, audit=log, clock=self._clock, rng=random.Random()
                )
            return self._caller

    async def _log(self) -> AuditLog:
        key = signing_key(self._settings.home / "security" / "audit.pem")
        until = self._clock.monotonic() + AUDIT_WAIT_S
        while True:
            with suppress(AuditBusy):
                return await asyncio.to_thread(AuditLog, self.home / "audit", key, clock=self._clock)
            if self._clock.monotonic() > until:
                raise AuditBusy(f"another process keeps {self.home / 'audit'}: end it, or call through it")
            await asyncio.sleep(RETRY_S)


def embedder_for(meaning: Meaning, settings: Settings) -> Embedder | None:
    """What tools are compared with; None where only their words are. Raises InputError and MissingExtra."""
    if meaning == "none":
        return None
    if meaning == "model":
        return ModelEmbedder(model=open_model(settings.model))
    from chimera.mcp.catalog.minilm import MiniLM  # numpy and tokenizers: half a second

    return MiniLM()


def _examples(path: Path) -> dict[str, list[str]]:
    """Queries by `server/tool`; none where there is no file. Raises InputError."""
    try:
        if path.stat().st_size > MAX_EXAMPLES_BYTES:
            raise InputError(f"{path}: at most {MAX_EXAMPLES_BYTES} bytes of example queries are read")
        data: Any = json.loads(path.read_bytes())
        return _EXAMPLES.validate_python(data, strict=True)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError, ValidationError):
        raise InputError(f'{path} is no JSON of the form {{"server/tool": ["a query", ...]}}') from None
