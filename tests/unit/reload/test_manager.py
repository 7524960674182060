"""Files to versions to tools, in one process, and under load."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import importlib
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from chimera.core.clock import ManualClock, SystemClock
from chimera.core.errors import InputError, ReloadError
from chimera.reload.held import Held
from chimera.reload.manager import HotReloadManager, ReloadEvent
from chimera.reload.registry import VersionedToolRegistry
from chimera.reload.watcher import CodeWatcher

LONG_S = 20.0


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "shop.py").write_text("def price(): return 1\n")
    importlib.import_module("shop")
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def made(**options: Any) -> HotReloadManager:
    return HotReloadManager(clock=ManualClock(), **options)


async def test_a_reload_brings_its_tools_and_a_roll_back_takes_them_back(folder: Path) -> None:
    manager = made()
    manager.expose("price", "shop", "price")
    with manager.registry.lease("price") as old:
        version = await manager.reload("shop", "def price(): return 2\n")
        with manager.registry.lease("price") as new:
            assert (version.version, old.call(), new.call()) == (2, 1, 2)
    assert (await manager.reload("shop", "def price(): return 2\n")).version == 2
    assert (await manager.roll_back("shop")).version == 1
    with manager.registry.lease("price") as lease:
        assert lease.call() == 1
    stats = manager.stats()
    assert (stats.reloaded, stats.unchanged, stats.rolled_back, stats.failed) == (1, 1, 1, 0)
    assert stats.modules == {"shop": 1}
    assert [event.kind for event in manager.events()] == ["reloaded", "unchanged", "rolled_back"]


async def test_a_version_without_its_tool_is_refused_and_nothing_changes(folder: Path) -> None:
    told: list[ReloadEvent] = []
    manager = made(listen=told.append)
    manager.expose("price", "shop", "price")
    with pytest.raises(ReloadError, match="no function 'price'"):
        await manager.reload("shop", "def cost(): return 2\n")
    with pytest.raises(InputError, match="no function"):
        manager.expose("x", "shop", "nothing")
    assert [version.version for version in manager.registry.versions("price")] == [1]
    assert manager.stats().failed == 1 and "price" in manager.stats().last_failure
    assert [(event.kind, event.version) for event in told] == [("failed", 1)]


async def test_tools_are_taken_back_when_the_commit_fails(folder: Path) -> None:
    manager = made()
    manager.expose("price", "shop", "price")
    held = Held({"n": 1})
    manager.reloader.hold("shop", held)
    once = (
        "def price(): return 2\ncalls = []\ndef migrate(state, old):\n    calls.append(1)\n    assert len(calls) < 2\n"
    )
    with pytest.raises(ReloadError, match="AssertionError"):
        await manager.reload("shop", once)
    assert [version.version for version in manager.registry.versions("price")] == [1]
    assert manager.registry.active("price").version == 1 and held.state == {"n": 1}


async def test_only_signed_source_is_loaded(folder: Path) -> None:
    def sign(source: bytes) -> bytes:
        return hmac.digest(b"key", source, hashlib.sha256)

    manager = made(verify=lambda module, source, signature: hmac.compare_digest(sign(source), signature))
    source = b"def price(): return 2\n"
    for signature in (b"", b"x" * 32, sign(source + b"#")):
        with pytest.raises(ReloadError, match="not signed"):
            await manager.reload("shop", source, signature=signature)
    assert importlib.import_module("shop").price() == 1
    assert (await manager.reload("shop", source, signature=sign(source))).version == 2


async def test_watch_reloads_what_changes_and_goes_on_after_failures(folder: Path) -> None:
    (folder / "other.py").write_text("")
    events: asyncio.Queue[ReloadEvent] = asyncio.Queue()
    manager = made(listen=events.put_nowait)
    watcher = CodeWatcher(folder)
    task = asyncio.create_task(manager.watch(folder, watcher=watcher))
    await asyncio.wait_for(watcher.ready.wait(), LONG_S)

    async def until(kind: str, module: str = "shop") -> None:
        while (event := await asyncio.wait_for(events.get(), LONG_S)).kind != kind or event.module != module:
            pass

    (folder / "shop.py").write_text("def price(): return (\n")
    await until("failed")
    assert importlib.import_module("shop").price() == 1
    (folder / "shop.py").write_text("def price(): return 3\n")
    while importlib.import_module("shop").price() != 3:
        await until("reloaded")
    (folder / "other.py").write_text("x = 1\n")
    await until("not_loaded", "other")
    (folder / "shop.py").unlink()
    await until("gone")
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    assert importlib.import_module("shop").price() == 3


VERSION = """
VERSION = {version}

def migrate(state, old_version):
    assert state["version"] < VERSION
    return {{**state, "version": VERSION, "swaps": state["swaps"] + 1}}

def add(state):
    assert state["version"] == VERSION, "state and code are of one version"
    state["n"] += 1

def echo(value):
    return value, VERSION
"""


async def test_ten_thousand_calls_over_threads_and_tasks_with_fifty_swaps(folder: Path) -> None:
    clock = SystemClock()
    manager = HotReloadManager(clock=clock, registry=VersionedToolRegistry(clock=clock, keep=64))
    await manager.reload("shop", VERSION.format(version=2))
    manager.expose("echo", "shop", "echo")
    held = [Held({"version": 2, "n": 0, "swaps": 0}) for _ in range(8)]
    for holder in held:
        manager.reloader.hold("shop", holder)
    seen: set[int] = set()
    together = threading.Barrier(9)
    """Each swap runs beside 25 calls of each caller."""

    def call(at: int) -> None:
        with held[at % 8] as state:
            manager.reloader.module("shop").add(state)
        with manager.registry.lease("echo") as lease:
            value, version = lease.call(at)
            assert value == at and lease.call(at) == (at, version)
        seen.add(version)

    def in_a_thread(start: int) -> None:
        for at in range(start, start + 1_250):
            if at % 25 == 0:
                together.wait(LONG_S)
            call(at)

    async def in_a_task(start: int) -> None:
        for at in range(start, start + 1_250):
            if at % 25 == 0:
                await asyncio.to_thread(together.wait, LONG_S)
            async with manager.registry.lease("echo") as lease:
                before = lease.call(0)
                await asyncio.sleep(0)
                assert lease.call(0) == before
            call(at)

    async def swap() -> None:
        for version in range(3, 53):
            await asyncio.to_thread(together.wait, LONG_S)
            await manager.reload("shop", VERSION.format(version=version))

    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(4) as threads:
        calls: list[Any] = [loop.run_in_executor(threads, in_a_thread, 1_250 * at) for at in range(4)]
        calls += [asyncio.ensure_future(in_a_task(1_250 * at)) for at in range(4, 8)]
        await asyncio.gather(swap(), *calls)
    assert sum(holder.state["n"] for holder in held) == 10_000
    assert [holder.state for holder in held] == [{"version": 52, "n": 1_250, "swaps": 50}] * 8
    assert manager.stats().failed == 0 and manager.stats().reloaded == 51
    assert len(seen) >= 25, "swaps happened between calls"
    names = [manager.registry.leases("echo", one.version) for one in manager.registry.versions("echo")]
    assert sum(names) == 0
