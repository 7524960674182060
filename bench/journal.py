"""How many durable appends the SQLite journal takes: one after another, and from many missions at once.

    python bench/journal.py [--events 2000] [--missions 100]

The second is faster by what group commit saves; the ratio is what counts, since disks differ.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from pathlib import Path

from chimera.core.events import Event, EventKind
from chimera.storage.journal import open_journal


def event(mission: int, seq: int) -> Event:
    kind = EventKind.REPLY_ACCEPTED
    return Event(mission_id=f"m{mission}", seq=seq, kind=kind, at_s=0.0, task_id="t", data={"value": "x" * 200})


async def measure(path: Path, *, missions: int, events: int) -> float:
    """Appends a second when `missions` append `events` in all, each waiting for its own to be durable."""
    journal = open_journal(f"sqlite:///{path}")

    async def run(mission: int) -> None:
        for seq in range(1, events // missions + 1):
            await journal.append([event(mission, seq)])

    started = time.monotonic()
    await asyncio.gather(*(run(mission) for mission in range(missions)))
    elapsed_s = time.monotonic() - started
    await journal.close()
    return events / elapsed_s


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=2_000)
    parser.add_argument("--missions", type=int, default=100)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        alone = asyncio.run(measure(Path(folder, "alone.db"), missions=1, events=options.events))
        many = asyncio.run(measure(Path(folder, "many.db"), missions=options.missions, events=options.events))
    print(f"one mission        {alone:8.0f} durable appends/s")
    print(f"{options.missions} missions       {many:8.0f} durable appends/s")
    print(f"ratio              {many / alone:8.1f}")


if __name__ == "__main__":
    main()
