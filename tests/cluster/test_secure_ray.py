"""A Ray that Chimera starts with RAY_USE_TLS and a token: who is let in, what is encrypted, and where it listens."""

from __future__ import annotations

import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from chimera.core.clock import SystemClock
from chimera.security import certificates
from tests.conftest import ROOT, free_port

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400)]

NODE = """
import asyncio, json, sys
from chimera import AgentSpec, Settings, SwarmCoordinator, Task
from chimera.actors import cluster

async def main():
    connection = cluster.connect(Settings(address="local"))
    settings = Settings(address=connection.address, cells=1)
    async with SwarmCoordinator(max_agents=5, settings=settings) as swarm:
        await swarm.spawn_agents([AgentSpec(role="analyzer", policy="tests.policies:answer")])
        result = await swarm.submit_task(Task(goal="what is it?", role="analyzer", replicas=1, deadline_s=90.0))
        print(json.dumps({"address": connection.address, "value": result.value}), flush=True)
        await asyncio.to_thread(sys.stdin.read)
    cluster.disconnect(connection)

asyncio.run(main())
"""

STARTS = 3
"""Ray gives a node 30 s to start, which is not always enough on a busy machine."""

LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}

HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
"""How a gRPC client begins (RFC 9113, section 3.4). A server that lets it in says SETTINGS, frame type 4."""


@dataclass(frozen=True)
class Node:
    environment: dict[str, str]
    address: str
    value: object
    folder: Path
    marker: bytes

    def pids(self) -> list[int]:
        return marked(self.marker)

    def listening(self) -> dict[int, str]:
        """Ports that its processes accept TCP connections at, and the address in the hexadecimal of /proc/net/tcp."""
        sockets = set()
        for pid in self.pids():
            for fd in Path(f"/proc/{pid}/fd").glob("*"):
                try:
                    sockets.add(os.readlink(fd))
                except OSError:  # closed meanwhile
                    continue
        found = {}
        for table in ("tcp", "tcp6"):
            for line in Path(f"/proc/net/{table}").read_text(encoding="ascii").splitlines()[1:]:
                fields = line.split()
                if fields[3] == "0A" and f"socket:[{fields[9]}]" in sockets:
                    host, _, port = fields[1].partition(":")
                    found[int(port, 16)] = host
        return found


def marked(marker: bytes) -> list[int]:
    """Processes that carry this in their environment, whoever their parent is."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and marker in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def end(process: subprocess.Popen[str], marker: bytes) -> None:
    """As a user would; what is left after that is killed."""
    if process.poll() is None and process.stdin is not None:
        process.stdin.close()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
    until = time.monotonic() + 30
    while (left := marked(marker)) and time.monotonic() < until:
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(0.2)
    assert marked(marker) == []


def begun(environment: dict[str, str], log: Path) -> tuple[subprocess.Popen[str], dict[str, object]]:
    marker = f"RAY_TMPDIR={environment['RAY_TMPDIR']}".encode()
    for _ in range(STARTS):
        process = subprocess.Popen(
            [sys.executable, "-c", NODE], cwd=ROOT, env=environment, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log.open("a"),
        )  # fmt: skip
        assert process.stdout is not None
        if told := process.stdout.readline():
            return process, json.loads(told)
        end(process, marker)
        if "timed out during startup" not in log.read_text(encoding="utf-8"):
            break
    raise AssertionError(log.read_text(encoding="utf-8")[-3_000:])


@pytest.fixture(scope="module")
def node(short_tmp: Path) -> Iterator[Node]:
    folder = short_tmp / "tls"
    (folder / "user").mkdir(parents=True)
    (folder / "token").write_text("a" * 64)
    (folder / "wrong").write_text("b" * 64)
    made = certificates.make(folder / "ours", "node", [], clock=SystemClock())
    certificates.make(folder / "theirs", "node", [], clock=SystemClock())
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "CHIMERA_"))}
    environment = {
        **kept,
        **made.environment(),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(folder / "token"),
        "RAY_TMPDIR": str(folder),
        "AUTOSCALER_METRIC_PORT": str(free_port()),
        "DASHBOARD_METRIC_PORT": str(free_port()),
        "CHIMERA_HOME": str(folder / "home"),
        "HOME": str(folder / "user"),
    }
    process, told = begun(environment, folder / "log")
    marker = f"RAY_TMPDIR={folder}".encode()
    client = {name: value for name, value in environment.items() if name != "RAY_TMPDIR"}
    try:
        yield Node(client, str(told["address"]), told["value"], folder, marker)
    finally:
        end(process, marker)


def top(node: Node, **changes: str | None) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in (node.environment | changes).items() if value is not None}
    return subprocess.run(
        [sys.executable, "-m", "chimera", "top", "--once", "--json", "--address", node.address],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip


def test_a_swarm_answers_a_task_over_tls(node: Node) -> None:
    assert node.value == 42
    done = top(node)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["agents_by_role"].keys() == {"analyzer"}


FILES = {"RAY_TLS_SERVER_CERT": "cert.pem", "RAY_TLS_SERVER_KEY": "key.pem", "RAY_TLS_CA_CERT": "ca.pem"}

REFUSED = {
    "no certificate": ({"RAY_USE_TLS": None}, "a cluster that uses TLS wants RAY_USE_TLS=1"),
    "another authority": (dict.fromkeys(FILES, "theirs"), "must be of the cluster's own authority"),
    "an authority that the node does not know": (
        {"RAY_TLS_SERVER_CERT": "theirs", "RAY_TLS_SERVER_KEY": "theirs"},
        "must be of the cluster's own authority",
    ),
    "no token": ({"RAY_AUTH_TOKEN_PATH": None}, "couldn't find an authentication token"),
    "no word of a token": ({"RAY_AUTH_TOKEN_PATH": None, "RAY_AUTH_MODE": None}, "set RAY_AUTH_MODE=token"),
    "a wrong token": ({"RAY_AUTH_TOKEN_PATH": "wrong"}, "does not take this token"),
}


@pytest.mark.parametrize("who", REFUSED)
def test_it_is_said_who_is_refused_and_why(node: Node, who: str) -> None:
    changes, said = REFUSED[who]
    paths = {
        name: str(node.folder / "theirs" / "node" / FILES[name] if name in FILES else node.folder / value)
        for name, value in changes.items()
        if value is not None
    }
    done = top(node, **{**changes, **paths})
    assert done.returncode == 2, done.stderr
    assert said in done.stderr and "Traceback" not in done.stderr
    assert json.loads(done.stdout)["error"]["kind"] == "NoCluster"


def test_nothing_of_it_listens_beyond_loopback(node: Node) -> None:
    found = node.listening()
    assert int(node.address.rpartition(":")[2]) in found and len(found) > 8, "the head's, the raylet's, a worker's ..."
    assert {port: host for port, host in found.items() if host not in LOOPBACK} == {}


def lets_in(port: int, certificate: Path | None) -> bool:
    """Whether a gRPC server there goes on after the handshake with this client."""
    context = ssl.create_default_context(cafile=str(certificate.parent / "ca.pem") if certificate else None)
    if certificate:
        context.load_cert_chain(certificate, certificate.with_name("key.pem"))
    else:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    try:
        with (
            socket.create_connection(("127.0.0.1", port), timeout=30) as line,
            context.wrap_socket(line, server_hostname="127.0.0.1") as secure,
        ):
            secure.sendall(HELLO)
            return secure.recv(9)[3:4] == b"\x04"
    except (ssl.SSLError, ConnectionError):
        return False


def http_status(port: int, path: str) -> int:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=30) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_what_is_not_mutual_tls_is_http_that_docs_name(node: Node) -> None:
    """docs/cluster-security.md: the dashboard, the agents and the metrics. No line of Chimera's, no gRPC."""
    ports = list(node.listening())
    encrypted = {port for port in ports if lets_in(port, node.folder / "ours" / "node" / "cert.pem")}
    assert int(node.address.rpartition(":")[2]) in encrypted and len(encrypted) >= 5
    assert [port for port in encrypted if lets_in(port, None)] == []
    clear = {port: http_status(port, "/api/jobs/") for port in ports if port not in encrypted}
    assert set(clear.values()) <= {200, 401}, clear
    for port, status in clear.items():
        if status == 200:  # the metrics: whatever the path is
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/jobs/", timeout=30) as answer:
                assert answer.read(7) == b"# HELP "
