"""Which sandbox works here: each is tried by running a program in it that looks for ways out."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import socket
import sys
import tempfile
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

from chimera.core.errors import ChimeraError, SandboxUnavailable
from chimera.healing.sandbox.bwrap import Bwrap
from chimera.healing.sandbox.landlock import Landlock
from chimera.healing.sandbox.port import Limits, MiB, Sandbox, SandboxResult

KINDS: dict[str, Callable[[], Sandbox]] = {"bwrap": Bwrap, "landlock": Landlock}
"""In the order in which they are tried: namespaces show less, and take away less."""

PROBE = Path(__file__).with_name("probe.py")

LIMITS = Limits(wall_s=20.0, cpu_s=10.0, memory_bytes=256 * MiB, processes=16, output_bytes=MiB, disk_bytes=16 * MiB)


def open_sandbox(prefer: Literal["bwrap", "landlock"] | None = None) -> Sandbox:
    """The first sandbox whose walls hold on this machine; only `prefer` is tried if it is given.

    Takes a tenth of a second, and may be called in a running event loop or out of one: keep what it returns. Raises
    SandboxUnavailable, which says of each what it lacks.
    """
    causes = []
    for name in [prefer] if prefer else KINDS:
        try:
            sandbox = KINDS[name]()
            _try(sandbox)
        except (ChimeraError, OSError) as error:
            causes.append(f"{name}: {error}")
        else:
            return sandbox
    raise SandboxUnavailable("no sandbox works on this machine, so no code is run. " + "; ".join(causes))


def _try(sandbox: Sandbox) -> None:
    """Run the probe; raises SandboxUnavailable if it does not run to its end, or finds a way out."""
    if not os.path.exists(f"/proc/self/task/{threading.get_native_id()}/children"):
        raise SandboxUnavailable("/proc does not tell the children of a process (CONFIG_PROC_CHILDREN)")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="chimera-probe-")))
        inside, outside = folder / "inside", folder / "outside"
        inside.mkdir()
        outside.write_text(secrets.token_hex(16))
        (inside / "probe.py").write_bytes(PROBE.read_bytes())
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        asked = {"secret": str(outside), "port": listener.getsockname()[1], "pid": os.getpid()}
        argv = [sys.executable, "-I", "-S", "probe.py", json.dumps(asked)]
        result = _elsewhere(sandbox.run(argv, folder=inside, limits=LIMITS))
        untouched = outside.stat().st_size == 32 and sorted(os.listdir(folder)) == ["inside", "outside"]
        if result.stdout == b"walls hold" and untouched and (inside / "written").is_file():
            return
        said = (result.stdout + result.stderr[-500:]).decode(errors="replace").strip()
        raise SandboxUnavailable(f"its walls do not hold: {said or f'the probe ended with {result.exit_code}'}")


def _elsewhere(run: Coroutine[Any, Any, SandboxResult]) -> SandboxResult:
    """The result of a run, in an event loop of another thread: this one may have a loop that is running."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, run).result()
