"""What hot reload takes within one process, in milliseconds: save to detected, save to in use, switch, roll back.

    python -m bench.reload [--saves 100] [--lines 300] [--json]

`detected` is from before a file is replaced to when the watcher tells of it, with its debounce of 50 ms and step of
10 ms; `in_use` is from the same moment to when the new version is in use, with `HotReloadManager.watch` and one tool.
`switch` is `ModuleReloader.commit`, `roll_back` its way back, both without state to migrate.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import json
import os
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from chimera.core.clock import SystemClock
from chimera.reload.manager import HotReloadManager
from chimera.reload.reloader import ModuleReloader
from chimera.reload.watcher import CodeWatcher

MODULE = "bench_reloaded"

PAUSE_S = 0.12
"""Between saves, so that each is a batch of its own."""


def code(number: int, lines: int) -> str:
    return f"NUMBER = {number}\n\n\ndef number():\n    return NUMBER\n\n\n" + "".join(
        f"def function_{at}(value):\n    return value + {at}\n" for at in range(lines // 2)
    )


def save(file: Path, text: str) -> float:
    """As editors do. Gives when it began."""
    beside = file.with_name(f".{file.name}")
    started = time.perf_counter()
    beside.write_text(text)
    os.replace(beside, file)
    return started


async def detections(file: Path, saves: int, lines: int) -> list[float]:
    watcher = CodeWatcher(file.parent)
    told: asyncio.Queue[float] = asyncio.Queue()

    async def collect() -> None:
        async for _ in watcher.changes():
            told.put_nowait(time.perf_counter())

    task = asyncio.create_task(collect())
    await watcher.ready.wait()
    taken = []
    for number in range(saves):
        started = save(file, code(-number - 1, lines))
        taken.append(await asyncio.wait_for(told.get(), 10) - started)
        await asyncio.sleep(PAUSE_S)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    return taken


async def in_use(file: Path, saves: int, lines: int) -> list[float]:
    told: asyncio.Queue[float] = asyncio.Queue()
    manager = HotReloadManager(clock=SystemClock(), listen=lambda event: told.put_nowait(time.perf_counter()))
    manager.expose("number", MODULE, "number")
    watcher = CodeWatcher(file.parent)
    task = asyncio.create_task(manager.watch(file.parent, watcher=watcher))
    await watcher.ready.wait()
    taken = []
    for number in range(saves):
        started = save(file, code(number + 1, lines))
        taken.append(await asyncio.wait_for(told.get(), 10) - started)
        await asyncio.sleep(PAUSE_S)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    assert manager.stats().reloaded == saves, manager.stats()
    return taken


def switches(saves: int, lines: int) -> tuple[list[float], list[float]]:
    reloader = ModuleReloader(clock=SystemClock())
    there, back = [], []
    for number in range(saves):
        prepared = reloader.prepare(MODULE, code(number, lines))
        started = time.perf_counter()
        reloader.commit(prepared)
        there.append(time.perf_counter() - started)
        started = time.perf_counter()
        reloader.roll_back(MODULE)
        back.append(time.perf_counter() - started)
    return there, back


def spread(taken_s: list[float]) -> dict[str, float]:
    ordered = sorted(taken_s)
    return {name: round(1e3 * ordered[int(share * (len(ordered) - 1))], 3) for name, share in SHARES.items()}


SHARES = {"p50": 0.5, "p95": 0.95, "max": 1.0}


def show(rows: dict[str, dict[str, float]], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(rows))
        return
    print(f"{'ms':<14}" + "".join(f"{name:>10}" for name in SHARES))
    for name, row in rows.items():
        print(f"{name:<14}" + "".join(f"{value:>10.3f}" for value in row.values()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--saves", type=int, default=100)
    parser.add_argument("--lines", type=int, default=300)
    parser.add_argument("--json", action="store_true", help="one JSON document instead of the table")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        sys.path.insert(0, folder)
        file = Path(folder) / f"{MODULE}.py"
        file.write_text(code(0, options.lines))
        importlib.import_module(MODULE)
        there, back = switches(options.saves, options.lines)
        rows = {
            "detected": spread(asyncio.run(detections(file, options.saves, options.lines))),
            "in_use": spread(asyncio.run(in_use(file, options.saves, options.lines))),
            "switch": spread(there),
            "roll_back": spread(back),
        }
    show(rows, as_json=options.json)


if __name__ == "__main__":
    main()
