"""Ends the servers of a hub that can no longer do so: a process of its own, which outlives even a kill -9 of the hub.

It reads `+PGID` and `-PGID` lines from its standard input, which nobody but the hub holds. At its end, however that
came, every process group that is still listed is ended. It is run by path, with the standard library only; a parent's
death signal (prctl) would reach the servers themselves, and not what they have started.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import Final

GRACE_S: Final = 0.5
"""From SIGTERM to SIGKILL."""


class Watchdog:
    """The hub's end of it. Started with the first group."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._groups: set[int] = set()

    def watch(self, group: int) -> None:
        """End this process group if the hub dies. Raises OSError if no watchdog can be started."""
        self._groups.add(group)
        self._tell(f"+{group}\n")

    def forget(self, group: int) -> None:
        """The group has ended; its number may be given to others."""
        self._groups.discard(group)
        if self._process is not None:
            self._tell(f"-{group}\n")

    def close(self) -> None:
        """End what is still listed, and the watchdog."""
        process, self._process = self._process, None
        self._groups.clear()
        if process is not None and process.stdin is not None:
            process.stdin.close()
            process.wait()

    def _tell(self, line: str) -> None:
        if self._process is None or self._process.poll() is not None:  # a new one is told all
            if self._process is not None and self._process.stdin is not None:
                self._process.stdin.close()
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", __file__],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                bufsize=0,
                env={},
                cwd="/",
                start_new_session=True,
            )
            line = "".join(f"+{group}\n" for group in sorted(self._groups))
        if self._process.stdin is not None:
            self._process.stdin.write(line.encode())


def main() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    groups: set[int] = set()
    for line in sys.stdin:
        (groups.add if line[0] == "+" else groups.discard)(int(line[1:]))
    for number in (signal.SIGTERM, signal.SIGKILL):
        alive = {group for group in groups if _signalled(group, number)}
        if not alive:
            return
        time.sleep(GRACE_S if number is signal.SIGTERM else 0.0)


def _signalled(group: int, number: signal.Signals) -> bool:
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


if __name__ == "__main__":
    main()
