"""What an entry of the audit log costs, beside a bare write of the same line.

    python -m bench.audit [--entries 20000] [--rate 2000] [--json]

`append_us` is one `append` in microseconds, at `--rate` entries a second: redacted, chained, queued; a thread of its
own puts it on the disk. `write_us` is `os.write` of a line of that size to a file, at the same rate, and `fsync_us`
that write with its fsync, which an append does not wait for. `entries_per_s` is how many go from `append` to the disk
in a second when there is no pause, and `verified_per_s` how many `verify` reads.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from pydantic import JsonValue

from chimera.core.clock import SystemClock
from chimera.security.audit import AuditLog
from chimera.security.audit_entry import signing_key
from chimera.security.audit_verify import verify

DETAIL: dict[str, JsonValue] = {
    "method": "POST",
    "path": "/api/swarm/task",
    "ip": "127.0.0.1",
    "ms": 12.5,
    "role": "operator",
}


def paced(work: Callable[[], object], count: int, rate: float) -> dict[str, float]:
    """Microseconds that `work` takes, started `rate` times a second."""
    took = []
    begun = time.perf_counter()
    for number in range(count):
        while (early_s := begun + number / rate - time.perf_counter()) > 0:
            time.sleep(early_s)
        started = time.perf_counter_ns()
        work()
        took.append(time.perf_counter_ns() - started)
    took.sort()
    return {"p50": took[count // 2] / 1e3, "p99": took[count * 99 // 100] / 1e3, "worst": took[-1] / 1e3}


def measured(folder: Path, entries: int, rate: float) -> dict[str, dict[str, float] | float]:
    key = signing_key(folder / "key.pem")
    log = AuditLog(folder / "log", key, clock=SystemClock())

    def append() -> None:
        log.append("alice", "swarm:task", "missions/mission-0123456789ab", "ok", DETAIL)

    append()
    line = log.query()[0].line() + b"\n"
    file = os.open(folder / "bare", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def synced() -> None:
        os.write(file, line)
        os.fsync(file)

    found: dict[str, dict[str, float] | float] = {
        "append_us": paced(append, entries, rate),
        "write_us": paced(lambda: os.write(file, line), entries, rate),
        "fsync_us": paced(synced, min(entries, 1_000), rate),
    }
    os.close(file)
    started = time.perf_counter()
    for _ in range(entries):
        append()
    log.flush()
    found["entries_per_s"] = entries / (time.perf_counter() - started)
    log.close()
    started = time.perf_counter()
    report = verify(folder / "log", folder / "log-anchors", key.public_key())
    found["verified_per_s"] = report.entries / (time.perf_counter() - started)
    if not report.ok or report.entries != 2 * entries + 1:
        raise SystemExit(f"the log is not whole: {report}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entries", type=int, default=20_000)
    parser.add_argument("--rate", type=float, default=2_000.0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="cha") as name:
        found = measured(Path(name), options.entries, options.rate)
    if options.json:
        print(json.dumps(found))
        return
    for what, figures in found.items():
        told = figures if isinstance(figures, dict) else {"": figures}
        print(f"{what:15} " + "  ".join(f"{name} {value:.1f}" for name, value in told.items()))


if __name__ == "__main__":
    main()
