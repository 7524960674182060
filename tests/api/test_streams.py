"""Streams of what happens to a mission: who reads sees everything once, who does not is dropped; and slow requests."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from chimera.api.connections import Connections
from chimera.api.services import Services
from chimera.api.socket import TOO_SLOW
from chimera.core.events import Event, EventKind
from chimera.security.manager import LOCAL
from chimera.security.roles import Role
from tests.api.serving import Served, served
from tests.api.whole import PASSWORD, bearing

LONG = "mission-" + "f" * 44

SILENT = "mission-" + "e" * 44
"""One to which nothing happens after its beginning."""

MANY = 1_500


class Quick(Connections):
    """With less patience, so that a test need not have more."""

    head_s = 0.5
    unread_s = 1.0


class Patient(Connections):
    """With more patience than the test has."""

    unread_s = 60.0


def _event(seq: int, last: int, size: int) -> Event:
    kind = EventKind.MISSION_ENDED if seq == last else EventKind.REPLY_ACCEPTED
    return Event(mission_id=LONG, seq=seq, kind=kind, at_s=0.0, data={"reply": "r" * size})


class Long:
    """A mission of many large events, and how far it was read. Others are the swarm's own."""

    def __init__(self, size: int = 4_000) -> None:
        self.read_to = 0
        self._size = size

    def put_in(self, services: Services) -> None:
        swarm = services.swarm
        read, look_up = swarm.read_events, swarm.look_up

        async def read_events(mission_id: str, after: int = 0, wait_s: float = 0.0) -> list[Event]:
            if mission_id == SILENT:
                if after:
                    await asyncio.sleep(3_600.0)
                return [_event(1, 2, 1)]
            if mission_id != LONG:
                return await read(mission_id, after, wait_s)
            self.read_to = max(self.read_to, min(after + 100, MANY))
            return [_event(seq, MANY, self._size) for seq in range(after + 1, min(after + 100, MANY) + 1)]

        async def looked_up(mission_id: str, wait_s: float = 0.0) -> Any:
            return None if mission_id in (LONG, SILENT) else await look_up(mission_id, wait_s)

        swarm.read_events, swarm.look_up = read_events, looked_up  # type: ignore[method-assign]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with _served(tmp_path_factory.mktemp("node"), Long()) as made:
        yield made


@contextlib.contextmanager
def _served(folder: Path, mission: Long, http: type[Connections] = Quick, **settings: Any) -> Iterator[Served]:
    more = {"slow_s": 1.0, "body_s": 0.5, "socket_queue": 64, **settings}
    with served(folder, http=http, change=mission.put_in, **more) as made:
        yield made


def _until(true: Callable[[], bool], limit_s: float = 20.0) -> None:
    until = time.monotonic() + limit_s
    while not true():
        assert time.monotonic() < until
        time.sleep(0.01)


def _mission(server: Served, **fields: Any) -> str:
    body = {"goal": "g", **fields}
    answer = httpx2.post(f"{server.url}/api/swarm/task", json=body, headers=server.headers(Role.OPERATOR))
    return str(answer.json()["mission_id"])


def _sse(server: Served, mission_id: str, **more: Any) -> list[tuple[int, str, dict[str, Any]]]:
    """Each event's id, name and data."""
    url = f"{server.url}/api/swarm/missions/{mission_id}/events"
    found = []
    asked = {"stream": True, **more}
    with httpx2.stream("GET", url, headers=server.headers(Role.OPERATOR), timeout=30.0, params=asked) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        text = "".join(answer.iter_text())
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if fields:
            found.append((int(fields.get("id", 0)), fields["event"], json.loads(fields["data"])))
    return found


def test_a_stream_has_every_event_of_a_mission_once_and_ends_with_it(server: Served) -> None:
    mission_id = _mission(server, replicas=3)
    told = _sse(server, mission_id)
    assert [seq for seq, _, _ in told] == list(range(1, len(told) + 1))
    assert (told[0][1], told[-1][1]) == ("mission_admitted", "mission_ended")
    page = httpx2.get(
        f"{server.url}/api/swarm/missions/{mission_id}/events", headers=server.headers(Role.OPERATOR)
    ).json()
    assert [data for _, _, data in told] == page["items"]


def test_a_fast_reader_of_a_long_mission_sees_every_event_once(server: Served) -> None:
    assert [seq for seq, _, _ in _sse(server, LONG)] == list(range(1, MANY + 1))


def test_a_fast_socket_of_a_long_mission_sees_every_event_once(server: Served) -> None:
    """Also if it is told of more at once than may wait for it."""
    with connect(server.ws) as socket:
        socket.send(json.dumps({"type": "authenticate", "token": server.token(Role.OPERATOR)}))
        socket.send(json.dumps({"type": "subscribe", "id": "a", "mission_id": LONG}))
        seen = []
        while (told := json.loads(socket.recv(20.0)))["type"] != "ended":
            if told["type"] == "event":
                seen.append(told["event"]["seq"])
    assert seen == list(range(1, MANY + 1))


def test_a_reader_that_stopped_goes_on_from_where_it_was(server: Served) -> None:
    assert [seq for seq, _, _ in _sse(server, LONG, after=MANY - 3)] == [MANY - 2, MANY - 1, MANY]


@pytest.mark.parametrize(("http", "slow_s"), [(Patient, 0.5), (Quick, 60.0)])
def test_a_stream_that_is_not_read_is_dropped_and_not_buffered(
    tmp_path: Path, http: type[Connections], slow_s: float
) -> None:
    """By the stream, and where that did not see it, by its connection."""
    mission = Long(size=40_000)
    with _served(tmp_path / "node", mission, http=http, slow_s=slow_s) as made:
        stalled = made.connect(buffer=4_096)
        head = f"GET /api/swarm/missions/{LONG}/events?stream=true HTTP/1.1\r\nhost: a\r\n"
        stalled.sendall(f"{head}authorization: Bearer {made.token(Role.OPERATOR)}\r\n\r\n".encode())
        stalled.recv(100)
        streams = made.node.app.state.streams
        _until(lambda: len(streams) == 1)
        _until(lambda: len(streams) == 0)
        assert mission.read_to < MANY, "it was read for nobody"
        if http is Quick:
            _until(lambda: made.connections == 0)
        stalled.close()


def test_a_socket_that_is_not_read_is_dropped_and_not_buffered(tmp_path: Path) -> None:
    mission = Long(size=40_000)
    with _served(tmp_path / "node", mission) as made:
        stalled = made.connect(buffer=4_096)
        with connect(made.ws, sock=stalled, max_queue=1, close_timeout=0.1, compression=None) as socket:
            socket.send(json.dumps({"type": "authenticate", "token": made.token(Role.OPERATOR)}))
            socket.recv(20.0)
            socket.send(json.dumps({"type": "subscribe", "id": "a", "mission_id": LONG}))
            _until(lambda: len(made.node.app.state.sockets) == 0)
            assert mission.read_to < MANY, "it was read for nobody"
            with contextlib.suppress(ConnectionClosed):
                while True:
                    socket.recv(20.0)
            assert socket.close_code in (TOO_SLOW, 1006)


def test_a_stream_ends_with_its_token_also_while_nothing_happens(server: Served) -> None:
    token = server.token(Role.OPERATOR)
    url = f"{server.url}/api/swarm/missions/{SILENT}/events?stream=true"
    told = ""
    with httpx2.stream("GET", url, headers={"authorization": f"Bearer {token}"}, timeout=20.0) as answer:
        for text in answer.iter_text():
            if not told:
                server.do(server.node.security.revoke(token))
            told += text
    assert "event: error\n" in told
    assert "the token has ended" in told


def test_a_stream_ends_when_its_key_may_no_more_see_the_mission(server: Served) -> None:
    security = server.node.security
    server.do(security.create_user("demoted", PASSWORD, Role.OPERATOR, by=LOCAL))
    key = server.do(server.node.key("demoted"))
    url = f"{server.url}/api/swarm/missions/{SILENT}/events?stream=true"
    told = ""
    with httpx2.stream("GET", url, headers=bearing(key), timeout=20.0) as answer:
        for text in answer.iter_text():
            if not told:
                server.do(security.set_role("demoted", Role.API_CLIENT, by=LOCAL))
            told += text
    assert "event: error\n" in told
    assert httpx2.get(url, headers=bearing(key)).status_code == 404


def test_a_stream_ends_when_its_reader_leaves(server: Served) -> None:
    mission_id = _mission(server, role="hanging")
    url = f"{server.url}/api/swarm/missions/{mission_id}/events?stream=true"
    with httpx2.stream("GET", url, headers=server.headers(Role.OPERATOR), timeout=30.0) as answer:
        parts = answer.iter_text()  # kept: the connection is closed with the iterator
        told = next(parts)
        assert len(server.node.app.state.streams) == 1, told
    _until(lambda: len(server.node.app.state.streams) == 0)


def test_streams_of_one_caller_are_few(tmp_path: Path) -> None:
    with _served(tmp_path / "node", Long(), max_streams_each=2) as made, contextlib.ExitStack() as stack:
        mission_id = _mission(made, role="hanging")
        url = f"{made.url}/api/swarm/missions/{mission_id}/events?stream=true"
        mine = made.headers(Role.OPERATOR)
        for _ in range(2):
            stack.enter_context(httpx2.stream("GET", url, headers=mine, timeout=30.0))
        assert httpx2.get(url, headers=mine).status_code == 429
        other = stack.enter_context(httpx2.stream("GET", url, headers=made.headers(Role.OBSERVER), timeout=30.0))
        assert other.status_code == 200


BODY = b"POST /api/auth/login HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n"

SLOW: dict[str, tuple[bytes, bytes]] = {
    "nothing": (b"", b""),
    "half a head": (b"GET /healthz HTTP/1.1\r\nhost: a\r\nx-a: ", b"a"),
    "a head without end": (b"GET /healthz HTTP/1.1\r\n", b"x-a: b\r\n"),
    "half a body": (BODY + b"content-length: 1000\r\n\r\n{", b" "),
    "chunks without end": (BODY + b"transfer-encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
}


@pytest.mark.parametrize("name", SLOW)
def test_a_request_that_comes_slowly_is_given_up(server: Served, name: str) -> None:
    """Slowloris: a byte now and then keeps nothing open, and others are served meanwhile."""
    first, then = SLOW[name]
    made = server.connect()
    made.sendall(first)
    over = threading.Event()

    def drip() -> None:
        with contextlib.suppress(OSError):
            while not over.wait(0.05):
                made.sendall(then)

    thread = threading.Thread(target=drip)
    thread.start()
    try:
        assert httpx2.get(f"{server.url}/healthz").status_code == 200
        told = b""
        with contextlib.suppress(ConnectionError):
            while data := made.recv(4_096):
                told += data
        assert not told or told.startswith(b"HTTP/1.1 408 ")
    finally:
        over.set()
        thread.join()
        made.close()


@pytest.mark.parametrize(
    "sent",
    [
        b"GET /healthz HTTP/1.1\r\nhost: a\r\n" + b"x-a: b\r\n" * 20_000 + b"\r\n",
        b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\nhost: a\r\n\r\n",
        BODY + b"content-length: 2\r\ncontent-length: 200\r\n\r\n{}",
        BODY + b"content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nGET /healthz HTTP/1.1\r\n\r\n",
        BODY + b"transfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        BODY + b"transfer-encoding: chunked\r\n\r\nZZ\r\n",
        b"GET /healthz HTTP/1.1\r\nhost: a\r\nx : b\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ],
)
def test_what_is_no_http_is_refused_and_never_two_requests(server: Served, sent: bytes) -> None:
    made = server.connect()
    told = b""
    with contextlib.suppress(ConnectionError):
        made.sendall(sent)
    with contextlib.suppress(ConnectionError):
        while data := made.recv(4_096):
            told += data
    made.close()
    assert told.count(b"HTTP/1.1 ") <= 1
    assert b'"status":"ok"' not in told
