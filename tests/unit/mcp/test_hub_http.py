from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest

from chimera.core.errors import InputError, Overloaded, SourceError
from chimera.mcp.status import State
from tests.conftest import free_port
from tests.mcp_servers import HttpServers
from tests.unit.mcp.hubs import answered, holdings, hub

KEY = "sk-live-0123456789"

BOTH = pytest.mark.parametrize("number", [0, 1], ids=["event-stream", "json"])


@pytest.fixture(scope="module")
def servers_of_the_module() -> Iterator[HttpServers]:
    running = HttpServers(free_port(), 2)
    running.start()
    yield running
    running.kill()


@pytest.fixture
def host(servers_of_the_module: HttpServers) -> HttpServers:
    return servers_of_the_module


@asynccontextmanager
async def answering(response: bytes) -> AsyncIterator[tuple[str, list[bytes]]]:
    """A server that says the same to everybody: its URL, and the heads of the requests that it was sent."""
    heads: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(response)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/mcp", heads


def answer(status: str, body: bytes = b"", *headers: str) -> bytes:
    head = [f"HTTP/1.1 {status}", f"content-length: {len(body)}", "connection: close", *headers]
    return "\r\n".join([*head, "", ""]).encode() + body


@BOTH
async def test_tools_are_listed_and_called(host: HttpServers, number: int) -> None:
    async with hub({"a": host.entry(number)}) as servers:
        assert [tool.name for tool in await servers.tools("a")] == ["echo", "sleep", "big", "die"]
        result = await servers.call("a", "echo", {"text": "hi"}, timeout_s=10)
        assert (result.text, result.structured) == ("hi", {"result": "hi"})
        assert (await servers.call("a", "echo", {}, timeout_s=10)).is_error


@BOTH
async def test_an_answer_is_cut_and_one_far_too_long_is_not_read(host: HttpServers, number: int) -> None:
    async with hub({"a": host.entry(number)}) as servers:
        result = await servers.call("a", "big", {"size": 1_100_000}, timeout_s=10)
        assert (len(result.text), result.truncated, result.structured) == (2**20, True, None)
        with pytest.raises(SourceError):
            await servers.call("a", "big", {"size": 10_000_000}, timeout_s=10)
        assert (await servers.call("a", "echo", {"text": "hi"}, timeout_s=10)).text == "hi"
        assert servers.status()["a"].restarts == 0


@BOTH
async def test_a_call_out_of_time_leaves_the_session_and_other_calls_whole(host: HttpServers, number: int) -> None:
    async with hub({"a": host.entry(number)}) as servers:
        await servers.tools("a")
        beside = asyncio.create_task(servers.call("a", "sleep", {"seconds": 0.4}, timeout_s=10))
        with pytest.raises(SourceError, match=r"within 0\.1 s"):
            await servers.call("a", "sleep", {"seconds": 60}, timeout_s=0.1)
        assert (await beside).text == "slept"
        assert servers.status()["a"].restarts == 0


async def test_servers_that_die_fail_their_calls_at_once_harm_no_other_and_come_back(host: HttpServers) -> None:
    dying = HttpServers(free_port(), 2)
    dying.start()
    try:
        async with hub({"a": dying.entry(0), "b": dying.entry(1), "c": host.entry(0)}) as servers:
            await servers.connect_all(10)
            other = asyncio.create_task(servers.call("c", "sleep", {"seconds": 0.5}, timeout_s=10))
            beside = asyncio.create_task(servers.call("b", "sleep", {"seconds": 60}, timeout_s=90))
            await asyncio.sleep(0.05)
            with pytest.raises(SourceError, match="may have worked"):
                await servers.call("a", "die", {}, timeout_s=90)
            with pytest.raises(SourceError, match="may have worked"):
                await beside
            with pytest.raises(Overloaded):  # nothing listens there any more: nothing was sent
                await servers.call("b", "echo", {"text": "hi"}, timeout_s=0.5)
            assert (await other).text == "slept"
            dying.kill()
            dying.start()
            for name in "ab":
                assert await answered(servers, name) == "back"
            assert servers.status()["c"].restarts == 0
    finally:
        dying.kill()


@BOTH
async def test_a_session_that_the_server_has_forgotten_is_made_anew_within_the_call(
    host: HttpServers, number: int
) -> None:
    async with hub({"a": host.entry(number)}) as servers:
        await servers.tools("a")
        await asyncio.to_thread(host.forget)
        calls = (servers.call("a", "echo", {"text": "hi"}, timeout_s=10) for _ in range(8))
        assert {result.text for result in await asyncio.gather(*calls)} == {"hi"}
        assert servers.status()["a"].restarts == 1


async def test_dead_and_hanging_servers_are_given_up_and_hold_up_no_other(host: HttpServers) -> None:
    entries = {
        "dead": {"url": f"http://127.0.0.1:{free_port()}/mcp"},
        "hanging": host.hanging(chimera={"connect_s": 0.3}),
        "well": host.entry(),
    }
    async with hub(entries, connect_at_once=2) as servers:
        states = await servers.connect_all(10)
        assert {name: status.state for name, status in states.items()} == {
            "dead": State.FAILED,
            "hanging": State.FAILED,
            "well": State.READY,
        }
        assert "no connection" in states["dead"].error
        assert "no answer within 0.3 s" in states["hanging"].error


async def test_headers_are_sent_and_never_shown(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    async with answering(answer("401 Unauthorized")) as (url, heads):
        entries = {"a": {"url": f"{url}?key={KEY}", "headers": {"Authorization": f"Bearer {KEY}"}}}
        async with hub(entries) as servers:
            with pytest.raises(InputError, match="HTTP 401: check its headers") as refused:
                await servers.tools("a")
            status = servers.status()["a"]
        assert f"Bearer {KEY}".encode() in heads[0]
        assert KEY not in f"{refused.value!r} {status!r} {caplog.text}"


@pytest.mark.parametrize(
    ("response", "why"),
    [
        (answer("503 Unavailable"), "HTTP 503"),
        (answer("500 Oops"), "HTTP 500"),
        (answer("404 Not Found"), "does it speak MCP over streamable HTTP"),
        (answer("200 OK", b"<html>", "content-type: text/html"), "does it speak MCP"),
        (answer("200 OK", b"[1", "content-type: application/json"), "does it speak MCP"),
        (answer("200 OK", b"{}", "content-type: application/json", "content-encoding: gzip"), "compresses"),
        (answer("302 Found", b"", "location: http://127.0.0.2/"), "does it speak MCP"),
        (b"", "broke off"),
    ],
)
async def test_what_is_no_mcp_server_is_said_to_be_none(response: bytes, why: str) -> None:
    async with answering(response) as (url, _), hub({"a": {"url": url}}) as servers:
        with pytest.raises(Overloaded, match=why):
            await servers.tools("a")


async def test_a_closed_hub_leaves_no_task_and_no_file(host: HttpServers) -> None:
    entries = {"a": host.entry(0), "b": host.entry(1), "hanging": host.hanging(), "dead": {"url": "http://127.0.0.1:9"}}
    async with hub({"a": host.entry()}) as warm:
        await warm.tools("a")
    before = holdings()
    servers = hub(entries)
    waiting = asyncio.create_task(servers.tools("hanging"))
    await servers.connect_all(0.3)
    call = asyncio.create_task(servers.call("a", "sleep", {"seconds": 60}, timeout_s=90))
    await asyncio.sleep(0.05)
    await servers.close()
    for cut_off in (call, waiting):
        with pytest.raises((SourceError, Overloaded)):
            await cut_off
    await asyncio.sleep(0.05)
    assert holdings() == before
