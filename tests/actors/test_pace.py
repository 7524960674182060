"""What follows closely goes together."""

from __future__ import annotations

import asyncio

from chimera.actors.courier import Courier
from chimera.actors.outbox import Outbox


async def test_the_first_goes_at_once_and_what_follows_closely_goes_together() -> None:
    batches: list[list[int]] = []

    async def send(batch: list[int]) -> None:
        batches.append(batch)

    courier: Courier[int] = Courier(send)
    for n in range(50):
        courier.put([(n, 4)])
        await asyncio.sleep(0)
    while sum(map(len, batches)) < 50:  # noqa: ASYNC110
        await asyncio.sleep(0.001)
    assert batches[0] == [0] and [n for batch in batches for n in batch] == list(range(50))
    assert len(batches) < 25


async def test_reports_that_follow_closely_are_collected_together() -> None:
    outbox: Outbox[int] = Outbox()
    outbox.put([0])
    first = await outbox.collect(after=0, wait_s=1.0)
    assert first.reports == (0,)

    async def later() -> None:
        for n in range(1, 21):
            outbox.put([n])
            await asyncio.sleep(0)

    writer = asyncio.create_task(later())
    second = await outbox.collect(after=first.last, wait_s=1.0)
    await writer
    assert len(second.reports) > 1
