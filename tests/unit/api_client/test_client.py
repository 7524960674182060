"""`chimera.Client` against a real server: the verbs, the errors, and no Ray."""

from __future__ import annotations

import asyncio
import base64
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

import chimera
from chimera import AgentSpec, Client, SwarmCoordinator, Task
from chimera.api.bodies import ReloadModule
from chimera.api.routes.node import signed_text
from chimera.core.errors import (
    Forbidden,
    InputError,
    MissionError,
    NoCluster,
    NotBuilt,
    NotThere,
    RateLimited,
    SwarmError,
    Unauthenticated,
)
from chimera.core.events import EventKind
from chimera.core.types import Budget, Consensus, MissionState
from chimera.security.roles import Role
from tests.api.serving import Served, served
from tests.api.whole import PASSWORD

KEY = Ed25519PrivateKey.generate()
PUBLIC = base64.b64encode(KEY.public_key().public_bytes_raw()).decode()

ECHO = Task(goal="say it", inputs={"value": 7})


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("node")
    with served(folder, reload_keys=(PUBLIC,), policies=("chimera.swarm.", "tests.policies:")) as made:
        yield made


@pytest.fixture
def client(node: Served) -> Iterator[Client]:
    with Client(node.url, node.token(Role.ADMIN)) as made:
        yield made


def test_a_fresh_process_imports_it_without_ray() -> None:
    code = """
import sys
import chimera
client = chimera.Client("http://127.0.0.1:1", "token", timeout_s=1.0)
try:
    client.status()
except chimera.InputError as error:
    print(type(error).__name__)
client.close()
print("ray" in sys.modules, "fastapi" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.split() == ["NoCluster", "False", "False"], done.stderr
    with pytest.raises(AttributeError):
        _ = chimera.Clients


def test_one_logs_in_asks_and_gets_what_the_swarm_agreed_on(node: Served) -> None:
    with Client(node.url) as client:
        with pytest.raises(Unauthenticated):
            client.status()
        with pytest.raises(Unauthenticated):
            client.login("operator", "wrong")
        client.login("operator", PASSWORD)
        assert (client.who()["subject"], client.who()["role"]) == ("operator", "operator")
        mission_id = client.start_task(ECHO)
        result = client.result(mission_id)
        assert (result.mission_id, result.state) == (mission_id, MissionState.ANSWERED)
        events = list(client.events(mission_id))
        assert [event.seq for event in events] == list(range(1, len(events) + 1))
        assert events[0].kind is EventKind.MISSION_ADMITTED and events[-1].kind is EventKind.MISSION_ENDED
        assert client.read_events(mission_id, after=2) == events[2:]
        agreed = client.consensus(ECHO.model_copy(update={"replicas": 3, "consensus": Consensus.UNANIMOUS}))
        assert agreed.decision is not None and agreed.decision.counted == 3
        assert mission_id in [each.mission_id for each in client.missions()]
        assert client.missions(1)[0].mission_id == agreed.mission_id
        assert client.cancel(mission_id) == result
        assert client.submit_task(ECHO).value == result.value


def test_what_runs_is_seen_spawned_and_cancelled(client: Client) -> None:
    before = client.status().agents
    spec = AgentSpec(role="new", policy="chimera.swarm.roles:echo")
    ids = client.spawn_agents([spec, spec, spec.model_copy(update={"role": "other"})])
    assert len(set(ids)) == 3 and client.status().agents == before + 3
    assert client.spawn_agent(spec) not in ids
    mission_id = client.start_task(Task(goal="wait", role="hanging"))
    assert client.look_up(mission_id, 0.1) is None
    assert mission_id in [each.mission_id for each in client.missions(running=True)]
    assert client.cancel(mission_id).state is MissionState.CANCELLED


def test_errors_are_those_of_the_python_api(node: Served, client: Client) -> None:
    with Client(node.url, node.token(Role.OBSERVER)) as observer, pytest.raises(Forbidden, match="swarm:task"):
        observer.start_task(ECHO)
    with pytest.raises(NotThere):
        client.look_up("mission-none")
    with pytest.raises(Forbidden, match="may not be spawned"):
        client.spawn_agent(AgentSpec(policy="os:system"))
    with pytest.raises(InputError, match="is named"):
        client.spawn_agent(AgentSpec(policy=lambda task, context: 1))
    with pytest.raises(InputError, match="max_attempts"):
        client.start_task(ECHO.model_copy(update={"max_attempts": 99}))
    with pytest.raises(NotBuilt):
        client.generate("shop.till", "it fails", {"shop/till.py": "x = 1"})
    with pytest.raises(NotBuilt):
        client.anomalies()
    with pytest.raises(InputError, match="either"):
        client.predict()
    client.spawn_agent(AgentSpec(role="responder"))
    with pytest.raises(MissionError, match="nothing to answer from"):
        client.submit_task(Task(goal="what?", role="responder"))


def test_a_limit_is_told_with_how_long_to_wait(tmp_path: Path) -> None:
    with served(tmp_path, limiter=(4.0, 0.01)) as node, Client(node.url, node.token(Role.ADMIN), timeout_s=5) as client:
        client.reload_status()
        with pytest.raises(RateLimited) as refused:
            assert [client.reload_status() for _ in range(4)]
        assert refused.value.retry_after_s > 50


def test_keys_are_made_used_listed_and_revoked(node: Served, client: Client) -> None:
    secret, key_id = client.create_key(scopes=["swarm:read", "swarm:task"], label="for a test")
    with Client(node.url, secret) as other:
        assert other.who()["permissions"] == ["swarm:read", "swarm:task"]
        assert other.submit_task(ECHO).state is MissionState.ANSWERED
        with pytest.raises(Forbidden):
            other.status()
        listed = client.keys()
        assert key_id in [key["id"] for key in listed]
        client.revoke_key(key_id)
        with pytest.raises(Unauthenticated):
            other.missions()
    assert client.audit(actor="admin")[-1]["action"].startswith("DELETE")
    assert secret not in repr(other) + repr(vars(other)["_node"].transport)


def test_code_that_is_signed_is_reloaded(client: Client) -> None:
    source = "def echo(task, context):\n    return 'new'\n"
    unsigned = ReloadModule(module="tests.policies_of_nobody", source=source, signature="")
    signature = base64.b64encode(KEY.sign(signed_text(unsigned))).decode()
    with pytest.raises(Forbidden, match="not signed"):
        client.reload(unsigned.module, source + "#", signature)
    assert client.reload_status().modules == {}


def test_values_are_forecast(client: Client) -> None:
    told = client.predict(values=[float(n % 4) for n in range(64)], horizon=4)
    assert sorted(told) == ["high", "low", "mean"] and len(told["mean"]) == 4


def test_tokens_are_renewed_when_they_end(node: Served) -> None:
    with Client(node.url) as client:
        client.login("operator", PASSWORD)
        first = client._node.transport.token
        node.node.clock.ahead_s += 1_000.0
        try:
            client.missions()  # the token has ended, the session has not
            assert client._node.transport.token != first
        finally:
            node.node.clock.ahead_s -= 1_000.0


@pytest.mark.parametrize("url", ["ftp://x", "127.0.0.1:8700", "http://", "http://u:p@127.0.0.1", "http://127.0.0.1:x"])
def test_an_address_that_is_none_is_bad_input(url: str) -> None:
    with pytest.raises(InputError, match="no address"):
        Client(url)


def test_a_token_goes_over_no_network_in_clear() -> None:
    with pytest.raises(InputError, match="in clear"):
        Client("http://192.0.2.1:8700", "token")
    Client("http://192.0.2.1:8700", "token", plain=True).close()
    Client("https://192.0.2.1:8700", "token").close()


def test_a_closed_client_says_so(node: Served) -> None:
    client = Client(node.url)
    client.close()
    client.close()
    with pytest.raises(SwarmError, match="closed"):
        client.missions()


async def test_a_script_for_a_swarm_runs_against_a_node(node: Served) -> None:
    token = node.token(Role.OPERATOR)
    async with SwarmCoordinator(address=node.url, token=token) as swarm:
        await swarm.spawn_agents([AgentSpec(role="scripted", policy="chimera.swarm.roles:echo")] * 3)
        results = await asyncio.gather(
            *(swarm.submit_task(Task(goal=str(n), role="scripted", replicas=3)) for n in range(4))
        )
        assert [result.state for result in results] == [MissionState.ANSWERED] * 4
        mission_id = await swarm.start_task(ECHO, budget=Budget(usd=1.0))
        assert [event.kind async for event in swarm.events(mission_id)][-1] is EventKind.MISSION_ENDED
        assert (await swarm.look_up(mission_id)) == await swarm.cancel(mission_id)
        assert (await swarm.status()).swarm == swarm.name and swarm.dashboard == ""
        assert len(await swarm.missions(3)) == 3
        assert (await swarm.reload_status()).modules == {}
        for refused in (
            swarm.resume(mission_id),
            swarm.reload("tests.policies"),
            swarm.start_task(ECHO, mission_id="m"),
        ):
            with pytest.raises((NotBuilt, InputError)):
                await refused
    with pytest.raises(SwarmError, match="not running"):
        await swarm.status()
    async with SwarmCoordinator.attach("swarm-test", swarm.settings, token=token) as again:
        assert await again.look_up(mission_id) is not None


async def test_a_script_with_a_wrong_token_or_name_ends_at_once(node: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Unauthenticated):
        await SwarmCoordinator(address=node.url, token="nonsense").__aenter__()
    monkeypatch.setenv("CHIMERA_TOKEN", node.token(Role.ADMIN))
    settings = SwarmCoordinator(address=node.url).settings
    with pytest.raises(InputError, match="swarm-other"):
        await SwarmCoordinator.attach("swarm-other", settings).__aenter__()
    with pytest.raises(NoCluster):
        await SwarmCoordinator(address="http://127.0.0.1:1").__aenter__()
