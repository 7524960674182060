"""One process's part in the reloads of its swarm: it tries a version when asked, and takes it up when told.

Asked again, it says the same again. It is used in the event loop of the actor's control group, beside the loop in which
agents come and go; a process that has just started asks for what is committed before it takes anybody in.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import logging
import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from chimera.actors import cluster
from chimera.actors.agent_state import home_of
from chimera.actors.residents import Change, Residents, late
from chimera.actors.threads import Threads
from chimera.core.clock import SystemClock
from chimera.core.errors import ChimeraError, ClusterError, ReloadError
from chimera.reload.deadline import OutOfTime, said, time_limit
from chimera.reload.messages import Abort, Answer, Commit, Drain, Parcel, Prepare, Request
from chimera.reload.reloader import ModuleReloader, Prepared
from chimera.reload.source import Source, read_source
from chimera.reload.versions import ModuleVersion
from chimera.swarm.policy import Policy, Seat

log = logging.getLogger(__name__)

COORDINATOR_S = 30.0
"""How long a coordinator that died may take to come back before a new process gives up on it, and is started anew."""

PAUSE_S = 0.2

DRAIN_S = 2.0
"""How long a request to drain waits before it says that somebody is still at work."""

LOOK_S = 0.01

MAX_MODULES = 256

GARBAGE_BYTES = 8 << 20
"""Versions that were given up are cycles, which Python hardly ever looks for in a cell (`cluster.spawn`): after so much
of them it is told to."""

VERSION_BYTES = 1 << 18
"""What a version takes besides its source, about."""

IMPORT_S = 10.0
"""How long the import of a module as it was deployed may take."""

TRY_S = 28.0
"""How long a version is tried before the answer is that it does not end. The coordinator waits for 30 s."""


@dataclass(frozen=True)
class _Ready:
    """A version that has been tried here."""

    version: int
    prepared: Prepared
    change: Change


class Reloading:
    """`life` tells this process from those before it. The coordinator's versions count from 0, those here from 1."""

    def __init__(
        self, actor: str, coordinator: str, residents: Residents, *, find: Callable[[str], Any] = cluster.find
    ) -> None:
        self.life = time.time_ns()
        self._actor = actor
        self._coordinator = coordinator
        self._residents = residents
        self._find = find
        self._reloader = ModuleReloader(clock=SystemClock())
        self._deployed: dict[str, Parcel] = {}
        self._running: dict[str, int] = {}
        self._numbers: dict[str, int] = {}
        """By which number a module's code knows the version in use: one that came back has its old one again."""
        self._ready: dict[str, _Ready] = {}
        self._home: asyncio.AbstractEventLoop | None = None
        self._caught_up = False
        self._switches = 0
        self._turns: dict[str, asyncio.Lock] = {}
        self._threads = Threads()
        self._garbage_bytes = 0

    async def host(self, seat: Seat) -> None:
        """Take this agent in, in the version in use. Raises PolicyError."""
        while True:
            before = self._switches
            policy = await asyncio.to_thread(self._load, seat)
            if before == self._switches:
                self._residents.add(seat, policy)
                return

    def _load(self, seat: Seat) -> Policy:
        """The source of its module is kept, while it is what the file says."""
        known = set(sys.modules)
        policy = seat.load()
        module = home_of(policy)
        if module in self._running:
            return late(seat, policy, self._reloader.module(module))
        if module not in self._deployed and len(self._deployed) < MAX_MODULES:
            with suppress(ReloadError, OSError):  # a built-in, or typed in: there is nothing to go back to
                source = read_source(module)
                if module not in known or os.stat(source.path).st_mtime_ns < self.life:
                    self._deployed[module] = Parcel(source.code, source.path)
        return policy

    async def catch_up(self) -> None:
        """Take up what is committed, before this process serves. Raises ClusterError if nobody can say what that is."""
        self._home = asyncio.get_running_loop()
        if self._caught_up:
            return
        until = time.monotonic() + COORDINATOR_S
        while True:
            coordinator = await asyncio.to_thread(self._find, self._coordinator)
            if coordinator is None:
                break  # a cell of nobody's: there are no reloads
            try:
                await coordinator.reload_join.remote(self._actor, self.life)
                break
            except cluster.CALL_FAILED as error:
                if not isinstance(error, cluster.ACTOR_GONE) or time.monotonic() > until:
                    raise ClusterError(
                        f"{self._actor} cannot load what is committed: {cluster.unwrap(error)}"
                    ) from None
                await asyncio.sleep(PAUSE_S)
        self._caught_up = True

    async def carry_out(self, life: int, module: str, asked: Request, parcel: Parcel | None) -> Answer:
        """One request at a time for each module, so that one that is repeated finds what the first has done."""
        if life != self.life:
            return Answer("stranger")
        if isinstance(asked, Drain):
            return await self._drain(module, asked.version)
        async with self._turns.setdefault(module, asyncio.Lock()):
            try:
                match asked:
                    case Prepare():
                        return await self._prepare(module, asked.version, parcel)
                    case Commit():
                        return await self._commit(module, asked.version, parcel)
                    case Abort():
                        self._abort(module)
                        return Answer("aborted")
            except ChimeraError as error:
                return Answer("failed", str(error))
            except Exception as error:
                log.exception("%s of version %d of %s", type(asked).__name__, asked.version, module)
                return Answer("failed", f"{type(error).__name__}: {error}")

    def status(self) -> dict[str, Any]:
        return {"life": self.life, "runs": dict(self._running), "begun_anew": self._residents.begun_anew}

    def deployed(self, module: str) -> Parcel | None:
        return self._deployed.get(module)

    async def _prepare(self, module: str, version: int, parcel: Parcel | None) -> Answer:
        ready = self._ready.get(module)
        if version > self._running.get(module, 0) and (ready is None or ready.version != version):
            if parcel is None:
                raise ReloadError(f"version {version} of {module} came without its source")
            self._abort(module)
            trial = self._threads.run(
                partial(self._tried, module, version, parcel), name=f"try {module}", limit_s=TRY_S
            )
            try:
                await asyncio.wait((trial,), timeout=TRY_S)
            finally:
                if not trial.done():
                    trial.add_done_callback(self._come_late)
            if not trial.done():
                raise ReloadError(
                    f"it has been tried for {TRY_S:g} s and does not end: what waits outside of Python, as "
                    "time.sleep() and locks do, cannot be stopped"
                )
            self._ready[module] = trial.result()
        return Answer("ready")

    def _come_late(self, trial: asyncio.Future[_Ready]) -> None:
        """Nobody waits for it any more."""
        if not trial.cancelled() and trial.exception() is None:
            self._reloader.abort(trial.result().prepared)

    def _tried(self, module: str, version: int, parcel: Parcel) -> _Ready:
        """In a thread of its own: a version's code may take seconds, and raise what would end an event loop."""
        try:
            return self._try(module, version, parcel)
        except (Exception, OutOfTime):
            raise
        except BaseException as error:
            raise ReloadError(f"{module} raised {said(error)}") from error

    def _try(self, module: str, version: int, parcel: Parcel) -> _Ready:
        with suppress(Exception, SystemExit), time_limit(IMPORT_S, f"importing {module}"):
            importlib.import_module(module)  # what was deployed may be broken, or this module new
        old = leaving = None
        if module in sys.modules:
            leaving = self._reloader.module(module)
            old = _numbered(self._reloader.current(module), self._numbers.get(module, 1))
        path = str(getattr(leaving, "__file__", None) or parcel.path)  # a package's is where its modules are, here
        prepared = self._reloader.prepare(module, Source(module, parcel.code, path), version=version + 1)
        back_to = _numbered(prepared.version, parcel.back_to) if parcel.back_to else None
        change = Change(leaving, old, prepared.module, back_to or prepared.version, back_to, parcel.lossy)
        try:
            self._residents.try_out(change)
        except BaseException:
            self._reloader.abort(prepared)
            raise
        return _Ready(version, prepared, change)

    async def _commit(self, module: str, version: int, parcel: Parcel | None) -> Answer:
        if version > self._running.get(module, 0):
            await self._prepare(module, version, parcel)
            ready = self._ready.pop(module)
            await asyncio.to_thread(self._reloader.commit, ready.prepared)
            self._running[module] = version
            self._numbers[module] = ready.change.new.version
            self._garbage_bytes += ready.prepared.version.source_bytes + VERSION_BYTES
            await self._at_home(partial(self._switch, ready.change))
        return Answer("running", agents=self._residents.count(module))

    def _switch(self, change: Change) -> None:
        self._switches += 1
        self._residents.switch(change)

    def _abort(self, module: str) -> None:
        if ready := self._ready.pop(module, None):
            self._reloader.abort(ready.prepared)

    async def _drain(self, module: str, version: int) -> Answer:
        until = time.monotonic() + DRAIN_S
        while self._running.get(module, 0) == version and self._residents.due(module):
            if time.monotonic() > until:
                return Answer("busy")
            await asyncio.sleep(LOOK_S)
        if self._garbage_bytes > GARBAGE_BYTES:
            self._garbage_bytes = 0
            await asyncio.to_thread(gc.collect)
        return Answer("drained")

    async def _at_home(self, work: Callable[[], None]) -> None:
        """Do this in the loop in which agents come and go."""
        if self._home is None or self._home is asyncio.get_running_loop():
            work()
            return

        async def there() -> None:
            work()

        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(there(), self._home))


def _numbered(version: ModuleVersion, number: int) -> ModuleVersion:
    return version.model_copy(update={"version": number})
