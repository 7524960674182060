"""What a sandbox is: a command and a folder go in, what it said and how it ended come out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Literal, Protocol

from pydantic import Field

from chimera.core.types import Frozen, Seconds

MiB = 1024 * 1024

Wall = Literal["time", "cpu", "memory", "processes", "disk", "output"]
"""The limits that end a run."""

Bytes = Annotated[int, Field(ge=MiB, le=1024 * 1024 * MiB)]

NOTHING: Mapping[str, str] = MappingProxyType({})


class Limits(Frozen):
    """The most that one run may use: of time, and of the machine, all its processes together.

    `memory_bytes` bounds the address space of each process, and the memory that all of them hold. `processes` counts
    threads too. `output_bytes` is for each of stdout and stderr. `disk_bytes` is for the folder beyond what it held at
    the start, and for temporary files; a file's entry costs 4 KiB at least. `files` are those open at once in each
    process.
    """

    wall_s: Seconds = 30.0
    cpu_s: Seconds = 20.0
    memory_bytes: Bytes = 1024 * MiB
    processes: int = Field(default=64, ge=1, le=4096)
    output_bytes: int = Field(default=MiB, ge=0, le=1024 * MiB)
    disk_bytes: Bytes = 256 * MiB
    files: int = Field(default=1024, ge=16, le=65_536)


@dataclass(frozen=True, slots=True)
class SandboxResult:
    """How a run ended. `exit_code` is None if a signal ended it, and then `signal` is that signal's number.

    A program that could not be started ends with 127. Above 128 the kernel's and the shell's way of telling a signal
    cannot be told from an exit with that code: it reads as the signal. `killed_for` names the limit that ended it.
    """

    exit_code: int | None
    signal: int | None
    stdout: bytes
    stderr: bytes
    truncated: bool
    timed_out: bool
    killed_for: Wall | None
    wall_s: float
    cpu_s: float


DEFAULT = Limits()


class Sandbox(Protocol):
    """Walls to run a command behind: no network, no secrets, one folder to write in, an end to everything."""

    @property
    def name(self) -> str:
        """Which walls these are: `bwrap` or `landlock`."""
        ...

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
        """Run `argv` in `folder`, which has the same path inside and is all that it may write (besides `$TMPDIR`).

        It can read the system's programs and libraries, the running Python's own, and `readable`. `env` is all of its
        environment, besides PATH, HOME, TMPDIR, USER and LANG if they are not given. When this returns, no process of
        the run is left. If it is cancelled, the run ends first. What is in the folder afterwards was made by a
        stranger: read it without following links.

        Raises InputError if the folder or a path cannot be given, SandboxUnavailable if the walls could not be put up
        (and then nothing was run).
        """
        ...
