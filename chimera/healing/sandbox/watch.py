"""What the processes of a run use together, read from /proc: the kernel bounds each of them alone."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from chimera.healing.sandbox.disk import held, held_without_name
from chimera.healing.sandbox.port import Limits, Wall

PAGE = os.sysconf("SC_PAGE_SIZE")
TICK = os.sysconf("SC_CLK_TCK")

EVERY_S = 0.02
"""How often processes are looked at."""

SHARE = 5
"""The folders are looked through again after this many times as long as it took."""


class Watch:
    """Looks at the processes below `root` (which is not counted: it is the sandbox's own) and at `folders`."""

    def __init__(self, limits: Limits, folders: Sequence[Path]) -> None:
        self._limits = limits
        self._folders = folders
        self._before = sum(held(folder) for folder in folders)
        self._disk_due = 0.0
        self.cpu_s = 0.0

    def over(self, root: int) -> Wall | None:
        """The limit that is passed, if one is."""
        pids, tasks = below(root, self._limits.processes)
        if tasks > self._limits.processes:
            return "processes"
        self.cpu_s = max(self.cpu_s, sum(map(_cpu_s, (root, *pids))))
        if self.cpu_s > self._limits.cpu_s:
            return "cpu"
        most = self._limits.memory_bytes
        if sum(map(_resident, pids)) > most and sum(map(_proportional, pids)) > most:
            return "memory"
        now = time.monotonic()
        if now >= self._disk_due:
            full = self.disk_full(pids)
            done = time.monotonic()
            self._disk_due = done + max(EVERY_S, SHARE * (done - now))
            if full:
                return "disk"
        return None

    def disk_full(self, pids: Sequence[int] = ()) -> bool:
        """Whether the folders have grown by more than they may."""
        most = self._before + self._limits.disk_bytes
        total = float(held_without_name(pids))
        for folder in self._folders:
            total += held(folder, most)
        return total > most


def below(root: int, enough: float = float("inf")) -> tuple[list[int], int]:
    """The processes that descend from `root`, and how many threads they have. Ends early at more than `enough` threads.

    A fork bomb makes processes faster than they can be looked through: to look at all would never end.
    """
    found: list[int] = []
    tasks = -1
    look = [root]
    while look and tasks <= enough:
        pid = look.pop()
        if pid != root:
            found.append(pid)
        with suppress(OSError):
            threads = os.listdir(f"/proc/{pid}/task")
            tasks += len(threads)
            for thread in threads:
                with suppress(OSError), open(f"/proc/{pid}/task/{thread}/children", encoding="ascii") as file:
                    look += map(int, file.read().split())
    return found, max(0, tasks)


def _cpu_s(pid: int) -> float:
    with suppress(OSError), open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
        return sum(map(int, file.read().rpartition(")")[2].split()[11:15])) / TICK
    return 0.0


def _resident(pid: int) -> int:
    with suppress(OSError), open(f"/proc/{pid}/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * PAGE
    return 0


def _proportional(pid: int) -> int:
    """What is resident, pages that several share counted once among them. Slow, and asked only in doubt."""
    with suppress(OSError), open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
        for line in file:
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0
