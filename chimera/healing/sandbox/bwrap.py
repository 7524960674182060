"""bubblewrap: namespaces of its own for everything, an empty network, a file system of what it needs.

bubblewrap is started with an empty environment, as its first process inside would keep what --clearenv hides. That is
process 1 of the run: when it is killed, so is everything. There is no /proc: in it each process of a run could read and
write the memory of the others, whoever they judge, and what root owns there (kernel.core_pattern) root may write.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from chimera.core.errors import SandboxUnavailable
from chimera.healing.sandbox.folders import CONFIGURATION, SYSTEM, environment, readable_paths, writable
from chimera.healing.sandbox.port import DEFAULT, NOTHING, Limits, SandboxResult
from chimera.healing.sandbox.running import LAUNCHER, Launch, limits_of, python, run
from chimera.healing.sandbox.seccomp import EVERYWHERE, program

SCRATCH = "/tmp"


class Bwrap:
    """Runs commands in bubblewrap. Raises SandboxUnavailable if it is not installed."""

    name = "bwrap"

    def __init__(self) -> None:
        found = shutil.which("bwrap")
        if found is None:
            raise SandboxUnavailable("bwrap is not installed: `apt-get install bubblewrap`")
        self._bwrap = found
        self._program = program(EVERYWHERE)

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
        walls = self._walls(folder, readable_paths(readable), limits)

        def command(spec: int, filter_: int, tells: int) -> list[str]:
            fds = ["--seccomp", str(filter_), "--info-fd", str(tells)]
            return [self._bwrap, *walls, *fds, "--", *python(), str(spec)]

        spec = {
            "argv": list(argv),
            "env": environment(env, SCRATCH),
            "cwd": str(folder),
            "limits": limits_of(limits),
            "landlock": None,
            "seccomp": None,
        }
        launch = Launch(spec=spec, command=command, folders=[folder], leash=False, program=self._program)
        return await run(launch, limits, stdin)

    def _walls(self, folder: Path, readable: Sequence[Path], limits: Limits) -> list[str]:
        walls = "--unshare-all --unshare-user --uid 1000 --gid 1000 --hostname sandbox --die-with-parent --new-session"
        scratch = ("--size", str(limits.disk_bytes // 4), "--tmpfs")
        options = [*walls.split(), "--cap-drop", "ALL", "--dev", "/dev"]
        options += [*scratch, "/dev/shm", *scratch, SCRATCH]
        for name in SYSTEM:
            if os.path.islink(name):
                options += ["--symlink", os.readlink(name), name]
            else:
                options += ["--ro-bind-try", name, name]
        for name in CONFIGURATION:
            options += ["--ro-bind-try", name, name]
        binds = {str(path): "--ro-bind" for path in (*readable, LAUNCHER)} | {str(folder): "--bind"}
        for path in sorted(binds, key=lambda path: path.count("/")):  # what lies within another comes after it
            options += [binds[path], path, path]
        return [*options, "--remount-ro", "/dev", "--remount-ro", "/", "--chdir", "/"]
