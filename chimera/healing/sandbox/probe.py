"""Run in a sandbox to try it: prints `walls hold`, or the ways out that it found. Uses the standard library only."""

from __future__ import annotations

import ctypes
import json
import os
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any


def ways_out(asked: dict[str, Any]) -> list[str]:
    """Which of the things that must fail did not. `asked`: a file out of reach, a port that listens, who asks."""
    secret, pid = asked["secret"], asked["pid"]
    attempts: dict[str, Callable[[], object]] = {
        "reads a file outside": lambda: Path(secret).read_bytes(),
        "truncates a file outside": lambda: os.truncate(secret, 0),
        "writes to /usr": lambda: os.open("/usr/chimera-probe", os.O_CREAT | os.O_EXCL),
        "reads /etc/shadow": lambda: Path("/etc/shadow").read_bytes(),
        "reads another's environment": lambda: _some(Path(f"/proc/{os.getppid()}/environ").read_bytes()),
        "reaches the network": lambda: socket.create_connection(("127.0.0.1", asked["port"]), 2.0),
        "signals a process outside": lambda: os.kill(pid, 0),
        "makes a user namespace": lambda: _call("unshare", 0x10000000),
        "mounts": lambda: _call("mount", b"none", b"/tmp", b"tmpfs", 0, None),
    }
    found = []
    for name, attempt in attempts.items():
        with suppress(OSError):
            attempt()
            found.append(name)
    return found


def _some(data: bytes) -> None:
    if not data:
        raise OSError("empty")


def _call(name: str, *arguments: object) -> None:
    if ctypes.CDLL(None, use_errno=True)[name](*arguments) != 0:
        raise OSError(ctypes.get_errno(), name)


def main() -> None:
    asked = json.loads(sys.argv[1])
    found = ways_out(asked)
    with suppress(OSError):
        Path(f"{asked['secret']}.new").write_bytes(
            b""
        )  # there may be a folder of that name inside; who asks looks for the file
    Path("written").write_text("the folder can be written in")
    sys.stdout.write("; ".join(found) or "walls hold")


if __name__ == "__main__":
    main()
