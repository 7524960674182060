"""What walls cost: a small command in each sandbox, beside the same command run bare.

    python -m bench.sandbox [--rounds 30] [--json]

Milliseconds from call to result, and the median and the 95th percentile of what is added over the bare run of the same
round. The command is `/bin/true`, so that nothing but starting and ending is measured.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from chimera.core.errors import SandboxUnavailable
from chimera.healing.sandbox import Sandbox, open_sandbox

COMMAND = ["/bin/true"]


async def bare() -> None:
    """The command without walls, its output read."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*COMMAND, stdin=pipe, stdout=pipe, stderr=pipe)
    await process.communicate()


async def timed(work: Callable[[], Awaitable[object]]) -> float:
    """Milliseconds that it takes."""
    started = time.perf_counter()
    await work()
    return (time.perf_counter() - started) * 1000


async def measured(sandbox: Sandbox, rounds: int) -> dict[str, float]:
    """Bare and walled in turn, after one of each."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pairs = [
            (await timed(bare), await timed(lambda: sandbox.run(COMMAND, folder=folder))) for _ in range(rounds + 1)
        ][1:]
    added = sorted(walled - alone for alone, walled in pairs)
    return {
        "bare_ms": statistics.median(alone for alone, _ in pairs),
        "walled_ms": statistics.median(walled for _, walled in pairs),
        "added_ms": statistics.median(added),
        "added_p95_ms": added[min(len(added) - 1, round(0.95 * len(added)))],
        "ratio": statistics.median(walled / alone for alone, walled in pairs),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found: dict[str, dict[str, float] | str] = {}
    for name in ("bwrap", "landlock"):
        try:
            found[name] = asyncio.run(measured(open_sandbox(name), options.rounds))
        except SandboxUnavailable as error:
            found[name] = str(error)
    if options.json:
        print(json.dumps(found))
        return
    for name, figures in found.items():
        told = (
            figures if isinstance(figures, str) else "  ".join(f"{key} {value:.1f}" for key, value in figures.items())
        )
        print(f"{name:9} {told}")


if __name__ == "__main__":
    main()
