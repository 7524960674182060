"""What `chimera reload` does: one reload, the way back, what runs, or a reload for each save below a folder."""

from __future__ import annotations

import asyncio
import importlib
import os
import sys
from collections.abc import AsyncIterable
from dataclasses import dataclass
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any, Protocol

from chimera.cli import render
from chimera.cli.arena import command
from chimera.cli.settings import read_settings
from chimera.client import SwarmCoordinator
from chimera.core.clock import Clock, SystemClock
from chimera.core.errors import ChimeraError, ClusterError, InputError, Overloaded, ReloadError
from chimera.reload.messages import Reloaded, ReloadStatus
from chimera.reload.source import read_source
from chimera.reload.watcher import Changed, CodeWatcher

DONE, REFUSED = 0, 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """The options of one `chimera reload`."""

    module: str | None = None
    source: Path | None = None
    roll_back: bool = False
    lossy: bool = False
    status: bool = False
    watch: Path | None = None
    address: str | None = None
    name: str | None = None
    as_json: bool = False

    def check(self) -> None:
        """Raises InputError where nothing is asked for, or two things at once."""
        ways = {"--roll-back": self.roll_back, "--status": self.status, "--watch": self.watch is not None}
        asked = [way for way, wanted in ways.items() if wanted]
        if len(asked) > 1:
            raise InputError(f"{' and '.join(asked)} cannot be had together: give one of them")
        if self.watch is not None and self.module is not None:
            raise InputError(f"--watch loads whatever is saved below its folder: leave {self.module} out")
        if self.module is None and not self.status and self.watch is None:
            raise InputError("nothing to do: name a MODULE, or give --status or --watch DIR")
        if self.source is not None and asked:
            raise InputError(f"--source is the code to load, and {asked[0]} loads none of it: leave one out")
        if self.lossy and not self.roll_back:
            raise InputError("--lossy is a way to roll back: give it with --roll-back")
        if self.watch is not None and not self.watch.is_dir():
            raise InputError(f"{self.watch} is no folder: --watch names one that holds Python files")


class Reloading(Protocol):
    """A swarm that takes new code."""

    async def reload(self, module: str, source: Path) -> Reloaded: ...


def execute(request: Request) -> int:
    """Do what is asked for, and return the exit code."""
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    return command.run(_execute(request), as_json=request.as_json)


async def _execute(request: Request) -> int:
    request.check()
    loads = request.module is not None and not (request.roll_back or request.status)
    file = file_of(request.module, request.source) if loads and request.module else None
    async with SwarmCoordinator.attach(request.name, read_settings(address=request.address)) as swarm:
        command.cancel_on_sigterm()  # again: Ray takes it for itself as it starts
        if request.watch is not None:
            return await _watch(swarm, request.watch, as_json=request.as_json)
        if request.status:
            return _show(await swarm.reload_status(), request.module, as_json=request.as_json)
        assert request.module is not None
        try:
            with render.waiting(f"loading {request.module}", shown=not request.as_json):
                if request.roll_back:
                    done = await swarm.roll_back(request.module, lossy=request.lossy)
                else:
                    done = await swarm.reload(request.module, file)
        except (ReloadError, Overloaded) as error:
            render.error(error, as_json=request.as_json)
            return REFUSED
    _tell(done, done.prepare_ms + done.commit_ms, as_json=request.as_json)
    return DONE


def file_of(module: str, given: Path | None = None) -> Path:
    """The file with a module's source, `given` or found. Raises InputError where it cannot be read."""
    found = find_file(module)
    if given is not None and found is not None and found.name == "__init__.py" and given.resolve() != found.resolve():
        raise InputError(f"{module} is a package, whose modules are looked for beside its file: change {found} itself")
    if module.endswith(".py"):
        raise InputError(f"{module!a:.100} is a file: name the module instead, as `import` does, such as shop.till")
    try:
        return Path(read_source(module, given or found).path)
    except ReloadError as error:
        lost = given is None and found is None and all(map(str.isidentifier, module.split(".")))
        hint = f" with --source FILE, or go where it is imported from (this is {os.getcwd()})" if lost else ""
        raise InputError(f"{error}{hint}") from error


def find_file(module: str) -> Path | None:
    """Where `import module` would find it, without running any of its packages; None where only running them tells."""
    places = list(sys.path)
    found = None
    for part in module.split("."):  # by its last name: with a whole one a package would have to be imported already
        found = PathFinder.find_spec(part, places)
        if found is None:
            return None
        places = list(found.submodule_search_locations or ())
    return Path(found.origin) if found and found.has_location and found.origin else None


def _tell(done: Reloaded, ms: float, *, as_json: bool, of: str = "", **more: Any) -> None:
    if as_json:
        render.line(render.to_line(done.model_dump(mode="json") | more))
        return
    parts = f"  version {done.version} in {_many(done.actors, 'cell')}"
    if done.agents is not None:
        parts += f", {_many(done.agents, 'agent')}"
    if not done.changed:
        render.say((done.module, "green"), parts, ("  (it was in use already)", "dim"))
        return
    render.say((done.module, "green"), parts, (f"  ({ms:.1f} ms{of})", "dim"))
    if done.agents == 0:
        render.note(f"no agent's policy is of {done.module}: what others have taken from it by `from` stays as it was")
    if not done.settled:
        render.note("some cells have still to take it up: they are told until they have; --status counts them")


def _many(count: int, what: str) -> str:
    return f"{count:,} {what}" + ("" if count == 1 else "s")


def _show(status: ReloadStatus, module: str | None, *, as_json: bool) -> int:
    modules = status.modules
    if module is not None:
        if module not in modules:
            raise InputError(f"{module} has not been reloaded: every cell runs it as it was deployed")
        modules = {module: modules[module]}
    if as_json:
        shown = status.model_copy(update={"modules": modules})
        render.line(render.to_line(shown.model_dump(mode="json"), indent=2))
        return DONE
    if modules:
        rows = [
            (name, f"{now.version}", f"{now.actors - now.behind}/{now.actors}", f"{now.kept}", now.digest[:12])
            for name, now in modules.items()
        ]
        command.table(("module", "version", "cells", "kept", "SHA-256"), rows)
    for name, now in modules.items():
        if now.last_failure:
            render.say((name, "yellow"), f"  refused last: {command.one_line(now.last_failure)}")
    counted = f"{status.reloaded:,} reloaded, {status.rolled_back:,} rolled back, {status.failed:,} refused"
    render.note(counted if modules else "nothing has been reloaded: every cell runs what was deployed")
    return DONE


async def _watch(swarm: Reloading, folder: Path, *, as_json: bool) -> int:
    """Until Ctrl-C or SIGTERM, which cancel it. A reload that is on its way then is ended by the swarm, either way."""
    this = asyncio.current_task()
    assert this is not None
    saves = Saves(swarm, clock=SystemClock(), as_json=as_json)
    watcher = CodeWatcher(folder)
    saying = asyncio.create_task(_say_when_ready(watcher))
    try:
        await saves.follow(watcher.changes())
    except asyncio.CancelledError:
        this.uncancel()
    finally:
        saying.cancel()
    left = f"; {saves.under_way} was on its way: see --status" if saves.under_way else ""
    render.note(f"ended: {saves.reloaded:,} reloaded, {saves.failed:,} failed, {saves.skipped:,} skipped{left}")
    return DONE


async def _say_when_ready(watcher: CodeWatcher) -> None:
    await watcher.ready.wait()
    left_out = f"; {watcher.left_out:,} files are too many, and are left out" if watcher.left_out else ""
    render.note(f"watching {watcher.folder}: what is saved is loaded, Ctrl-C ends{left_out}")


class Saves:
    """Each save below a folder becomes a reload, one after the other; what goes wrong is told, and it goes on."""

    def __init__(self, swarm: Reloading, *, clock: Clock, as_json: bool) -> None:
        self.reloaded = self.failed = self.skipped = 0
        self.under_way = ""
        self._swarm = swarm
        self._clock = clock
        self._as_json = as_json

    async def follow(self, sets: AsyncIterable[frozenset[Changed]]) -> None:
        """Until there are no more. Raises ClusterError when the swarm is gone, and what the sets raise."""
        since = self._clock.now()
        async for changed in sets:
            seen = self._clock.now()
            importlib.invalidate_caches()
            for each in sorted(changed, key=lambda each: (each.module, each.path)):
                await self.take(each, since=since, seen=seen)
            since = seen

    async def take(self, changed: Changed, *, since: float, seen: float) -> None:
        """One file whose change was `seen`, and had not happened at `since`; both in seconds since the epoch."""
        module, path = changed.module, changed.path
        if changed.digest is None:
            self._skip(changed, "its file is gone: the version in use stays")
        elif not _leads_to(module, path):
            self._skip(changed, f"`import {module}` does not lead to {path} from here")
        else:
            saved = _saved_at(path, since, seen, self._clock.now())
            self.under_way = module
            try:
                done = await self._swarm.reload(module, path)
            except ClusterError:
                raise
            except ChimeraError as error:
                self.failed += 1
                self._complain(changed, error)
            else:
                self.reloaded += done.changed
                ms = round(1e3 * (self._clock.now() - saved), 3)
                _tell(done, ms, as_json=self._as_json, of=" from the save", file=str(path), save_to_committed_ms=ms)
            self.under_way = ""

    def _skip(self, changed: Changed, why: str) -> None:
        self.skipped += 1
        if self._as_json:
            render.line(render.to_line({"module": changed.module, "file": str(changed.path), "skipped": why}))
        else:
            render.say((changed.module, "yellow"), f"  skipped: {command.one_line(why)}")

    def _complain(self, changed: Changed, error: ChimeraError) -> None:
        if self._as_json:
            told = {"kind": type(error).__name__, "message": str(error)}
            render.line(render.to_line({"module": changed.module, "file": str(changed.path), "error": told}))
        else:
            render.say((changed.module, "red"), f"  {command.one_line(str(error))}")


def _leads_to(module: str, path: Path) -> bool:
    found = find_file(module)
    try:
        return found is not None and found.samefile(path)
    except OSError:  # it is gone again
        return False


def _saved_at(path: Path, since: float, seen: float, now: float) -> float:
    """When it was written. A copy may keep the time of what it is a copy of: then what counts is when it was seen."""
    try:
        written = path.stat().st_mtime
    except OSError:
        return seen
    return written if since <= written <= now else seen
