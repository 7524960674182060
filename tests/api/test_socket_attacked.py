"""The WebSocket under attack: unknown, late, from another page, flooding, expired while open."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect
from websockets.sync.connection import Connection

from chimera.api.socket import BAD_MESSAGE, ENDED, FAULT, MAX_SUBSCRIPTIONS, NOT_AUTHENTICATED, TOO_MANY
from chimera.core.errors import AuditError
from chimera.security.manager import LOCAL
from chimera.security.roles import Role
from tests.api.serving import Served, served
from tests.api.whole import PASSWORD

SPAWN = {"type": "spawn_agent", "policy": "chimera.swarm.roles:echo", "role": "spawned"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("node"), login_s=0.5) as made:
        yield made


@contextlib.contextmanager
def opened(served: Served, user: Role | str = Role.OPERATOR, **more: Any) -> Iterator[Connection]:
    with connect(served.ws, **more) as socket:
        socket.send(json.dumps({"type": "authenticate", "token": served.token(user)}))
        told = json.loads(socket.recv(20.0))
        assert told == {"type": "authenticated", "subject": str(user), "role": told["role"]}
        yield socket


def _ask(socket: Connection, **message: Any) -> dict[str, Any]:
    socket.send(json.dumps(message))
    told: dict[str, Any] = json.loads(socket.recv(20.0))
    return told


def _code(socket: Connection) -> int:
    """What it is closed with."""
    try:
        while True:
            socket.recv(20.0)
    except ConnectionClosed as error:
        return error.rcvd.code if error.rcvd else 1006


def _until(true: Callable[[], bool], limit_s: float = 20.0) -> None:
    until = time.monotonic() + limit_s
    while not true():
        assert time.monotonic() < until
        time.sleep(0.01)


@pytest.mark.parametrize(
    "first",
    [
        "",
        "hello",
        "[]",
        "null",
        '{"type": "authenticate"}',
        '{"type": "authenticate", "token": 1}',
        '{"type": "authenticate", "token": ""}',
        '{"type": "authenticate", "token": "a", "role": "admin"}',
        '{"type": "authenticate", "token": "x", "token": "y"}',
        '{"type": "submit_task", "goal": "g"}',
        '{"type": "subscribe", "mission_id": "mission-a"}',
        b"\x00\x01",
        '{"type": "authenticate", "token": "' + "a" * 9_000 + '"}',
        "[" * 1_000,
    ],
)
def test_who_does_not_say_who_they_are_is_closed_out(server: Served, first: str | bytes) -> None:
    before = len(server.node.audit.refused("WS authenticate"))
    with connect(server.ws) as socket:
        socket.send(first)
        assert _code(socket) == NOT_AUTHENTICATED
    assert len(server.node.audit.refused("WS authenticate")) == before + 1


def test_who_says_nothing_is_closed_out(server: Served) -> None:
    with connect(server.ws) as socket:
        assert _code(socket) == NOT_AUTHENTICATED


@pytest.mark.parametrize("name", ["token", "access_token", "authorization"])
def test_a_token_in_the_url_or_a_header_authenticates_no_socket(server: Served, name: str) -> None:
    token = server.token(Role.ADMIN)
    headers = {"authorization": f"Bearer {token}", "cookie": f"token={token}"}
    with connect(f"{server.ws}?{name}={token}", additional_headers=headers) as socket:
        socket.send(json.dumps({"type": "submit_task", "goal": "g"}))
        assert _code(socket) == NOT_AUTHENTICATED


@pytest.mark.parametrize(
    "origin",
    ["https://evil.example", "null", "http://127.0.0.1:1", "http://localhost", "file://", "{https}", "{as user}"],
)
def test_a_page_of_another_site_opens_no_socket(server: Served, origin: str) -> None:
    named = {"{https}": f"https://127.0.0.1:{server.port}", "{as user}": f"http://127.0.0.1:{server.port}@evil.example"}
    with pytest.raises(InvalidStatus) as refused:
        connect(server.ws, origin=named.get(origin, origin)).__enter__()  # type: ignore[arg-type]
    assert refused.value.response.status_code == 403
    assert server.node.audit.refused("WS connect")[-1].detail["why"] == "origin"


def test_the_nodes_own_page_opens_one(server: Served) -> None:
    with opened(server, origin=f"http://127.0.0.1:{server.port}"):
        pass


def test_a_socket_of_another_host_is_refused(tmp_path: Path) -> None:
    with served(tmp_path / "node", hosts=("127.0.0.1",)) as made:
        with pytest.raises(InvalidStatus):
            connect(made.ws.replace("127.0.0.1", "localhost")).__enter__()
        with connect(made.ws):
            pass


@pytest.mark.parametrize("how", ["revoked", "expired", "disabled", "role changed"])
def test_a_socket_ends_with_its_token(server: Served, how: str) -> None:
    name = f"socket.{how.replace(' ', '.')}"
    server.do(server.node.security.create_user(name, PASSWORD, Role.OPERATOR, by=LOCAL))
    token = server.token(name)
    with connect(server.ws) as socket:
        socket.send(json.dumps({"type": "authenticate", "token": token}))
        assert json.loads(socket.recv(20.0))["subject"] == name
        security = server.node.security
        try:
            match how:
                case "revoked":
                    server.do(security.revoke(token))
                case "expired":
                    server.node.clock.ahead_s = 1_000.0
                case "disabled":
                    server.do(security.disable_user(name, by=LOCAL))
                case "role changed":
                    server.do(security.set_role(name, Role.OBSERVER, by=LOCAL))
            assert _code(socket) == ENDED
        finally:
            server.node.clock.ahead_s = 0.0


def test_a_token_that_has_ended_does_nothing_before_its_socket_is_closed(server: Served) -> None:
    with opened(server) as socket:
        server.node.clock.ahead_s = 1_000.0
        try:
            with contextlib.suppress(ConnectionClosed):
                assert _ask(socket, type="submit_task", id="late", goal="g")["status"] == 401
        finally:
            server.node.clock.ahead_s = 0.0


def test_a_socket_of_a_key_does_no_more_than_the_key_may_by_now(server: Served) -> None:
    """Who loses a role loses it on what is open too."""
    server.do(server.node.security.create_user("demoted", PASSWORD, Role.OPERATOR, by=LOCAL))
    key = server.do(server.node.key("demoted"))
    with connect(server.ws) as socket:
        assert _ask(socket, type="authenticate", token=key)["role"] == "operator"
        assert _ask(socket, **SPAWN)["type"] == "spawn_agent_done"
        server.do(server.node.security.set_role("demoted", Role.OBSERVER, by=LOCAL))
        with contextlib.suppress(ConnectionClosed):  # it may be closed by then
            assert _ask(socket, **SPAWN)["status"] == 401
        assert _code(socket) == ENDED
    with connect(server.ws) as socket:
        _ask(socket, type="authenticate", token=key)
        assert _ask(socket, **SPAWN)["status"] == 403


def test_what_a_socket_is_refused_is_written_down_once_with_all_that_is_known_of_it(server: Served) -> None:
    with opened(server, Role.OBSERVER) as socket:
        before = len(server.node.audit.entries)
        assert _ask(socket, **SPAWN)["status"] == 403
        [entry] = server.node.audit.entries[before:]
    assert (entry.actor, entry.action, entry.resource) == ("observer", "WS spawn_agent", "/ws")
    assert entry.outcome == "refused"
    told = {name: entry.detail[name] for name in ("client", "permission", "on", "role")}
    assert told == {"client": "127.0.0.1", "permission": "swarm:spawn", "on": "/ws spawn_agent", "role": "observer"}
    assert entry.detail["key"]


@pytest.mark.parametrize("action", ["WS submit_task", "WS"])
def test_what_cannot_be_written_down_is_no_success_and_leaves_nobody_waiting(tmp_path: Path, action: str) -> None:
    with served(tmp_path / "node", limiter=(4, 0.01)) as made, opened(made) as socket:
        append = made.node.audit.append

        def full(actor: str, what: str, *more: Any) -> None:
            if what == action:
                raise AuditError("the disk is full")
            append(actor, what, *more)

        made.node.audit.append = full  # type: ignore[method-assign]
        if action == "WS":
            for _ in range(10):
                socket.send(json.dumps({"type": "submit_task", "id": "a", "goal": "g"}))
            assert _code(socket) == FAULT
        else:
            told = _ask(socket, type="submit_task", id="a", goal="g")
            assert (told["type"], told["status"], told["id"]) == ("error", 500, "a")


def test_a_mission_of_another_is_not_followed(server: Served) -> None:
    server.do(server.node.security.create_user("stranger", PASSWORD, Role.API_CLIENT, by=LOCAL))
    with opened(server) as mine, opened(server, "stranger") as theirs:
        mission_id = _ask(mine, type="submit_task", id="a", goal="g")["mission_id"]
        told = _ask(theirs, type="subscribe", id="b", mission_id=mission_id)
        never = _ask(theirs, type="subscribe", id="b", mission_id="mission-" + "0" * 44)
        assert (told["status"], told["id"]) == (404, "b")
        assert told["detail"].replace(mission_id, "") == never["detail"].replace("mission-" + "0" * 44, "")


@pytest.mark.parametrize(
    "message",
    [
        {"type": "shutdown"},
        {"type": "authenticate", "token": "again"},
        {"type": "submit_task"},
        {"type": "submit_task", "goal": "g", "mission_id": "mine"},
        {"type": "submit_task", "goal": "g", "subject": "admin"},
        {"type": "spawn_agent", "count": 1_000_000},
        {"type": "subscribe", "mission_id": "m", "after": -1},
        {"type": "subscribe", "mission_id": "m", "after": 2**70},
        {"type": ["submit_task"], "goal": "g"},
        {"goal": "g"},
    ],
)
def test_a_message_that_does_not_fit_is_refused_and_the_socket_goes_on(server: Served, message: dict[str, Any]) -> None:
    with opened(server) as socket:
        told = _ask(socket, **message)
        assert (told["type"], told["status"]) == ("error", 422)
        assert _ask(socket, type="submit_task", id="b", goal="g")["type"] == "submit_task_done"


@pytest.mark.parametrize(
    "text", ["{", '{"type": "submit_task", "goal": "g", "goal": "h"}', '{"type": "subscribe", "a": NaN}', '"\\ud800"']
)
def test_text_that_is_no_strict_json_is_refused(server: Served, text: str) -> None:
    with opened(server) as socket:
        socket.send(text)
        assert json.loads(socket.recv(20.0))["status"] in (400, 422)


@pytest.mark.parametrize("sent", [b"\x00", "[" * 1_000, '"' + "a" * 1_100_000 + '"'])
def test_a_message_that_cannot_be_one_ends_the_socket(server: Served, sent: str | bytes) -> None:
    with opened(server) as socket:
        socket.send(sent)
        assert _code(socket) == BAD_MESSAGE


def test_a_flood_is_refused_slowed_and_written_down(tmp_path: Path) -> None:
    with served(tmp_path / "node", limiter=(20, 0.1)) as made, opened(made, close_timeout=0.1) as socket:

        def flood() -> None:
            with contextlib.suppress(Exception):
                for _ in range(3_000):
                    socket.send('{"type": "submit_task", "goal": "g"}')

        threading.Thread(target=flood, daemon=True).start()
        refused = 0
        for _ in range(21):
            refused += json.loads(socket.recv(20.0)).get("status") == 429
        assert refused >= 1
        assert made.node.audit.refused("WS")
        running = made.node.swarm._swarm
        assert running.calls.count("submit") <= 30  # type: ignore[union-attr]


def test_what_one_socket_asks_at_once_is_bounded(server: Served) -> None:
    with opened(server) as socket:
        mission_id = _ask(socket, type="submit_task", id="m", goal="g", role="hanging")["mission_id"]
        statuses = []
        for n in range(MAX_SUBSCRIPTIONS + 2):
            told = _ask(socket, type="subscribe", id=str(n), mission_id=mission_id)
            while told["type"] == "event":
                told = json.loads(socket.recv(20.0))
            statuses.append(told.get("status", 200))
        assert statuses == [200] * MAX_SUBSCRIPTIONS + [503] * 2
        for _ in range(60):
            socket.send(json.dumps({"type": "submit_task", "id": "many", "goal": "g"}))
        told_of_many = [json.loads(socket.recv(20.0)) for _ in range(50)]
        assert {told.get("status", 200) for told in told_of_many if told["id"] == "many"} <= {200, 503}


def test_what_one_caller_follows_is_bounded_over_all_their_sockets(tmp_path: Path) -> None:
    """Each may wait at the coordinator, which takes so many calls."""
    with served(tmp_path / "node", max_sockets_each=2) as made, contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(opened(made)) for _ in range(2)]
        mission_id = _ask(sockets[0], type="submit_task", id="m", goal="g", role="hanging")["mission_id"]
        asked = {"type": "subscribe", "mission_id": mission_id, "after": 1_000}
        assert [_ask(sockets[0], id=str(n), **asked).get("status", 200) for n in range(2)] == [200] * 2
        assert _ask(sockets[1], id="c", **asked)["status"] == 429
        other = stack.enter_context(opened(made, Role.OBSERVER))
        assert _ask(other, id="d", **asked)["type"] == "subscribe_done"
        sockets[0].close()
        _until(lambda: len(made.node.app.state.sockets.followed) == 1)
        assert _ask(sockets[1], id="c", **asked)["type"] == "subscribe_done"


def test_sockets_are_bounded_of_each_caller_and_in_all(tmp_path: Path) -> None:
    with served(tmp_path / "node", max_sockets=4, max_sockets_each=2) as made, contextlib.ExitStack() as stack:
        for user in (Role.OPERATOR, Role.OPERATOR, Role.OBSERVER):
            stack.enter_context(opened(made, user))
        third = stack.enter_context(connect(made.ws))
        third.send(json.dumps({"type": "authenticate", "token": made.token(Role.OPERATOR)}))
        assert _code(third) == TOO_MANY
        stack.enter_context(opened(made, Role.OBSERVER))
        with pytest.raises(InvalidStatus):
            connect(made.ws).__enter__()
        stack.close()
        _until(lambda: len(made.node.app.state.sockets) == 0)
        with opened(made):
            pass


def test_sockets_of_one_address_are_few(tmp_path: Path) -> None:
    with served(tmp_path / "node", limiter=(3, 0.01)) as made:
        with contextlib.ExitStack() as stack:
            for _ in range(3):
                stack.enter_context(connect(made.ws))
        with pytest.raises(InvalidStatus):
            connect(made.ws).__enter__()
        assert made.node.audit.refused("WS connect")[-1].detail["why"] == "limit"
