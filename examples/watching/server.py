"""Six hours of a made-up server, a row every 15 s: `python -m examples.watching.server > server.csv`.

`server.csv` is what this wrote. There is a spike of latency, a drop of requests, a rhythm that stops, a queue that
grows, and memory that leaks.
"""

from __future__ import annotations

import math
import random
import sys
from collections.abc import Iterator
from typing import TextIO

START_S = 1_700_006_400
STEP_S = 15
ROWS = 1_440

HEADER = ("timestamp", "requests_per_s", "latency_ms", "cpu_percent", "queue_length", "memory_percent")


def rows(seed: int = 7) -> Iterator[tuple[float, ...]]:
    """The rows below HEADER."""
    rng = random.Random(seed)
    queue = 0.0
    for at in range(ROWS):
        hour = math.sin(2 * math.pi * at / 120)
        requests = 300 + 120 * hour + rng.gauss(0, 9)
        if 620 <= at < 645:  # a load balancer that lost a server
            requests *= 0.35
        latency = math.exp(rng.gauss(3.4, 0.18)) + 8 * hour
        if at in (980, 981):
            latency += 190
        cpu = 45 + 18 * math.sin(2 * math.pi * at / 60) + rng.gauss(0, 1.6)
        if 1_150 <= at < 1_240:  # the job that made this rhythm does not run
            cpu = 45 + rng.gauss(0, 1.6)
        queue = 12 + 0.8 * (queue - 12) + rng.gauss(0, 1.2)
        backlog = 0.35 * max(0, at - 800) if at < 920 else max(0.0, 42.0 - 0.6 * (at - 920))
        memory = 52 + 0.35 * max(0, at - 1_310) + rng.gauss(0, 1.3)
        yield START_S + STEP_S * at, requests, latency, cpu, max(0.0, queue + backlog), memory


def write(out: TextIO) -> None:
    """The whole file."""
    out.write(",".join(HEADER) + "\n")
    for stamp, *values in rows():
        out.write(",".join([f"{stamp:.0f}", *(f"{value:.2f}" for value in values)]) + "\n")


if __name__ == "__main__":
    write(sys.stdout)
