"""Processes that share a review queue and are killed (-9) in the middle: none is lost, none is decided twice."""

from __future__ import annotations

import asyncio
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from chimera.core.clock import SystemClock
from chimera.core.events import Event, EventKind
from chimera.core.rng import rng
from chimera.review.queue import ReviewQueue
from chimera.storage.journal import open_journal
from tests.conftest import ROOT
from tests.unit.review.made import POLICY

PEOPLE = ("ann", "bob", "cleo")


def start(url: str, items: int, name: str, folder: Path) -> subprocess.Popen[bytes]:
    arguments = [url, str(items), name, str(folder / f"{name}.told")]
    return subprocess.Popen([sys.executable, "-m", "tests.unit.review.worker", *arguments], cwd=ROOT)


async def stream(url: str) -> list[Event]:
    journal, found = open_journal(url), list[Event]()
    queue = ReviewQueue(journal=journal, policy=POLICY, clock=SystemClock(), generator=random.Random(1))
    assert await queue.waiting() == [], "all have been decided"
    while some := await queue.events(len(found)):
        found += some
    await journal.close()
    return found


def killed(url: str, items: int, kills: int, folder: Path) -> None:
    """Let people work on the queue, kill one now and then, and see what has come of it."""
    draw = rng("review", kills)
    workers = {name: start(url, items, name, folder) for name in PEOPLE}
    left = kills
    try:
        while any(worker.poll() is None for worker in workers.values()):
            grown = sum(path.stat().st_size for path in folder.glob("*.told"))
            due = (kills - left + 1) * items * 80 // (kills + 1)  # some 160 bytes an item and person are told
            if left and grown > due:
                name = draw.choice([name for name, worker in workers.items() if worker.poll() is None])
                workers[name].send_signal(signal.SIGKILL)
                workers[name].wait()
                workers[name] = start(url, items, name, folder)
                left -= 1
            time.sleep(0.02)
    finally:
        for worker in workers.values():
            worker.kill()
            worker.wait()
    assert left == 0, "all the kills have been in the middle"
    assert [worker.returncode for worker in workers.values()] == [0, 0, 0]
    events = asyncio.run(stream(url))
    asked = Counter(event.task_id for event in events if event.kind is EventKind.REVIEW_ASKED)
    decided = Counter(event.task_id for event in events if event.kind is EventKind.REVIEW_DECIDED)
    assert (len(asked), set(asked.values())) == (items, {1})
    assert decided == asked, "each was decided, and once"
    verdicts = {e.task_id: (e.data["verdict"], e.data["by"]) for e in events if e.kind is EventKind.REVIEW_DECIDED}
    for path in folder.glob("*.told"):
        for line in path.read_text().splitlines():
            what, item, state, by = line.split()
            assert item in asked, "what was said to be there is there"
            if what == "decided":
                assert verdicts[item] == (state, by), "what somebody was told is what stands"


@pytest.mark.timeout(120)
def test_killed_in_the_middle_nothing_is_lost_and_nothing_doubled(url_of: Callable[[str], str], tmp_path: Path) -> None:
    killed(url_of("sqlite"), 500, 2, tmp_path)


@pytest.mark.soak
@pytest.mark.timeout(900)
@pytest.mark.parametrize("scheme", ["sqlite", "redis", "postgresql"])
def test_ten_thousand(scheme: str, url_of: Callable[[str], str], tmp_path: Path) -> None:
    killed(url_of(scheme), 10_000, 8, tmp_path)
