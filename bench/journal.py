"""What a journal takes: durable appends, one after another and from many missions at once; and CPU time an event.

    python bench/journal.py [--url URL] [--events 2000] [--missions 100]

URL is what CHIMERA_JOURNAL_URL may be; the default is a SQLite file that is deleted afterwards. What is written to
another store stays there, in missions of new names. Disks differ: the ratios are what counts.
"""

from __future__ import annotations

import argparse
import asyncio
import secrets
import statistics
import tempfile
import time
from pathlib import Path

from pydantic import JsonValue

from chimera.core.events import Event, EventKind
from chimera.storage.journal import Journal, encode_event, open_journal

ROUNDS = 30
EVENTS_EACH = 3
"""Events of each mission in one large append."""


def event(mission: str, seq: int) -> Event:
    reply: dict[str, JsonValue] = {"value": {"answer": "forty-two " * 5, "n": seq}, "confidence": 0.9}
    data: dict[str, JsonValue] = {"replica": 0, "agent": "worker-17", "reply": reply, "elapsed_s": 0.0123}
    kind = EventKind.REPLY_ACCEPTED
    return Event(mission_id=mission, seq=seq, kind=kind, at_s=0.0, task_id="t", swarm="swarm-bench", data=data)


def names(count: int) -> list[str]:
    return [f"bench-{secrets.token_hex(6)}" for _ in range(count)]


async def appends_per_s(journal: Journal, *, missions: int, events: int) -> float:
    """Appends a second when `missions` append `events` in all, each waiting for its own to be durable."""

    async def run(mission: str) -> None:
        for seq in range(1, events // missions + 1):
            await journal.append([event(mission, seq)])

    started = time.monotonic()
    await asyncio.gather(*(run(mission) for mission in names(missions)))
    return events / (time.monotonic() - started)


async def cpu_us_per_event(journal: Journal, *, missions: int) -> tuple[float, float]:
    """The median CPU time of this process for an event: for its JSON alone, and for all of a large append."""
    encoding, appending = [], []
    for _ in range(ROUNDS):
        ids = names(missions)
        batch = [event(mission, seq) for seq in range(1, EVENTS_EACH + 1) for mission in ids]
        started = time.process_time()
        for each in batch:
            encode_event(each)
        encoded = time.process_time()
        await journal.append(batch)
        encoding.append((encoded - started) / len(batch))
        appending.append((time.process_time() - encoded) / len(batch))
    return statistics.median(encoding) * 1e6, statistics.median(appending) * 1e6


async def measure(url: str, *, missions: int, events: int) -> None:
    journal = open_journal(url)
    alone = await appends_per_s(journal, missions=1, events=events)
    many = await appends_per_s(journal, missions=missions, events=events)
    encoding, appending = await cpu_us_per_event(journal, missions=missions)
    await journal.close()
    print(f"one mission             {alone:8.0f} durable appends/s")
    print(f"{missions} missions            {many:8.0f} durable appends/s")
    print(f"ratio                   {many / alone:8.1f}")
    print(f"JSON of an event        {encoding:8.2f} us")
    print(f"append of an event      {appending:8.2f} us CPU, {missions * EVENTS_EACH} at once, its JSON included")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="")
    parser.add_argument("--events", type=int, default=2_000)
    parser.add_argument("--missions", type=int, default=100)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        url = options.url or f"sqlite:///{Path(folder, 'journal.db')}"
        asyncio.run(measure(url, missions=options.missions, events=options.events))


if __name__ == "__main__":
    main()
