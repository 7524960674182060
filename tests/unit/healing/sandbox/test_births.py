"""How many processes and threads a run may have, to the last one, also for root and however quickly they are made."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from chimera.healing.sandbox import open_sandbox
from chimera.healing.sandbox.port import Limits, SandboxResult

MOST = 24


async def run(walls: str, folder: Path, code: str) -> SandboxResult:
    argv = [sys.executable, "-I", "-c", code]
    return await open_sandbox(walls).run(argv, folder=folder, limits=Limits(processes=MOST, wall_s=30.0))


@contextmanager
def most_processes() -> Iterator[list[int]]:
    """The most that the machine had at a time, above those it had before."""
    before, over = _count(), [0]
    stop = threading.Event()

    def look() -> None:
        while not stop.wait(0.001):
            over[0] = max(over[0], _count() - before)

    thread = threading.Thread(target=look)
    thread.start()
    yield over
    stop.set()
    thread.join()


def _count() -> int:
    return sum(name.isdigit() for name in os.listdir("/proc"))


@pytest.mark.parametrize("walls", ["bwrap", "landlock"])
async def test_so_many_and_not_one_more(walls: str, tmp_path: Path) -> None:
    forks = "import os, time\nwhile True:\n    os.write(1, b'x') if os.fork() else time.sleep(60)"
    result = await run(walls, tmp_path, forks)
    assert (len(result.stdout), result.killed_for) == (MOST - 1, "processes")


@pytest.mark.parametrize("walls", ["bwrap", "landlock"])
async def test_threads_count(walls: str, tmp_path: Path) -> None:
    threads = """
import os, threading, time
threading.stack_size(65536)
while True:
    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
    os.write(1, b"x")
"""
    result = await run(walls, tmp_path, threads)
    assert (len(result.stdout), result.killed_for) == (MOST - 1, "processes")


@pytest.mark.parametrize("walls", ["bwrap", "landlock"])
async def test_a_bomb_is_ended_before_anybody_else_notices(walls: str, tmp_path: Path) -> None:
    bomb = "import os\nwhile True:\n    try:\n        os.fork()\n    except OSError:\n        pass\n"
    with most_processes() as over:
        result = await run(walls, tmp_path, bomb)
    assert result.killed_for == "processes"
    assert over[0] < 1_000  # others start processes beside this test; a bomb makes tens of thousands


@pytest.mark.parametrize("walls", ["bwrap", "landlock"])
async def test_those_that_have_ended_do_not_count(walls: str, tmp_path: Path) -> None:
    result = await run(walls, tmp_path, f"import subprocess\nfor _ in range({3 * MOST}): subprocess.run(['true'])")
    assert (result.exit_code, result.stderr) == (0, b"")
