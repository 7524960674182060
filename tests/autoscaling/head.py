"""A head node with Ray's own autoscaler (v2), whose cloud is this machine. On loopback, with token authentication.

Everything it starts carries `SCALED_HEAD=<marker>` in its environment. A guard process ends all that does, and removes
the folder, as soon as its standard input closes: when the head is stopped, or when whoever started it dies.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]

MARKER = "SCALED_HEAD"

NODE = "SCALED_NODE"
"""The variable that carries a worker node's name in the environment of its processes."""

HEAD = "head"
"""The head's node type and instance."""

SMALL_NODE = (
    "--object-store-memory=83886080",
    "--dashboard-agent-listen-port=0",  # 0: the kernel chooses, since nodes of one host must not share ports
    "--min-worker-port=0",
    "--max-worker-port=0",
    "--include-log-monitor=false",
    "--disable-usage-stats",
)

HEAD_CELLS, WORKER_CELLS, MAX_WORKERS = 1, 4, 2

START_S = 90.0

SWEEP_S = 20.0

HEALTH = {
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "3",
}


class ScaledHead:
    """A cluster of one node that grows to `1 + MAX_WORKERS` and shrinks again. A node that is idle goes after `idle_s`.

    `address` is HOST:PORT; `environment` is what a driver needs, before it imports Ray, to be let in.
    """

    def __init__(self, *, idle_s: float = 3.0) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="sh"))
        port, *others = free_ports(4)
        self.address = f"127.0.0.1:{port}"
        self.marker = f"{self.folder.name}-{port}"
        self.environment = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "CHIMERA_"))} | {
            MARKER: self.marker,
            "PYTHONPATH": str(ROOT),
            "RAY_ADDRESS": self.address,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # or Ray takes another address than 127.0.0.1
            "RAY_USAGE_STATS_ENABLED": "0",
        }
        self._guard = start_guard(self.marker, self.folder)
        try:
            self._start(port, others, idle_s)
        except BaseException:
            self.stop()
            raise

    def alive(self) -> int:
        """Nodes whose raylet runs, the head among them."""
        return len(raylets(self.marker))

    def nodes(self) -> list[str]:
        """The names of the worker nodes that run, oldest first."""
        return sorted(filter(None, raylets(self.marker)), key=lambda name: int(name[1:]))

    def kill_node(self, i: int) -> str:
        """kill -9 of all processes of the i-th worker node, as when a machine dies. Its name."""
        return kill_node(self.marker, i)

    def start_driver(self, script: Path, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        """A Python process that may join this cluster; its standard output is a pipe."""
        return subprocess.Popen(
            [sys.executable, str(script), *arguments],
            cwd=ROOT,
            env={**self.environment, "CHIMERA_ADDRESS": self.address, **environment},
            stdout=subprocess.PIPE,
            text=True,
        )

    def run_driver(self, script: Path, *arguments: str, timeout_s: float, **environment: str) -> str:
        """Run a driver to its end and return what it printed. Raises CalledProcessError, TimeoutExpired."""
        with self.start_driver(script, *arguments, **environment) as driver:
            try:
                printed, _ = driver.communicate(timeout=timeout_s)
            except BaseException:
                driver.kill()
                raise
        if driver.returncode:
            raise subprocess.CalledProcessError(driver.returncode, driver.args, printed)
        return printed

    def stop(self) -> None:
        """End every process of the cluster, also the drivers. Safe to repeat."""
        assert self._guard.stdin is not None
        self._guard.stdin.close()
        self._guard.wait()

    def _start(self, port: int, others: list[int], idle_s: float) -> None:
        config = self.folder / "autoscaling.json"
        config.write_text(json.dumps(autoscaling(self.address, self.folder, idle_s)))
        client_port, autoscaler_port, dashboard_port = others
        command = [
            *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"),
            "--node-ip-address=127.0.0.1",
            f"--port={port}",
            f"--ray-client-server-port={client_port}",
            f"--temp-dir={self.folder / 'head'}",
            f"--autoscaling-config={config}",
            "--include-dashboard=false",
            "--num-cpus=1",
            f"--resources={json.dumps({'chimera_cell': HEAD_CELLS})}",
            *SMALL_NODE,
        ]
        environment = {k: v for k, v in self.environment.items() if k != "RAY_ADDRESS"} | {
            **HEALTH,
            "RAY_enable_autoscaler_v2": "1",
            "RAY_NODE_TYPE_NAME": HEAD,
            "RAY_CLOUD_INSTANCE_ID": HEAD,
            "AUTOSCALER_UPDATE_INTERVAL_S": "1",
            "AUTOSCALER_METRIC_PORT": str(autoscaler_port),
            "DASHBOARD_METRIC_PORT": str(dashboard_port),
            "PYTHONUNBUFFERED": "1",
        }
        path = self.folder / "head.log"
        with open(path, "ab") as log:
            head = subprocess.Popen(
                command, env=environment, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip
        until = time.monotonic() + START_S
        while b"This command will now block" not in (said := path.read_bytes()):
            if head.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"the head did not start: {said[-2000:].decode(errors='replace')}")
            time.sleep(0.1)


def autoscaling(address: str, folder: Path, idle_s: float) -> dict[str, Any]:
    """The autoscaler's configuration. It wants every key, also those that say nothing here."""
    return {
        "cluster_name": "scaled",
        "max_workers": MAX_WORKERS,
        "upscaling_speed": 10,
        "idle_timeout_minutes": idle_s / 60,
        "provider": {
            "type": "external",
            "module": "tests.autoscaling.provider.LocalProcesses",
            "disable_node_updaters": True,
            "gcs_address": address,
            "head_type": HEAD,
            "folder": str(folder),
        },
        "head_node_type": HEAD,
        "available_node_types": {
            HEAD: {
                "resources": {"CPU": 1, "chimera_cell": HEAD_CELLS},
                "node_config": {},
                "min_workers": 0,
                "max_workers": 0,
            },
            "worker": {
                "resources": {"CPU": 2, "chimera_cell": WORKER_CELLS},
                "node_config": {},
                "min_workers": 0,
                "max_workers": MAX_WORKERS,
            },
        },
        **{name: {} for name in ("auth", "docker", "file_mounts")},
        **{name: [] for name in ("cluster_synced_files", "rsync_exclude", "rsync_filter", "initialization_commands")},
        **{f"{whose}setup_commands": [] for whose in ("", "head_", "worker_")},
        **{f"{whose}_start_ray_commands": [] for whose in ("head", "worker")},
        "file_mounts_sync_continuously": False,
    }


def start_guard(marker: str, folder: Path) -> subprocess.Popen[bytes]:
    """A process that cleans up once its standard input closes; only the caller holds the other end of it."""
    command = [sys.executable, "-m", "tests.autoscaling.head", marker, str(folder)]
    return subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, start_new_session=True)


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody listens on, all different."""
    with contextlib.ExitStack() as probes:
        sockets = [probes.enter_context(socket.socket()) for _ in range(count)]
        for probe in sockets:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in sockets]


def processes(marker: str) -> Iterator[tuple[int, dict[str, str]]]:
    """The pid and the environment of whatever carries the marker, whoever its parent is now."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            told = (entry / "environ").read_bytes().decode(errors="replace")
        except OSError:  # it has ended, or is not ours
            continue
        environment = dict(pair.split("=", 1) for pair in told.split("\0") if "=" in pair)
        if environment.get(MARKER) == marker:
            yield int(entry.name), environment


def raylets(marker: str) -> list[str]:
    """The names of the nodes whose raylet runs; the head's is empty."""
    found = []
    for pid, environment in processes(marker):
        with contextlib.suppress(OSError):
            if Path(f"/proc/{pid}/comm").read_text().strip() == "raylet":
                found.append(environment.get(NODE, ""))
    return found


def kill_node(marker: str, i: int) -> str:
    """See `ScaledHead.kill_node`; a driver knows the marker from its environment."""
    name = sorted(filter(None, raylets(marker)), key=lambda name: int(name[1:]))[i]
    signal_all([pid for pid, environment in processes(marker) if environment.get(NODE) == name], signal.SIGKILL)
    return name


def signal_all(pids: list[int], sign: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(OSError):
            os.kill(pid, sign)


def sweep(marker: str) -> None:
    """Kill all that carries the marker, until nothing does: what was just being started is met the next time."""
    until = time.monotonic() + SWEEP_S
    while (left := [pid for pid, _ in processes(marker)]) and time.monotonic() < until:
        signal_all(left, signal.SIGKILL)
        time.sleep(0.1)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.stdin.read()
    sweep(sys.argv[1])
    shutil.rmtree(sys.argv[2], ignore_errors=True)
