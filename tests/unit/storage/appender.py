"""A child process for the durability test: appends batches for ever, and says so after each append has returned.

Arguments: the journal's URL and a seed. Each line it prints is `mission first_seq size`.
"""

from __future__ import annotations

import asyncio
import os
import sys

from chimera.core.events import Event, EventKind
from chimera.core.rng import rng
from chimera.storage.journal import open_journal

MISSIONS = 4
MAX_BATCHES = 100_000


async def append_for_ever(url: str, seed: int) -> None:
    journal = open_journal(url)

    async def fill(mission: str) -> None:
        chance, seq = rng(seed, mission), 1
        for _ in range(MAX_BATCHES):
            size = chance.randint(1, 6)
            batch: list[Event] = [
                Event(
                    mission_id=mission,
                    seq=n,
                    kind=EventKind.REPLY_ACCEPTED,
                    at_s=1.0,
                    data={"first": seq, "size": size},
                )
                for n in range(seq, seq + size)
            ]
            await journal.append(batch)
            os.write(1, f"{mission} {seq} {size}\n".encode())  # one write: a kill cannot cut it in two
            seq += size

    await asyncio.gather(*(fill(f"m{n}") for n in range(MISSIONS)))


if __name__ == "__main__":
    asyncio.run(append_for_ever(sys.argv[1], int(sys.argv[2])))
