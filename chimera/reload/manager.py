"""Hot reload in one process: changed files become versions in use, and their functions become versions of tools."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Annotated, Literal

from pydantic import Field

from chimera.core.clock import Clock
from chimera.core.errors import ChimeraError, InputError, ReloadError
from chimera.core.types import Frozen
from chimera.reload.deadline import said
from chimera.reload.ending import to_the_end
from chimera.reload.registry import VersionedToolRegistry
from chimera.reload.reloader import ModuleReloader, Prepared, Smoke
from chimera.reload.source import Source
from chimera.reload.versions import ModuleVersion
from chimera.reload.watcher import Changed, CodeWatcher

Verify = Callable[[str, bytes, bytes], bool]
"""Module, source, signature -> whether whoever signed this may change this module."""

MAX_EVENTS = 256

MAX_TOOLS_OF_A_MODULE = 64

MAX_SIGNATURE_BYTES = 4_096

Count = Annotated[int, Field(ge=0)]

Kind = Literal["reloaded", "rolled_back", "failed", "unchanged", "not_loaded", "gone"]


class ReloadEvent(Frozen):
    """`version` is the one in use afterwards, 0 if there is none. `detail` says why, for people."""

    kind: Kind
    module: str
    version: Count
    at: float
    detail: str = ""


class ReloadStats(Frozen):
    """Since the manager was made. Times are those of the last reload, in milliseconds."""

    reloaded: Count
    rolled_back: Count
    failed: Count
    unchanged: Count
    prepare_ms: float
    switch_ms: float
    last_failure: str
    modules: dict[str, int]
    """Module -> version in use, for those that have been loaded in versions."""


class HotReloadManager:
    """With `verify`, only signed source is loaded, also by `watch`, which looks for the signature in `FILE.py.sig`.

    `listen` is told every event, in the loop's thread; what it raises ends the call that it is told of.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        reloader: ModuleReloader | None = None,
        registry: VersionedToolRegistry | None = None,
        verify: Verify | None = None,
        smoke: Smoke | None = None,
        listen: Callable[[ReloadEvent], None] | None = None,
    ) -> None:
        self._clock = clock
        self.reloader = reloader or ModuleReloader(clock=clock)
        self.registry = registry or VersionedToolRegistry(clock=clock)
        self._verify = verify
        self._smoke = smoke
        self._listen = listen
        self._tools: dict[str, dict[str, str]] = {}
        self._numbers: dict[tuple[str, int], int] = {}
        self._events: deque[ReloadEvent] = deque(maxlen=MAX_EVENTS)
        self._counts: Counter[str] = Counter()
        self._one_at_a_time = asyncio.Lock()
        self._switching = threading.RLock()
        self._switcher = ThreadPoolExecutor(1, "reload switch")
        self._to_stop: list[tuple[ModuleVersion, Callable[[], None]]] = []
        self.reloader.leaving = lambda version, stop: self._to_stop.append((version, stop))
        self._prepare_s = self._switch_s = 0.0
        self._last_failure = ""

    def expose(self, tool: str, module: str, attribute: str) -> None:
        """`tool` is `attribute` of `module`, as it is in use, from now on. Raises InputError, ReloadError."""
        with self._switching:
            tools = self._tools.get(module, {})
            if len(tools) >= MAX_TOOLS_OF_A_MODULE:
                raise ReloadError(f"{module} has {MAX_TOOLS_OF_A_MODULE} tools already")
            if of := next((name for name, each in self._tools.items() if tool in each and name != module), None):
                raise InputError(f"tool {tool} is of {of} already: give that of {module} another name")
            loaded = self.reloader.module(module)
            current = self.reloader.current(module)
            made = self.registry.register(tool, _callable(loaded, attribute), digest=current.digest)
            self._tools[module] = {**tools, tool: attribute}
            self._numbers[tool, current.version] = made.version

    async def reload(
        self, module: str, source: str | bytes | Path | None = None, *, signature: bytes = b""
    ) -> ModuleVersion:
        """Load the module anew, from its file or from `source`, and use it. The source in use already changes nothing.

        Raises ReloadError, and then the version before is still in use; MissingExtra and InputError as they are.
        """
        async with self._one_at_a_time:
            try:
                text = await asyncio.to_thread(self.reloader.read, module, source)
                self._check(text, signature)
                if module in self.reloader.modules() and self.reloader.current(module).digest == text.digest:
                    self._tell("unchanged", module)
                    return self.reloader.current(module)
                started = self._clock.monotonic()
                prepared = await self._prepare(text)
                self._prepare_s = self._clock.monotonic() - started
                return await self._switched("reloaded", module, partial(self._commit, prepared))
            except ChimeraError as error:
                self._let_go()
                self._last_failure = f"{module}: {error}"[:500]
                self._tell("failed", module, str(error)[:500])
                raise

    async def _switched(self, kind: Kind, module: str, switch: Callable[[], ModuleVersion]) -> ModuleVersion:
        """In a thread, because a holder's state may be in use for a while. Told also where the caller is cancelled."""
        running = asyncio.get_running_loop().run_in_executor(self._switcher, switch)
        try:
            return await to_the_end(running)
        finally:
            if running.done() and not running.cancelled() and running.exception() is None:
                self._tell(kind, module)

    async def _prepare(self, text: Source) -> Prepared:
        """In a thread. If the caller is cancelled meanwhile, what it makes is given up."""
        work = asyncio.ensure_future(asyncio.to_thread(self.reloader.prepare, text.module, text, smoke=self._try_out))
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            work.add_done_callback(self._abandon)
            raise

    def _abandon(self, work: asyncio.Future[Prepared]) -> None:
        if not work.cancelled() and work.exception() is None:
            self.reloader.abort(work.result())
        self._let_go()

    def _try_out(self, module: ModuleType) -> object:
        for attribute in self._tools.get(module.__name__, {}).values():
            _callable(module, attribute)
        return self._smoke(module) if self._smoke else None

    def _check(self, text: Source, signature: bytes) -> None:
        try:
            signed = self._verify is None or self._verify(text.module, text.code, signature)
        except Exception as error:  # there are libraries that raise where a signature does not fit
            raise ReloadError(f"{text.module}: its signature cannot be verified: {said(error)}") from error
        if not signed:
            raise ReloadError(f"{text.module}: its source is not signed by somebody who may change it")

    def _commit(self, prepared: Prepared) -> ModuleVersion:
        with self._switching:
            try:
                return self._use(prepared)
            finally:
                self._let_go()
                self._forget_numbers(prepared.version.module)

    def _use(self, prepared: Prepared) -> ModuleVersion:
        name, number, digest = prepared.version.module, prepared.version.version, prepared.version.digest
        added: list[tuple[str, int]] = []
        try:
            for tool, attribute in self._tools.get(name, {}).items():
                call = _callable(prepared.module, attribute)
                added.append((tool, self.registry.register(tool, call, digest=digest, activate=False).version))
            started = self._clock.monotonic()
            version = self.reloader.commit(prepared)
        except ChimeraError:
            for tool, tool_version in added:
                self.registry.remove(tool, tool_version)
            self.reloader.abort(prepared)
            raise
        for tool, tool_version in added:
            self._numbers[tool, number] = tool_version
            self.registry.activate(tool, tool_version)
        self._switch_s = self._clock.monotonic() - started
        return version

    def _forget_numbers(self, module: str) -> None:
        if module not in self.reloader.modules():
            return
        loaded = {version.version for version in self.reloader.versions(module)}
        for tool, number in list(self._numbers):
            if tool in self._tools.get(module, {}) and number not in loaded:
                del self._numbers[tool, number]

    async def roll_back(self, module: str, *, lossy: bool = False) -> ModuleVersion:
        """The version before is in use again, with its tools. Raises ReloadError, as `ModuleReloader.roll_back`."""
        return await self._switched("rolled_back", module, partial(self._go_back, module, lossy))

    def _go_back(self, module: str, lossy: bool) -> ModuleVersion:
        with self._switching:
            leaving = self.reloader.current(module).version
            try:
                version = self.reloader.roll_back(module, lossy=lossy)
                for tool, attribute in self._tools.get(module, {}).items():
                    there = {kept.version for kept in self.registry.versions(tool)}
                    number = self._numbers.get((tool, version.version), 0)
                    if number not in there:
                        call = _callable(self.reloader.module(module), attribute)
                        number = self.registry.register(tool, call, digest=version.digest).version
                        self._numbers[tool, version.version] = number
                    self.registry.activate(tool, number)
                    if (left := self._numbers.get((tool, leaving))) in there and left is not None:
                        self.registry.deprecate(tool, left)
                return version
            finally:
                self._let_go()
                self._forget_numbers(module)

    def _let_go(self) -> None:
        """What was given up is stopped once the calls that it is in have ended."""
        while self._to_stop:
            version, stop = self._to_stop.pop()
            for tool in self._tools.get(version.module, {}):
                if (number := self._numbers.get((tool, version.version))) is not None:
                    stop = partial(self.registry.when_free, tool, number, stop)
            stop()

    async def watch(self, folder: str | Path, *, watcher: CodeWatcher | None = None) -> None:
        """Reload what changes under `folder` and is loaded here, until cancelled. A failure is an event and a count.

        Raises InputError if there is no such folder, MissingExtra without watchfiles.
        """
        async for changes in (watcher or CodeWatcher(folder)).changes():
            for changed in sorted(changes, key=lambda one: one.module):
                await self._follow(changed)

    async def _follow(self, changed: Changed) -> None:
        file = getattr(sys.modules.get(changed.module), "__file__", None) or ""
        if changed.digest is None:
            self._tell("gone", changed.module, "its file is gone: the version in use stays")
        elif not await asyncio.to_thread(_same_file, file, changed.path):
            self._tell("not_loaded", changed.module, f"{changed.path} is not what is loaded under that name")
        else:
            try:
                signature = await asyncio.to_thread(_signature, changed.path) if self._verify else b""
                await self.reload(changed.module, changed.path, signature=signature)
            except ChimeraError:
                return  # it has been counted and told

    def _tell(self, kind: Kind, module: str, detail: str = "") -> None:
        version = self.reloader.current(module).version if module in self.reloader.modules() else 0
        event = ReloadEvent(kind=kind, module=module, version=version, at=self._clock.now(), detail=detail)
        self._counts[kind] += 1
        self._events.append(event)
        if self._listen is not None:
            self._listen(event)

    def events(self) -> tuple[ReloadEvent, ...]:
        """The last 256, oldest first."""
        return tuple(self._events)

    def stats(self) -> ReloadStats:
        return ReloadStats(
            reloaded=self._counts["reloaded"],
            rolled_back=self._counts["rolled_back"],
            failed=self._counts["failed"],
            unchanged=self._counts["unchanged"],
            prepare_ms=round(1e3 * self._prepare_s, 3),
            switch_ms=round(1e3 * self._switch_s, 3),
            last_failure=self._last_failure,
            modules={name: self.reloader.current(name).version for name in self.reloader.modules()},
        )


def _same_file(one: str, other: Path) -> bool:
    return os.path.realpath(one) == os.path.realpath(other)


def _callable(module: ModuleType, attribute: str) -> Callable[..., object]:
    found: Callable[..., object] | None = getattr(module, attribute, None)
    if not callable(found):
        raise InputError(f"{module.__name__} has no function {attribute!a:.100}, which is exposed as a tool")
    return found


def _signature(path: Path) -> bytes:
    """Empty where there is none, which no check accepts."""
    try:
        with open(f"{path}.sig", "rb") as file:
            return file.read(MAX_SIGNATURE_BYTES)
    except OSError:
        return b""
