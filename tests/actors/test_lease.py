from __future__ import annotations

import asyncio

from chimera.actors.lease import Lease
from tests.actors.in_process import until


async def test_nobody_asking_ends_it_once() -> None:
    ended: list[float] = []
    now = asyncio.get_running_loop().time
    lease = Lease(0.1, lambda: ended.append(now()))
    await asyncio.sleep(0.15)
    assert not ended, "it begins with its first renewal"
    began = now()
    lease.renew()
    await until(lambda: ended)
    assert ended[0] - began >= 0.1
    lease.renew()
    await asyncio.sleep(0.15)
    assert len(ended) == 1


async def test_as_long_as_somebody_asks_it_goes_on() -> None:
    ended: list[float] = []
    now = asyncio.get_running_loop().time
    lease = Lease(0.3, lambda: ended.append(now()))
    for _ in range(5):
        if not ended:
            lease.renew()
            last = now()
        await asyncio.sleep(0.1)
    await until(lambda: ended)
    assert ended[0] - last >= 0.3


async def test_who_is_long_at_it_may_be_silent_until_it_is_over() -> None:
    ended: list[float] = []
    now = asyncio.get_running_loop().time
    began = now()
    lease = Lease(0.05, lambda: ended.append(now()))
    lease.renew(at_least_s=0.4)
    await until(lambda: ended)
    assert ended[0] - began >= 0.4
    lease = Lease(0.05, lambda: ended.append(now()))
    lease.renew(at_least_s=3_600.0)
    lease.renew()
    await until(lambda: len(ended) == 2)
