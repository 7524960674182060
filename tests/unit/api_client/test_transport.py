"""What is sent again and what is not, against a server that fails as told."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable, Sequence
from typing import Any

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chimera.api import problems
from chimera.core import errors
from chimera.core.errors import ChimeraError, ClusterError, InputError, NoCluster, Overloaded, SwarmError
from chimera.core.events import EventKind
from chimera.http_client.node import HttpNode
from chimera.http_client.problems import BY_STATUS, error_of
from chimera.http_client.transport import TRIES, Transport

URL = "http://127.0.0.1:8700"

Answer = httpx2.Response | Exception


class Server:
    """Gives these answers, one after the other, and the last one for ever. `asked` is what came."""

    def __init__(self, *answers: Answer) -> None:
        self._answers = list(answers)
        self.asked: list[httpx2.Request] = []

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        self.asked.append(request)
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def sent_keys(self) -> set[str | None]:
        return {request.headers.get("idempotency-key") for request in self.asked}


def transport(server: Callable[[httpx2.Request], httpx2.Response], **options: Any) -> Transport:
    return Transport(URL, "token", transport=httpx2.MockTransport(server), rng=random.Random(0), **options)


def busy(seconds: str = "0") -> httpx2.Response:
    return httpx2.Response(503, headers={"retry-after": seconds}, json={"type": "urn:chimera:problem:overloaded"})


DONE = httpx2.Response(200, json={"done": True})
LOST = httpx2.ReadError("the connection broke off")
NOBODY = httpx2.ConnectError("nobody listens")


@pytest.mark.parametrize("fault", [LOST, NOBODY, busy(), httpx2.Response(502), httpx2.ReadTimeout("late")])
async def test_what_can_be_sent_twice_is_sent_again_with_the_same_key(fault: Answer) -> None:
    server = Server(fault, fault, DONE)
    assert await transport(server).post("/x", {"a": 1}) == {"done": True}
    assert len(server.asked) == 3 and len(server.sent_keys()) == 1 and None not in server.sent_keys()
    assert {request.content for request in server.asked} == {b'{"a":1}'}
    server = Server(fault, DONE)
    assert await transport(server).get("/x", after=None, limit=2) == {"done": True}
    assert [str(request.url) for request in server.asked] == [f"{URL}/x?limit=2"] * 2


@pytest.mark.parametrize(("fault", "sent"), [(LOST, 1), (busy(), 1), (NOBODY, 2)])
async def test_what_must_not_be_sent_twice_is_sent_again_only_if_nothing_arrived(fault: Answer, sent: int) -> None:
    server = Server(fault, DONE)
    if sent == 1:
        with pytest.raises(ChimeraError):
            await transport(server).post("/x", {}, once=False)
    else:
        assert await transport(server).post("/x", {}, once=False) == {"done": True}
    assert len(server.asked) == sent and server.sent_keys() == {None}


@pytest.mark.parametrize(
    ("fault", "kind", "sent"),
    [
        (LOST, ClusterError, TRIES),
        (NOBODY, NoCluster, TRIES),
        (busy("0"), Overloaded, TRIES),
        (busy("3600"), Overloaded, 1),
        (httpx2.Response(400), InputError, 1),
        (httpx2.Response(500, text="oops"), SwarmError, 1),
    ],
)
async def test_it_gives_up_with_an_error_of_ours(fault: Answer, kind: type[ChimeraError], sent: int) -> None:
    server = Server(fault)
    with pytest.raises(kind):
        await transport(server).get("/x")
    assert len(server.asked) == sent


async def test_one_that_is_under_way_is_waited_for_and_a_conflict_is_not() -> None:
    waiting = httpx2.Response(409, headers={"retry-after": "0"}, json={"type": "urn:chimera:problem:in-progress"})
    server = Server(waiting, DONE)
    assert await transport(server).post("/x", {}) == {"done": True}
    server = Server(httpx2.Response(409, json={"type": "urn:chimera:problem:no-agents", "detail": "none"}), DONE)
    with pytest.raises(errors.NoAgents, match="none"):
        await transport(server).post("/x", {})


async def test_a_refresh_token_is_used_once_also_if_it_does_not_help() -> None:
    server = Server(httpx2.Response(401))
    asked = transport(server)
    await asked.log_in({"access_token": "a", "refresh_token": "r"})
    with pytest.raises(errors.Unauthenticated):
        await asked.get("/x")
    assert [request.url.path for request in server.asked] == ["/x", "/api/auth/refresh"]
    with pytest.raises(errors.Unauthenticated):
        await asked.get("/x")
    assert len(server.asked) == 3


async def test_all_who_were_refused_with_one_token_renew_it_once() -> None:
    renewed: list[str] = []

    async def answer(request: httpx2.Request) -> httpx2.Response:
        if request.url.path == "/api/auth/refresh":
            renewed.append(json.loads(request.content)["refresh_token"])
            await asyncio.sleep(0.1)
            return httpx2.Response(200, json={"access_token": "b", "refresh_token": "s"})
        await asyncio.sleep(0.05 if request.url.path == "/slow" else 0.01)  # refused while the token is renewed
        return DONE if request.headers["authorization"] == "Bearer b" else httpx2.Response(401)

    asked = Transport(URL, None, transport=httpx2.MockTransport(answer))
    await asked.log_in({"access_token": "a", "refresh_token": "r"})
    assert await asyncio.gather(*(asked.get(path) for path in ("/x", "/x", "/slow"))) == [{"done": True}] * 3
    assert renewed == ["r"]


def event(seq: int, kind: str = "task_started") -> dict[str, Any]:
    return {"mission_id": "m", "seq": seq, "kind": kind, "at_s": 1.0}


class Broken(httpx2.AsyncByteStream):
    """A stream that sends this and breaks off."""

    def __init__(self, events: Sequence[dict[str, Any]]) -> None:
        self._events = events

    async def __aiter__(self) -> Any:
        for told in self._events:
            yield f": still running\n\nid: {told['seq']}\ndata: {json.dumps(told)}\n\n".encode()
        raise LOST


async def test_a_stream_that_breaks_off_is_taken_up_where_it_was() -> None:
    asked: list[str] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        asked.append(request.url.params.get("after", "-"))
        if not request.url.path.endswith("/events"):
            return httpx2.Response(200, json={"state": "running"})
        if asked[-1] == "0":
            return httpx2.Response(200, stream=Broken([event(1), event(2)]))
        rest = [event(3), event(4, "mission_ended")]
        return httpx2.Response(200, text="".join(f"data: {json.dumps(told)}\n\n" for told in rest))

    found = [each async for each in HttpNode(transport(answer)).events("m")]
    assert [each.seq for each in found] == [1, 2, 3, 4] and found[-1].kind is EventKind.MISSION_ENDED
    assert asked == ["0", "-", "2"]


async def test_an_answer_of_another_version_is_named_as_that() -> None:
    with pytest.raises(SwarmError, match="another version"):
        await HttpNode(transport(Server(httpx2.Response(200, json={"mission_id": "m"})))).look_up("m")


OURS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, ChimeraError)]


def made(kind: type[ChimeraError]) -> ChimeraError:
    found: ChimeraError = kind.__new__(kind)
    ChimeraError.__init__(found, "what is wrong")
    found.retry_after_s = 7.0  # type: ignore[attr-defined]
    return found


@pytest.mark.parametrize("kind", OURS)
def test_every_error_that_the_api_tells_comes_out_as_one_that_is_caught_the_same_way(kind: type[ChimeraError]) -> None:
    answer = problems.of(made(kind))
    told = json.loads(bytes(answer.body))
    found = error_of(answer.status_code, told, answer.headers.get("retry-after"))
    if answer.status_code == 500:  # a fault of the node's own, which it does not tell
        assert type(found) is SwarmError
        return
    assert isinstance(found, kind) or issubclass(kind, type(found))
    assert found.message == told["detail"]
    assert getattr(found, "retry_after_s", 7.0) == 7.0


@given(
    status=st.integers(400, 599),
    document=st.none()
    | st.text()
    | st.dictionaries(st.sampled_from(["type", "detail", "reason"]), st.integers() | st.text()),
    retry_after=st.none() | st.text() | st.floats().map(str),
)
def test_whatever_is_answered_becomes_an_error(status: int, document: object, retry_after: str | None) -> None:
    found = error_of(status, document, retry_after)
    assert isinstance(found, ChimeraError) and found.message
    assert 0.0 <= getattr(found, "retry_after_s", 0.0) <= 86_400.0
    if document is None and status in BY_STATUS:
        assert type(found) is BY_STATUS[status]
