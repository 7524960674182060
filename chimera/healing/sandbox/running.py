"""A run from its start to the death of its last process: fed, read, watched and, at a limit, ended."""

from __future__ import annotations

import asyncio
import json
import marshal
import os
import select
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from chimera.core.errors import HealingError, SandboxUnavailable
from chimera.healing.sandbox.births import Births
from chimera.healing.sandbox.port import Limits, SandboxResult, Wall
from chimera.healing.sandbox.seccomp import births
from chimera.healing.sandbox.watch import EVERY_S, Watch, below

LAUNCHER = Path(__file__).with_name("launcher.py")

CHUNK = 65_536

ENDING_S = 10.0
"""How long the end of killed processes is waited for. The kernel needs milliseconds; a machine in trouble more."""

AT_ONCE = 16
"""How many runs go on at a time in this process; more wait for their turn."""

_threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="sandbox")


@dataclass(frozen=True, slots=True)
class Launch:
    """How a sandbox starts a run.

    `spec` is what the launcher is told (see launcher.py). `command` makes the program and its arguments out of the
    descriptors of `spec`, of `program` (the seccomp filter, if `program` is not empty) and of the pipe that bubblewrap
    tells its child's number on. With `leash` the launcher ends everything when the pipe of that name closes.
    """

    spec: dict[str, Any]
    command: Callable[[int, int, int], list[str]]
    folders: Sequence[Path]
    leash: bool
    program: bytes = b""


@dataclass(slots=True)
class Output:
    """What came out of a pipe, up to a bound."""

    most: int
    data: bytearray = field(default_factory=bytearray)
    truncated: bool = False

    def take(self, chunk: bytes) -> None:
        room = self.most - len(self.data)
        self.data += chunk[:room]
        self.truncated |= len(chunk) > room


async def run(launch: Launch, limits: Limits, stdin: bytes) -> SandboxResult:
    """The result of a run, which goes on in a thread. Cancelled, it ends the run first."""
    stop = os.eventfd(0, os.EFD_NONBLOCK)
    done = asyncio.get_running_loop().run_in_executor(_threads, lambda: Run(launch, limits, stdin, stop).result())
    try:
        return await asyncio.shield(done)
    except asyncio.CancelledError:
        os.eventfd_write(stop, 1)
        await asyncio.wait({done})
        raise
    finally:
        os.close(stop)


def limits_of(limits: Limits) -> dict[str, int]:
    """What the kernel bounds for each process."""
    return {
        "RLIMIT_AS": limits.memory_bytes,
        "RLIMIT_CPU": max(1, round(limits.cpu_s + 0.5)),
        "RLIMIT_FSIZE": limits.disk_bytes,
        "RLIMIT_NOFILE": limits.files,
        "RLIMIT_NPROC": limits.processes,
        "RLIMIT_CORE": 0,
    }


class Run:
    """One run. Everything here happens in one thread, which the processes do not outlive."""

    def __init__(self, launch: Launch, limits: Limits, stdin: bytes, stop: int) -> None:
        self._launch = launch
        self._limits = limits
        self._stdin = memoryview(stdin)
        self._stop = stop
        self._watch = Watch(limits, launch.folders)
        self._out = Output(limits.output_bytes)
        self._err = Output(limits.output_bytes)
        self._said = Output(1024)  # the launcher: "ok" once all walls stand
        self._told = Output(4096)  # bubblewrap: the number of its child
        self._root = 0  # below it are the run's processes; known once the sandbox has told
        self._handles: list[int] = []
        self._listeners: list[int] = []
        self._feed_to: IO[bytes]
        self._asked: socket.socket  # on which the launcher hands over the listener of `_births`
        self._births: Births | None = None
        self._pipes: list[tuple[IO[bytes], Output]] = []
        self._killed_for: Wall | None = None

    def result(self) -> SandboxResult:
        """Do it. Raises SandboxUnavailable if the command was not started because a wall could not be put up."""
        started = time.monotonic()
        with ExitStack() as stack:
            process, leash = self._start(stack)
            stack.callback(self._forget)
            selector = stack.enter_context(selectors.DefaultSelector())
            self._handles.append(os.pidfd_open(process.pid))
            selector.register(self._handles[0], selectors.EVENT_READ, self._handles[0])
            selector.register(self._stop, selectors.EVENT_READ, self._stop)
            try:
                self._follow(selector, process, started + self._limits.wall_s)
            finally:
                self._end(process, leash)
                status, usage = _reap(process)
            self._drain(selector)
        wall_s = time.monotonic() - started
        if not self._said.data.startswith(b"ok"):
            raise SandboxUnavailable(self._why_not_started())
        return self._ending(status, wall_s, max(self._watch.cpu_s, usage))

    def _start(self, stack: ExitStack) -> tuple[subprocess.Popen[bytes], IO[bytes] | None]:
        """The sandbox's first process. What is inherited by it is closed here."""
        launch = self._launch
        said, says = _pipe(stack)
        told, tells = _pipe(stack)
        leashed, holds = _pipe(stack)
        asked, asks = (stack.enter_context(end) for end in socket.socketpair())
        program, call = births()
        spec = launch.spec | {"status_fd": says.fileno(), "leash_fd": leashed.fileno(), "births_fd": asks.fileno()}
        spec |= {"births": program, "seccomp_call": call, "root": os.getuid() == 0}
        given = _memory(stack, "spec", marshal.dumps(spec))
        filter_ = _memory(stack, "filter", launch.program)
        process = subprocess.Popen(
            launch.command(given, filter_, tells.fileno()),
            env={},
            cwd="/",
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,
            pass_fds=(given, filter_, says.fileno(), asks.fileno(), (leashed if launch.leash else tells).fileno()),
        )
        for end in (says, tells, leashed, asks):
            end.close()
        self._asked = asked
        assert process.stdin and process.stdout and process.stderr
        self._feed_to = stack.enter_context(process.stdin)
        out, err = stack.enter_context(process.stdout), stack.enter_context(process.stderr)
        self._pipes = [(out, self._out), (err, self._err), (said, self._said), (told, self._told)]
        if launch.leash:
            self._root = process.pid
            return process, holds
        return process, None

    def _forget(self) -> None:
        for handle in (*self._handles, *self._listeners):
            os.close(handle)

    def _follow(self, selector: selectors.BaseSelector, process: subprocess.Popen[bytes], deadline: float) -> None:
        """Until it ends by itself, passes a limit or is to stop."""
        feed = self._feed_to
        for pipe, output in self._pipes:
            selector.register(pipe, selectors.EVENT_READ, output)
        selector.register(self._asked, selectors.EVENT_READ, self._asked)
        if self._stdin:
            os.set_blocking(feed.fileno(), False)
            selector.register(feed, selectors.EVENT_WRITE, feed)
        else:
            feed.close()
        look_at = 0.0
        while not self._killed_for:
            now = time.monotonic()
            if now >= deadline:
                self._killed_for = "time"
            elif now >= look_at and self._root:
                self._killed_for = self._watch.over(self._root)
                look_at = time.monotonic() + EVERY_S
            if self._killed_for:
                return
            for key, _ in selector.select(min(EVERY_S, deadline - now)):
                if key.data in (self._stop, self._handles[0]):
                    return
                if key.data is feed:
                    self._feed(selector)
                elif key.data is self._asked:
                    self._listen(selector)
                elif key.data is self._births:
                    self._answer(selector, key)
                else:
                    self._read(selector, key)
            if self._out.truncated or self._err.truncated:
                self._killed_for = "output"

    def _feed(self, selector: selectors.BaseSelector) -> None:
        feed = self._feed_to
        try:
            self._stdin = self._stdin[os.write(feed.fileno(), self._stdin[:CHUNK]) :]
        except BlockingIOError:
            return
        except OSError:  # it does not read what it is given
            self._stdin = self._stdin[:0]
        if not self._stdin:
            selector.unregister(feed)
            feed.close()

    def _listen(self, selector: selectors.BaseSelector) -> None:
        """The launcher hands over the listener; or has ended without, and then no command was started."""
        _, listeners, _, _ = socket.recv_fds(self._asked, 1, 1)
        selector.unregister(self._asked)
        if listeners:
            self._listeners = listeners
            self._births = Births(listeners[0], self._limits.processes, self._living)
            selector.register(listeners[0], selectors.EVENT_READ, self._births)

    def _living(self) -> int:
        return below(self._root, self._limits.processes)[1]

    def _answer(self, selector: selectors.BaseSelector, key: selectors.SelectorKey) -> None:
        assert self._births is not None
        allowed = self._births.answer()
        if allowed is None:
            selector.unregister(key.fileobj)
        elif not allowed:
            self._killed_for = "processes"

    def _read(self, selector: selectors.BaseSelector, key: selectors.SelectorKey) -> None:
        chunk = os.read(key.fd, CHUNK)
        if not chunk:
            selector.unregister(key.fileobj)
        key.data.take(chunk)
        if key.data is self._told and not self._root and b"}" in self._told.data:
            self._root = int(json.loads(bytes(self._told.data))["child-pid"])
            with suppress(ProcessLookupError):
                self._handles.append(os.pidfd_open(self._root))

    def _end(self, process: subprocess.Popen[bytes], leash: IO[bytes] | None) -> None:
        """No process is left after this. Raises HealingError if that could not be brought about."""
        if leash is not None:
            leash.close()
        else:
            for handle in reversed(self._handles):
                with suppress(ProcessLookupError):
                    signal.pidfd_send_signal(handle, signal.SIGKILL)
        if not all(_over(handle, ENDING_S) for handle in self._handles):
            for pid in (*below(process.pid)[0], process.pid):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if not _over(self._handles[0], ENDING_S):
                raise HealingError(f"process {process.pid} of a sandbox cannot be ended: look at what it hangs in")

    def _drain(self, selector: selectors.BaseSelector) -> None:
        """What is still in the pipes. Nobody writes to them any more."""
        for key in list(selector.get_map().values()):
            if isinstance(key.data, Output):
                os.set_blocking(key.fd, False)
                with suppress(BlockingIOError):
                    while chunk := os.read(key.fd, CHUNK):
                        key.data.take(chunk)

    def _why_not_started(self) -> str:
        said = (bytes(self._said.data) + b" " + bytes(self._err.data)).decode(errors="replace").strip()
        return said or f"it was not ready within {self._limits.wall_s:g} s"

    def _ending(self, status: int, wall_s: float, cpu_s: float) -> SandboxResult:
        code = os.waitstatus_to_exitcode(status)
        number = -code if code < 0 else code - 128 if 128 < code <= 128 + signal.NSIG else None
        killed_for = self._killed_for
        if killed_for is None:
            if self._out.truncated or self._err.truncated:
                killed_for = "output"
            elif number == signal.SIGXCPU or cpu_s > self._limits.cpu_s:
                killed_for = "cpu"
            elif self._watch.disk_full():
                killed_for = "disk"
        return SandboxResult(
            exit_code=None if number is not None else code,
            signal=number,
            stdout=bytes(self._out.data),
            stderr=bytes(self._err.data),
            truncated=self._out.truncated or self._err.truncated,
            timed_out=killed_for == "time",
            killed_for=killed_for,
            wall_s=wall_s,
            cpu_s=cpu_s,
        )


def python() -> list[str]:
    """The interpreter for the launcher: nothing from the environment, no site packages."""
    return [sys.executable, "-I", "-S", str(LAUNCHER)]


def _pipe(stack: ExitStack) -> tuple[IO[bytes], IO[bytes]]:
    reads, writes = os.pipe2(os.O_CLOEXEC)
    return stack.enter_context(open(reads, "rb", 0)), stack.enter_context(open(writes, "wb", 0))


def _memory(stack: ExitStack, name: str, data: bytes) -> int:
    """A file in memory that holds `data`, at its beginning."""
    file = stack.enter_context(os.fdopen(os.memfd_create(name), "w+b", 0))
    file.write(data)
    file.seek(0)
    return file.fileno()


def _over(handle: int, within_s: float) -> bool:
    """Whether the process has ended within that time."""
    poll = select.poll()
    poll.register(handle, select.POLLIN)
    return bool(poll.poll(within_s * 1000))


def _reap(process: subprocess.Popen[bytes]) -> tuple[int, float]:
    """How the first process ended, and the processor time of it and all that it has seen end."""
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return status, usage.ru_utime + usage.ru_stime
