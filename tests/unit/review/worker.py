"""A process that works on a review queue until all is decided, or until it is killed; what it was told goes to a file.

Run as `python -m tests.unit.review.worker URL ITEMS NAME TOLD`.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys

from chimera.core.clock import SystemClock
from chimera.review.policy import ReviewPolicy
from chimera.review.queue import Answer, ReviewQueue
from chimera.review.types import Item, Proposal
from chimera.storage.journal import open_journal

AT_ONCE = 100


async def work(url: str, items: int, name: str, told: str) -> None:
    """Ask, claim and decide, some hundred at a time. A line is written once the queue has said that it is so."""
    journal = open_journal(url)
    policy = ReviewPolicy(reviewers={"ann": (), "bob": (), "cleo": ()}, lease_s=0.5)
    queue = ReviewQueue(journal=journal, policy=policy, clock=SystemClock(), generator=random.Random(name), name="main")
    draw = random.Random(f"{name}{os.getpid()}")
    file = os.open(told, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def tell(what: str, answers: list[Answer]) -> list[Item]:
        got = [answer for answer in answers if isinstance(answer, Item)]
        os.write(file, "".join(f"{what} {item.id} {item.state} {_by(item)}\n" for item in got).encode())
        return got

    for first in range(0, items, AT_ONCE):
        asks = (queue.ask(_proposal(n)) for n in range(first, min(first + AT_ONCE, items)))
        tell("asked", await asyncio.gather(*asks))
    while waiting := await queue.waiting():
        some = draw.sample(waiting, min(AT_ONCE, len(waiting)))
        claimed = tell("claimed", await asyncio.gather(*(queue.claim(item.id, name) for item in some)))
        yes = await asyncio.gather(*(queue.approve(item.id, name) for item in claimed[::2]))
        no = await asyncio.gather(*(queue.reject(item.id, name, "no") for item in claimed[1::2]))
        tell("decided", [*yes, *no])
        if not claimed:
            await asyncio.sleep(0.05)
    await journal.close()


def _proposal(number: int) -> Proposal:
    return Proposal(
        key=f"k{number}", kind="answer", summary=f"Item {number}", payload={"n": number}, confidence=0.5, asker="writer"
    )


def _by(item: Item) -> str:
    return item.ending.by if item.ending else item.claim.by if item.claim else "-"


if __name__ == "__main__":
    asyncio.run(work(sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]))
