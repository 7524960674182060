"""Landlock, seccomp and rlimits: walls that need no namespace, for where those are denied, as in Docker by default.

What differs from bubblewrap: other processes and the names of files can be seen to exist, though not what is in them.
Modes and times of files cannot be changed (the call does nothing). No socket but a pair, no shared memory by name.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from chimera.core.errors import SandboxUnavailable
from chimera.healing.sandbox.disk import remove_tree
from chimera.healing.sandbox.folders import CONFIGURATION, SYSTEM, environment, readable_paths, writable
from chimera.healing.sandbox.port import DEFAULT, NOTHING, Limits, SandboxResult
from chimera.healing.sandbox.running import Launch, limits_of, python, run
from chimera.healing.sandbox.seccomp import EVERYWHERE, WITHOUT_NAMESPACES, WITHOUT_SCOPES, program

DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")

OLDEST, SCOPES, NEWEST = 3, 6, 7
"""ABIs of Landlock: before 3 truncate(2) of any file was free; since 6 it keeps signals in; later than 7 is unknown."""

CREATE_RULESET, VERSION = 444, 1


class Landlock:
    """Runs commands behind Landlock, of the ABI given at most. Raises SandboxUnavailable if the kernel has none."""

    name = "landlock"

    def __init__(self, *, abi: int = NEWEST) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self._abi = min(abi, int(libc.syscall(CREATE_RULESET, None, ctypes.c_size_t(0), VERSION)))
        if self._abi < OLDEST:
            raise SandboxUnavailable(
                f"the kernel has no Landlock of ABI {OLDEST} or later: it takes Linux 6.2, and `landlock` in `lsm=`"
            )
        refusals = EVERYWHERE + WITHOUT_NAMESPACES + (() if self._abi >= SCOPES else WITHOUT_SCOPES)
        self._program = program(refusals)

    async def run(
        self,
        argv: Sequence[str],
        *,
        folder: Path,
        readable: Sequence[Path] = (),
        env: Mapping[str, str] = NOTHING,
        limits: Limits = DEFAULT,
        stdin: bytes = b"",
    ) -> SandboxResult:
        """See `Sandbox.run`."""
        folder = writable(folder)
        paths = [str(path) for path in readable_paths(readable)]
        scratch = Path(os.path.realpath(tempfile.mkdtemp(prefix="chimera-run-")))  # noqa: ASYNC240 (takes microseconds)
        try:
            spec = {
                "argv": list(argv),
                "env": environment(env, str(scratch)),
                "cwd": str(folder),
                "limits": limits_of(limits),
                "seccomp": self._program,
                "landlock": {
                    "abi": self._abi,
                    "read": [*SYSTEM, *CONFIGURATION, *paths],
                    "write": [str(folder), str(scratch)],
                    "devices": DEVICES,
                },
            }
            launch = Launch(spec=spec, command=_command, folders=[folder, scratch], leash=True)
            return await run(launch, limits, stdin)
        finally:
            await asyncio.to_thread(remove_tree, scratch)


def _command(spec: int, program: int, tells: int) -> list[str]:
    return [*python(), str(spec)]
