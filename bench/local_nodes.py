"""A Ray of one head and some worker nodes, all on this machine's loopback, whose nodes can be killed and replaced.

The processes carry a marker in their environment, by which they are found and in the end swept away: see
`tests.autoscaling.head`, whose guard does so even when this process is killed.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.autoscaling.head import (
    HEALTH,
    MARKER,
    NODE,
    ROOT,
    SMALL_NODE,
    START_S,
    free_ports,
    processes,
    start_guard,
)

LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
"""For the head and for drivers: or Ray takes another address than 127.0.0.1. A node that joins is refused with it."""

READY = b"This command will now block"


class LocalNodes:
    """`cells` is how many cells each worker node has room for; the head has none. A node's death is seen in 3 s.

    Entering it sets what a driver needs to be let in in this process's environment: do so before Ray is imported.
    """

    def __init__(self, *, workers: int, cells: int) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="ln"))
        port, *self._ports = free_ports(4)
        self.address = f"127.0.0.1:{port}"
        self.marker = f"{self.folder.name}-{port}"
        self._workers = workers
        self._cells = cells
        self._started = 0
        self._ours = {
            MARKER: self.marker,
            "PYTHONPATH": str(ROOT),
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "RAY_USAGE_STATS_ENABLED": "0",
        }
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "CHIMERA_"))}
        self._environment = inherited | self._ours

    def __enter__(self) -> Self:
        self._guard = start_guard(self.marker, self.folder)
        try:
            self._start_head()
            started = [self._start_node() for _ in range(self._workers)]
            for name, node in started:
                self._await(name, node)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        os.environ.update({name: told for name, told in self._ours.items() if name != MARKER} | LOOPBACK)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if "ray" in sys.modules:
            sys.modules["ray"].shutdown()  # what is still connected when its Ray goes is ended by it a minute later
        assert self._guard.stdin is not None
        self._guard.stdin.close()
        self._guard.wait()

    def kill_node(self, node_id: str) -> set[int]:
        """kill -9 of the raylet of the node whose Ray id begins so; the pids of all that ran on that node.

        Raises LookupError when there is none.
        """
        ours = list(processes(self.marker))
        for pid, environment in ours:
            with contextlib.suppress(OSError):
                command = Path(f"/proc/{pid}/cmdline").read_bytes()
                if NODE in environment and _is_raylet(pid) and f"--node_id={node_id}".encode() in command:
                    os.kill(pid, signal.SIGKILL)
                    return {other for other, its in ours if its.get(NODE) == environment[NODE]}
        raise LookupError(f"no worker node {node_id!r} runs here")

    def replace_nodes(self) -> None:
        """Join as many new nodes as are missing. Returns when they are there."""
        alive = sum(NODE in environment and _is_raylet(pid) for pid, environment in processes(self.marker))
        for name, node in [self._start_node() for _ in range(self._workers - alive)]:
            self._await(name, node)

    def _start_head(self) -> None:
        client_port, autoscaler_port, dashboard_port = self._ports
        command = [
            *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"),
            "--node-ip-address=127.0.0.1",
            f"--port={self.address.rpartition(':')[2]}",
            f"--ray-client-server-port={client_port}",
            f"--temp-dir={self.folder / 'head'}",
            "--include-dashboard=false",
            "--num-cpus=1",
            *SMALL_NODE,
        ]
        environment = {
            **self._environment,
            **LOOPBACK,
            **HEALTH,
            "AUTOSCALER_METRIC_PORT": str(autoscaler_port),
            "DASHBOARD_METRIC_PORT": str(dashboard_port),
            "PYTHONUNBUFFERED": "1",
        }
        self._await("head", self._run("head", command, environment))

    def _start_node(self) -> tuple[str, subprocess.Popen[bytes]]:
        self._started += 1
        name = f"n{self._started}"
        command = [
            *(sys.executable, "-m", "tests.autoscaling.join", "start", "--block"),
            f"--address={self.address}",
            "--node-ip-address=127.0.0.1",
            "--num-cpus=1",
            f"--resources={json.dumps({'chimera_cell': self._cells})}",
            f"--temp-dir={self.folder / name}",  # raylets that start together in one session race for socket names
            *SMALL_NODE,
        ]
        return name, self._run(name, command, {**self._environment, NODE: name, "PYTHONUNBUFFERED": "1"})

    def _run(self, name: str, command: list[str], environment: dict[str, str]) -> subprocess.Popen[bytes]:
        with open(self.folder / f"{name}.log", "ab") as log:
            return subprocess.Popen(
                command, env=environment, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip

    def _await(self, name: str, node: subprocess.Popen[bytes]) -> None:
        path = self.folder / f"{name}.log"
        until = time.monotonic() + START_S
        while READY not in (said := path.read_bytes()):
            if node.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"{name} did not start: {said[-2000:].decode(errors='replace')}")
            time.sleep(0.1)


def _is_raylet(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip() == "raylet"
    except OSError:
        return False
