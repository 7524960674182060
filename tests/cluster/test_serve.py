"""`chimera serve` as it is used: a process with its own Ray, asked over HTTP, SSE and WebSocket, replaced and ended."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from chimera import AgentSpec, Client, SwarmCoordinator, Task
from chimera.core.errors import Forbidden, Unauthenticated
from chimera.core.events import EventKind
from chimera.core.types import MissionState
from tests.conftest import ROOT, free_port

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(240)]

PASSWORD = "nobody would guess this one 7"

SHELL = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)

SKY = Task(goal="what colour is the sky?", inputs={"text": "Grass is green. The sky is blue."}, replicas=3)


def command(*arguments: str, home: Path, **environment: str) -> dict[str, Any]:
    names = {name: value for name, value in os.environ.items() if not name.startswith("RAY_ADDRESS")}
    return {
        "args": [sys.executable, "-m", "chimera", *arguments],
        "cwd": ROOT,
        "env": {**names, "CHIMERA_HOME": str(home), "OMP_NUM_THREADS": "1", **environment},
        "text": True,
    }


def chimera(*arguments: str, home: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(**command(*arguments, home=home), capture_output=True, timeout=100, check=False)


def shell(script: str, **names: str) -> str:
    done = subprocess.run(
        ["bash", "-ec", script], env={**os.environ, **names}, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def documents(text: str) -> list[Any]:
    found, at = [], 0
    while at < len(text):
        document, at = json.JSONDecoder().raw_decode(text, at)
        found.append(document)
    return found


@dataclass
class Node:
    """A running `chimera serve`, and what it printed."""

    process: subprocess.Popen[str]
    home: Path
    url: str
    user: str
    one_time_password: str

    def says(self, wanted: str) -> None:
        """Wait until it has said that."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            if wanted in line:
                return
        raise AssertionError(f"it ended and did not say {wanted!r}")

    def login(self) -> Client:
        client = Client(self.url)
        client.login(self.user, PASSWORD)
        return client


@pytest.fixture(scope="module")
def node(short_tmp: Path) -> Iterator[Node]:
    home = short_tmp / "node"
    (short_tmp / "serve").mkdir()
    told = command(
        *("serve", "--address", "local", "--port", "0", "--rate", "5000", "--json"),
        home=home,
        RAY_TMPDIR=str(short_tmp / "serve"),
        AUTOSCALER_METRIC_PORT=str(free_port()),
        DASHBOARD_METRIC_PORT=str(free_port()),
    )
    process = subprocess.Popen(**told, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert line, process.communicate()[1]
        said = json.loads(line)
        yield Node(process, home, said["url"], said["user"], said["one_time_password"])
    finally:
        if process.poll() is None:
            process.terminate()
            process.communicate(timeout=60)


def test_the_quick_start_of_the_docs_works_word_for_word(node: Node) -> None:
    """The first login changes the one-time password; a task is submitted, waited for and its events are read."""
    first, second, third = SHELL.findall((ROOT / "docs" / "api.md").read_text(encoding="utf-8"))
    names = {"NODE": node.url, "ONE_TIME": node.one_time_password, "PASSWORD": PASSWORD}
    names["TOKEN"] = json.loads(shell(first, **names))["access_token"]
    spawned, submitted = documents(shell(second, **names))
    assert len(spawned["agents"]) == 3
    told = shell(third, **names, MISSION=submitted["mission_id"])
    result, end = json.JSONDecoder().raw_decode(told)
    assert result["value"] == "The sky is blue."
    assert told[end:].count("event: mission_ended") == 1


def test_the_one_time_password_is_of_no_more_use(node: Node) -> None:
    with Client(node.url) as client:
        with pytest.raises(Unauthenticated):
            client.login(node.user, node.one_time_password)
        client.login(node.user, PASSWORD)
        assert client.who()["role"] == "admin"
    kept = b"".join(file.read_bytes() for file in node.home.rglob("*") if file.is_file())
    assert node.one_time_password.encode() not in kept and PASSWORD.encode() not in kept


def test_a_question_is_answered_and_its_events_come_over_sse(node: Node) -> None:
    with node.login() as client:
        before = client.status().agents
        assert before == 6 + 3 and len(client.spawn_agents([AgentSpec(role="more")] * 2)) == 2
        assert client.status().agents == before + 2
        mission_id = client.start_task(SKY)
        kinds = [event.kind for event in client.events(mission_id)]
        result = client.result(mission_id)
        assert (result.state, result.value) == (MissionState.ANSWERED, "The sky is blue.")
        assert kinds[0] is EventKind.MISSION_ADMITTED and kinds[-1] is EventKind.MISSION_ENDED
        assert "swarm_agents" in client.anomalies()["metrics"]
        assert client.audit(action="POST /api/swarm/task")[-1]["actor"] == node.user


async def test_a_script_and_a_web_socket_do_the_same(node: Node) -> None:
    with node.login() as client:
        token = client.create_key("operator", label="socket")[0]
    async with SwarmCoordinator(address=node.url, token=token) as swarm:
        assert (await swarm.submit_task(SKY)).value == "The sky is blue."
    async with connect(node.url.replace("http", "ws") + "/ws") as web_socket:
        await web_socket.send(json.dumps({"type": "authenticate", "token": token}))
        assert json.loads(await web_socket.recv())["type"] == "authenticated"
        task = SKY.model_dump(mode="json", include={"goal", "inputs", "replicas"})
        await web_socket.send(json.dumps({"type": "submit_task", "id": "1", **task}))
        mission_id = json.loads(await web_socket.recv())["mission_id"]
        await web_socket.send(json.dumps({"type": "subscribe", "id": "2", "mission_id": mission_id}))
        seen: list[dict[str, Any]] = []
        while not seen or seen[-1]["type"] != "ended":
            seen.append(json.loads(await web_socket.recv()))
        assert [told["event"]["kind"] for told in seen if told["type"] == "event"][-1] == "mission_ended"


def test_users_and_keys_are_managed_beside_it(node: Node) -> None:
    made = chimera("users", "add", "ada", "--role", "observer", "--json", home=node.home)
    assert made.returncode == 0, made.stderr
    with Client(node.url) as ada:
        ada.login("ada", json.loads(made.stdout)["one_time_password"], PASSWORD)
        with pytest.raises(Forbidden):
            ada.start_task(SKY)
        assert chimera("users", "role", "ada", "operator", home=node.home).returncode == 0
        ada.login("ada", PASSWORD)
        assert ada.submit_task(SKY).state is MissionState.ANSWERED
        key = json.loads(chimera("keys", "create", "ada", "--role", "operator", "--json", home=node.home).stdout)
        with Client(node.url, key["secret"]) as program:
            assert program.missions()
            assert chimera("keys", "revoke", key["id"], home=node.home).returncode == 0
            with pytest.raises(Unauthenticated):
                program.missions()


async def test_a_redeploy_under_load_fails_no_request(node: Node) -> None:
    """Connections that are kept, new ones for each request, missions; and a socket, which is told to come again."""
    with node.login() as client:
        headers = {"authorization": f"Bearer {client.create_key('operator', rate_limit=100_000)[0]}"}
    done = {"kept": 0, "new": 0, "missions": 0}
    over = False

    async def keep() -> None:
        async with httpx2.AsyncClient(base_url=node.url, headers=headers, timeout=60) as http:
            while not over:
                assert (await http.get("/api/reload/stats")).status_code == 200
                done["kept"] += 1

    async def renew() -> None:
        while not over:
            async with httpx2.AsyncClient(base_url=node.url, headers=headers, timeout=60) as http:
                assert (await http.get("/healthz")).status_code == 200
            done["new"] += 1

    async def submit() -> None:
        task = SKY.model_dump(mode="json", include={"goal", "inputs"})
        async with httpx2.AsyncClient(base_url=node.url, headers=headers, timeout=60) as http:
            while not over:
                made = await http.post("/api/swarm/task", json=task)
                assert made.status_code == 202
                ended = await http.get(f"/api/swarm/missions/{made.json()['mission_id']}", params={"wait_s": 20})
                assert ended.json()["state"] == "answered"
                done["missions"] += 1

    token = headers["authorization"].removeprefix("Bearer ")
    async with connect(node.url.replace("http", "ws") + "/ws") as web_socket:
        await web_socket.send(json.dumps({"type": "authenticate", "token": token}))
        await web_socket.recv()
        asking = [asyncio.create_task(work()) for work in (keep, keep, renew, submit)]
        for _ in range(2):
            before = dict(done)
            node.process.send_signal(signal.SIGHUP)
            await asyncio.to_thread(node.says, "a new gateway serves")
            assert all(done[name] > before[name] for name in done)
        with pytest.raises(ConnectionClosed) as closed:
            await web_socket.recv()
        assert closed.value.rcvd is not None and closed.value.rcvd.code == 1012
    over = True
    await asyncio.gather(*asking)


def test_what_cannot_be_served_is_refused_before_anything_is_started(node: Node) -> None:
    port = node.url.rpartition(":")[2]
    for arguments, said in (
        (("--port", port), "is taken"),
        (("--host", "0.0.0.0"), "--plain"),
        (("--reload-key", "x"), "public key"),
        (("--origin", "example.org/page"), "no origin"),
        (("--model", "nobody:x"), "not a model"),
    ):
        refused = chimera("serve", "--address", "local", *arguments, home=node.home / "other")
        assert (refused.returncode, refused.stdout) == (2, ""), refused.stderr
        assert said in refused.stderr and "Traceback" not in refused.stderr


def test_sigterm_ends_all_of_it(node: Node) -> None:
    """The last test of the node: afterwards it is gone."""
    marks = {f"RAY_TMPDIR={node.home.parent / 'serve'}".encode()}
    mine = [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if marks & environment_of(pid)]
    assert len(mine) > 5, "Ray's processes and the actors'"
    node.process.terminate()
    _, said = node.process.communicate(timeout=60)
    assert node.process.returncode == 0 and said.count("ending: ") == 1, said
    until = time.monotonic() + 30.0  # Ray's workers notice by themselves that their node is gone
    while (left := [pid for pid in mine if marks & environment_of(pid)]) and time.monotonic() < until:
        time.sleep(0.1)
    assert left == []
    with pytest.raises(httpx2.ConnectError):
        httpx2.get(f"{node.url}/healthz")
    again = chimera("users", "list", "--json", home=node.home)
    assert [json.loads(line)["name"] for line in again.stdout.splitlines()] == ["ada", "admin"]


def environment_of(pid: int) -> set[bytes]:
    try:
        return set(Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"))
    except OSError:
        return set()
