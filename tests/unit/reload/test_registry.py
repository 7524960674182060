"""Tools in several versions: leases pin, drains wait, and a version that fails gives way."""

from __future__ import annotations

import asyncio
import threading

import pytest

from chimera.core.clock import ManualClock
from chimera.core.errors import InputError, ReloadError
from chimera.reload.registry import VersionedToolRegistry


def made(**options: int | None) -> VersionedToolRegistry:
    return VersionedToolRegistry(clock=ManualClock(7.0), **options)  # type: ignore[arg-type]


def test_a_lease_keeps_its_version_while_others_get_the_next() -> None:
    registry = made()
    registry.register("sum", lambda: 1)
    with registry.lease("sum") as old:
        assert registry.register("sum", lambda: 2, digest="d").version == 2
        with registry.lease("sum") as new:
            assert (old.call(), new.call(), registry.leases("sum", 1)) == (1, 2, 1)
    assert registry.leases("sum", 1) == 0 and registry.roll_back("sum").version == 1
    with registry.lease("sum", 2) as chosen:
        assert chosen.call() == 2
    with pytest.raises(ReloadError, match="not held"):
        _ = chosen.call


def test_unknown_names_get_suggestions() -> None:
    registry = made()
    registry.register("summarise", print)
    with pytest.raises(InputError, match="did you mean summarise"), registry.lease("sumarise"):
        pass
    with pytest.raises(InputError, match="no version 9: there is 1"), registry.lease("summarise", 9):
        pass
    with pytest.raises(InputError, match="cannot be called"):
        registry.register("x", 3)  # type: ignore[arg-type]


async def test_drain_waits_for_every_lease_and_no_longer_than_told() -> None:
    registry = made()
    registry.register("sum", lambda: 1)
    release = threading.Event()
    taken = threading.Barrier(3)

    def work() -> None:
        with registry.lease("sum", 1):
            taken.wait()
            release.wait(20)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    await asyncio.to_thread(taken.wait)
    registry.register("sum", lambda: 2)
    assert await registry.drain("sum", 1, 0.01) == 2
    with pytest.raises(ReloadError, match="in use"):
        registry.remove("sum", 1)
    waiting = asyncio.create_task(registry.drain("sum", 1, 20.0))
    await asyncio.sleep(0)
    assert not waiting.done()
    release.set()
    assert await waiting == 0
    registry.remove("sum", 1)
    assert await registry.drain("sum", 1, 1.0) == 0
    for thread in threads:
        thread.join()


async def test_a_cancelled_call_gives_its_lease_back() -> None:
    registry = made()
    registry.register("sum", lambda: 1)

    async def call() -> None:
        async with registry.lease("sum"):
            await asyncio.sleep(20)

    task = asyncio.create_task(call())
    await asyncio.sleep(0)
    assert registry.leases("sum", 1) == 1
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert registry.leases("sum", 1) == 0


def test_failures_in_a_row_fall_back_to_the_last_good_one() -> None:
    told = []
    registry = VersionedToolRegistry(
        clock=ManualClock(), failures=3, fell_back=lambda bad, good: told.append((bad.version, good.version))
    )
    registry.register("sum", lambda: 1)
    with registry.lease("sum") as lease:
        lease.succeeded()
    registry.register("sum", lambda: 2)
    registry.register("sum", lambda: 3)
    for failed in (True, True, False, True, True):
        with registry.lease("sum") as lease:
            lease.failed() if failed else lease.succeeded()
    assert registry.active("sum").version == 3
    with registry.lease("sum") as lease:
        lease.failed()
    assert registry.active("sum").version == 1 and told == [(3, 1)]
    for _ in range(5):
        with registry.lease("sum") as lease:
            lease.failed()
    assert registry.active("sum").version == 1, "there is no good one left, so it stays"
    with pytest.raises(ReloadError, match="no version before"):
        registry.roll_back("sum")


def test_failures_of_a_version_that_is_not_active_change_nothing() -> None:
    registry = made(failures=1)
    registry.register("sum", lambda: 1)
    with registry.lease("sum") as old:
        registry.register("sum", lambda: 2)
        old.failed()
    assert registry.active("sum").version == 2


def test_deprecated_versions_are_only_for_who_asks_for_them() -> None:
    registry = made(failures=1)
    registry.register("sum", lambda: 1)
    with registry.lease("sum") as lease:
        lease.succeeded()
    registry.register("sum", lambda: 2)
    assert registry.deprecate("sum", 1).deprecated
    with registry.lease("sum", 1) as lease:
        assert lease.call() == 1
    with registry.lease("sum") as lease:
        lease.failed()
    assert registry.active("sum").version == 2
    with pytest.raises(InputError, match="deprecated"):
        registry.activate("sum", 1)
    with pytest.raises(InputError, match="is active"):
        registry.deprecate("sum", 2)


def test_versions_and_tools_are_bounded() -> None:
    registry = made(keep=3, max_tools=1)
    for value in range(6):
        registry.register("sum", lambda value=value: value)
    assert [one.version for one in registry.versions("sum")] == [4, 5, 6]
    with registry.lease("sum", 4), pytest.raises(ReloadError, match="drain one"):
        registry.register("sum", print)
    with pytest.raises(ReloadError, match="1 tools"):
        registry.register("other", print)
    with pytest.raises(InputError, match="not above"):
        registry.register("sum", print, 6)
