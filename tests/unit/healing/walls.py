"""For tests of judging: a sandbox without walls, so that what is proved does not come from them."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from chimera.healing.sandbox.port import DEFAULT, NOTHING, Limits, SandboxResult


class NoWalls:
    """Runs code that these tests wrote themselves. Keeps the argv, environment and files of every run."""

    name = "none"

    def __init__(self) -> None:
        self.seen: list[tuple[str, frozenset[str]]] = []

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
        self._look(argv, env, folder)
        began = time.monotonic()
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            *argv, cwd=folder, env=dict(env), stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True
        )
        late = False
        try:
            out, err = await asyncio.wait_for(process.communicate(stdin), limits.wall_s)
        except TimeoutError:
            late, out, err = True, b"", b""
            os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
        return SandboxResult(
            exit_code=process.returncode,
            signal=None,
            stdout=out,
            stderr=err,
            truncated=False,
            timed_out=late,
            killed_for="time" if late else None,
            wall_s=time.monotonic() - began,
            cpu_s=0.0,
        )

    def _look(self, argv: Sequence[str], env: Mapping[str, str], folder: Path) -> None:
        found = {str(path.relative_to(folder)): path for path in folder.rglob("*")}
        contents = [path.read_bytes() for path in found.values() if path.is_file()]
        self.seen.append((repr([*argv, *env.items(), *contents]), frozenset(found)))
