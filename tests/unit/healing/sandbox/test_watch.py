"""The watch ends its look at a limit: what grows while it is looked through would keep it from ever telling."""

from __future__ import annotations

import os
import subprocess
from contextlib import ExitStack

from chimera.healing.sandbox.watch import below


def test_a_look_ends_at_what_is_enough() -> None:
    with ExitStack() as stack:
        for _ in range(12):
            process = stack.enter_context(subprocess.Popen(["/bin/sleep", "60"]))
            stack.callback(process.kill)
        everything, tasks = below(os.getpid())
        assert len(everything) >= 12 and tasks >= 12
        some, seen = below(os.getpid(), tasks - 8)
        assert seen == tasks - 7 and len(some) < len(everything)
