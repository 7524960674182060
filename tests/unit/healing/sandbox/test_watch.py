"""The watch ends its look at a limit: what grows while it is looked through would keep it from ever telling."""

from __future__ import annotations

import subprocess
import time

from chimera.healing.sandbox.watch import below

MANY = 12


def test_a_look_ends_at_what_is_enough() -> None:
    script = f"for _ in $(seq {MANY}); do sleep 60 & done; wait"
    with subprocess.Popen(["/bin/sh", "-c", script], start_new_session=True) as root:
        try:
            until = time.monotonic() + 30
            while len(below(root.pid)[0]) < MANY and time.monotonic() < until:
                time.sleep(0.01)
            everything, tasks = below(root.pid)
            assert (len(everything), tasks) == (MANY, MANY)
            some, seen = below(root.pid, MANY - 8)
            assert seen == MANY - 7 and len(some) < len(everything)
        finally:
            subprocess.run(["/bin/kill", "-KILL", "--", f"-{root.pid}"], check=True)
