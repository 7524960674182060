"""What the servers' processes take: the environment that they are given, and the memory that they hold."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from contextlib import suppress
from typing import Final

INHERITED: Final = ("HOME", "LANG", "LC_ALL", "LC_CTYPE", "LOGNAME", "PATH", "SHELL", "TERM", "TMPDIR", "TZ", "USER")
"""All that a server sees of the hub's environment. Keys and tokens are not among them: its own entry grants those."""

_GROUP, _RESIDENT = 2, 21
"""Places in /proc/PID/stat (proc_pid_stat(5)), counted from the state, which is the field after the name."""


def child_environment(granted: Mapping[str, str], environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """The stripped environment, and what the server's entry grants. Exported shell functions are left out."""
    environ = os.environ if environ is None else environ
    kept = {key: environ[key] for key in INHERITED if key in environ and not environ[key].startswith("()")}
    return {**kept, **granted}


def resident_bytes(groups: Collection[int]) -> dict[int, int]:
    """Bytes of memory (RSS) that each process group holds, its servers' own children included. Linux.

    Pages that several processes share are counted once for each, so the sum is never too small.
    """
    held = dict.fromkeys(groups, 0)
    page = os.sysconf("SC_PAGE_SIZE")
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit():
            continue
        with suppress(OSError):  # it ended meanwhile
            with open(f"/proc/{entry.name}/stat", "rb") as file:
                fields = file.read().rpartition(b")")[2].split()
            if (group := int(fields[_GROUP])) in held:
                held[group] += int(fields[_RESIDENT]) * page
    return held
