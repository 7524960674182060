"""Tools and policies of which several versions live at once: who is in a call keeps the version that it began with.

A call takes a lease, and the lease pins a version until the call ends. A new version is active for the next call, the
one before stays warm, and a version is taken down only when nobody has it any more.
"""

from __future__ import annotations

import asyncio
import difflib
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from chimera.core.clock import Clock
from chimera.core.errors import InputError, ReloadError
from chimera.reload.versions import ToolVersion

Call = Callable[..., Any]

FellBack = Callable[[ToolVersion, ToolVersion], None]
"""Told the version that failed, and the one that is active instead."""

KEEP = 4

MAX_TOOLS = 1_024


@dataclass(eq=False)
class _Kept:
    version: ToolVersion
    call: Call
    leases: int = 0
    failed: int = 0
    """In a row."""
    good: bool = False
    """It has succeeded at least once, and has not failed out of use since."""
    when_free: list[Callable[[], None]] = field(default_factory=list)
    """Called whenever the last lease is given back, without the lock."""
    once_free: list[Callable[[], None]] = field(default_factory=list)


@dataclass(eq=False)
class _Tool:
    versions: dict[int, _Kept] = field(default_factory=dict)
    active: int = 0
    before: int = 0
    highest: int = 0


class Lease:
    """`with registry.lease(name) as lease: lease.call(...)`, or `async with`. `call` and `version` stay what they are.

    Say `failed()` or `succeeded()` where the breaker should count the call; saying nothing counts nothing.
    """

    __slots__ = ("_kept", "_name", "_registry", "_wanted")

    def __init__(self, registry: VersionedToolRegistry, name: str, wanted: int | None) -> None:
        self._registry = registry
        self._name = name
        self._wanted = wanted
        self._kept: _Kept | None = None

    @property
    def call(self) -> Call:
        return self._held().call

    @property
    def version(self) -> ToolVersion:
        return self._held().version

    def succeeded(self) -> None:
        self._registry._count(self._name, self._held(), failed=False)

    def failed(self) -> None:
        self._registry._count(self._name, self._held(), failed=True)

    def _held(self) -> _Kept:
        if self._kept is None:
            raise ReloadError(f"the lease on {self._name} is not held: use it within its `with` block")
        return self._kept

    def __enter__(self) -> Lease:
        if self._kept is not None:
            raise ReloadError(f"the lease on {self._name} is held already: take another one")
        self._kept = self._registry._pin(self._name, self._wanted)
        return self

    def __exit__(self, *exc: object) -> None:
        kept, self._kept = self._held(), None
        self._registry._unpin(kept)

    async def __aenter__(self) -> Lease:
        return self.__enter__()

    async def __aexit__(self, *exc: object) -> None:
        self.__exit__()


class VersionedToolRegistry:
    """Safe to use from any thread and any event loop.

    `keep` versions of a tool are kept. After `failures` failed calls in a row the active version gives way to the last
    good one, which is the newest that has succeeded, or else the one that was active before; None switches that off.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        keep: int = KEEP,
        max_tools: int = MAX_TOOLS,
        failures: int | None = 3,
        fell_back: FellBack | None = None,
    ) -> None:
        self._clock = clock
        self._keep = max(2, keep)
        self._max_tools = max_tools
        self._failures = failures
        self._fell_back = fell_back
        self._lock = threading.RLock()
        self._tools: dict[str, _Tool] = {}

    def register(
        self, name: str, call: Call, version: int | None = None, *, digest: str = "", activate: bool = True
    ) -> ToolVersion:
        """Add a version, whose number is above all that the tool has had; None means the next.

        The oldest version that is neither active, nor the one before, nor leased makes room. Raises InputError for what
        cannot be called and for a number that has been used, ReloadError if there is no room.
        """
        if not callable(call):
            raise InputError(f"tool {name!a:.100}: {call!r:.100} cannot be called")
        with self._lock:
            tool = self._tools.get(name, _Tool())
            number = tool.highest + 1 if version is None else version
            if number <= tool.highest:
                raise InputError(f"tool {name} has had version {tool.highest}: {number} is not above it")
            made = ToolVersion(name=name, version=number, digest=digest, added_at=self._clock.now())
            if name not in self._tools and len(self._tools) >= self._max_tools:
                raise ReloadError(f"{self._max_tools} tools are registered: make the registry with more `max_tools`")
            if len(tool.versions) >= self._keep:
                self._make_room(name, tool)
            self._tools[name] = tool
            tool.versions[number] = _Kept(made, call)
            tool.highest = number
            if activate or not tool.active:
                self._switch(tool, number)
            return made

    def _make_room(self, name: str, tool: _Tool) -> None:
        for number, kept in sorted(tool.versions.items()):
            if number not in (tool.active, tool.before) and not kept.leases:
                del tool.versions[number]
                return
        raise ReloadError(f"all {self._keep} versions of tool {name} are in use: drain one first")

    def _switch(self, tool: _Tool, number: int) -> None:
        if number != tool.active:
            tool.before, tool.active = tool.active, number
            tool.versions[number].failed = 0

    def activate(self, name: str, version: int) -> ToolVersion:
        """The next leases are on `version`. Raises InputError for one that is deprecated or not there."""
        with self._lock:
            kept = self._kept(name, version)
            if kept.version.deprecated:
                raise InputError(f"version {version} of tool {name} is deprecated: register it anew")
            self._switch(self._tool(name), version)
            return kept.version

    def roll_back(self, name: str) -> ToolVersion:
        """The version that was active before is active again. Raises ReloadError if there is none."""
        with self._lock:
            tool = self._tool(name)
            if tool.before not in tool.versions:
                raise ReloadError(f"tool {name} has no version before the active one")
            return self.activate(name, tool.before)

    def lease(self, name: str, version: int | None = None) -> Lease:
        """A context manager, sync and async, which pins the active version, or `version`, while it is entered.

        Entering raises InputError for an unknown tool or version.
        """
        return Lease(self, name, version)

    def deprecate(self, name: str, version: int) -> ToolVersion:
        """It is never chosen by itself again. Raises InputError for the active one: activate another first."""
        with self._lock:
            kept, tool = self._kept(name, version), self._tool(name)
            if version == tool.active:
                raise InputError(f"version {version} of tool {name} is active: activate another one first")
            kept.version = kept.version.model_copy(update={"deprecated": True})
            if tool.before == version:
                tool.before = 0
            return kept.version

    async def drain(self, name: str, version: int, limit_s: float) -> int:
        """Wait until nobody has a lease on `version`, `limit_s` at most. Gives the leases that are left: 0 is drained.

        A version that has been removed is drained. Raises InputError for an unknown tool.
        """
        freed = asyncio.Event()
        waiter = partial(_wake, asyncio.get_running_loop(), freed)
        with self._lock:
            kept = self._tool(name).versions.get(version)
            if kept is None or not kept.leases:
                return 0
            kept.when_free.append(waiter)
        try:
            async with asyncio.timeout(limit_s):
                while kept.leases:
                    await freed.wait()
                    freed.clear()
        except TimeoutError:
            pass
        finally:
            with self._lock:
                kept.when_free.remove(waiter)
        return kept.leases

    def when_free(self, name: str, version: int, do: Callable[[], None]) -> None:
        """`do` is called once, when nobody has a lease on `version`: now, or by whoever gives the last one back."""
        with self._lock:
            kept = self._tool(name).versions.get(version)
            if kept is not None and kept.leases:
                kept.once_free.append(do)
                return
        do()

    def remove(self, name: str, version: int) -> None:
        """Take a version down. Raises ReloadError if it is active or leased."""
        with self._lock:
            kept, tool = self._kept(name, version), self._tool(name)
            if version == tool.active or kept.leases:
                raise ReloadError(f"version {version} of tool {name} is in use: activate another one and drain it")
            del tool.versions[version]

    def active(self, name: str) -> ToolVersion:
        with self._lock:
            return self._kept(name, None).version

    def versions(self, name: str) -> tuple[ToolVersion, ...]:
        """Those that are kept, oldest first."""
        with self._lock:
            return tuple(kept.version for _, kept in sorted(self._tool(name).versions.items()))

    def names(self) -> tuple[str, ...]:
        with self._lock:
            return tuple(sorted(self._tools))

    def leases(self, name: str, version: int) -> int:
        with self._lock:
            return self._kept(name, version).leases

    def _tool(self, name: str) -> _Tool:
        tool = self._tools.get(name)
        if tool is None:
            close = difflib.get_close_matches(name[:128], list(self._tools), n=3)
            raise InputError(
                f"no tool is called {name!a:.100}" + (f": did you mean {' or '.join(close)}?" if close else "")
            )
        return tool

    def _kept(self, name: str, version: int | None) -> _Kept:
        tool = self._tool(name)
        number = tool.active if version is None else version
        if number not in tool.versions:
            there = ", ".join(map(str, sorted(tool.versions)))
            raise InputError(f"tool {name} has no version {number}: there is {there}")
        return tool.versions[number]

    def _pin(self, name: str, version: int | None) -> _Kept:
        with self._lock:
            kept = self._kept(name, version)
            kept.leases += 1
            return kept

    def _unpin(self, kept: _Kept) -> None:
        with self._lock:
            kept.leases -= 1
            waiters: list[Callable[[], None]] = []
            if not kept.leases:
                waiters = kept.when_free + kept.once_free
                kept.once_free = []
        for waiter in waiters:
            waiter()

    def _count(self, name: str, kept: _Kept, *, failed: bool) -> None:
        with self._lock:
            kept.failed = kept.failed + 1 if failed else 0
            kept.good = kept.good or not failed
            tool = self._tools[name]
            number = kept.version.version
            if self._failures is None or kept.failed < self._failures or number != tool.active:
                return
            kept.good = False
            others = [
                other
                for other in tool.versions.values()
                if other is not kept and not other.version.deprecated and (other.good or _number(other) == tool.before)
            ]
            if not others:
                return
            last_good = max(others, key=lambda other: (other.good, _number(other)))
            self._switch(tool, _number(last_good))
            tool.before = 0 if tool.before == number else tool.before
        if self._fell_back is not None:
            self._fell_back(kept.version, last_good.version)


def _wake(loop: asyncio.AbstractEventLoop, freed: asyncio.Event) -> None:
    with suppress(RuntimeError):  # that loop has ended, and nobody waits in it
        loop.call_soon_threadsafe(freed.set)


def _number(kept: _Kept) -> int:
    return kept.version.version
