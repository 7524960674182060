"""A gateway as a plain object: it serves, refuses what is not safe, gives its port on, and does not stay for nobody."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from chimera.actors.gateway import Gateway, GatewayOptions, is_loopback
from chimera.core.errors import InputError, StorageUnavailable, SwarmError
from tests.actors.in_process import until

APP = "tests.actors.served:hello"


def gateway(end_self: Callable[[], None] = lambda: None, *, app: str = APP, **options: Any) -> Gateway:
    return Gateway(options=GatewayOptions(app=app, **options), end_self=end_self)


@asynccontextmanager
async def serving(**options: Any) -> AsyncIterator[tuple[Gateway, str]]:
    made = gateway(**options)
    host, port = await made.start()
    try:
        yield made, f"http://{host}:{port}"
    finally:
        await made.drain(0.0)


async def test_it_serves_the_application_that_is_named_and_says_how_it_is() -> None:
    async with serving(arguments={"word": "well"}) as (made, url), httpx2.AsyncClient() as client:
        assert (await client.get(url)).text == "well"
        status = await made.status()
        assert (status.state, status.requests, status.connections) == ("serving", 1, 1)
        assert await made.start() == (status.host, status.port)
    assert (await made.status()).state == "ended"
    with pytest.raises(SwarmError, match="start another"):
        await made.start()


@pytest.mark.parametrize("app", ["tests.actors.served:none", "tests.actors.nowhere:app", "tests.actors.served:APP"])
async def test_an_application_that_cannot_be_made_is_bad_input(app: str) -> None:
    with pytest.raises(InputError, match="cannot be"):
        await gateway(app=app).start()


async def test_what_an_application_raises_when_it_opens_comes_out_and_frees_the_port() -> None:
    async with serving() as (_, url):
        port = int(url.rpartition(":")[2])
    with pytest.raises(StorageUnavailable, match="out of reach"):
        await gateway(arguments={"fails": True}, port=port).start()
    async with serving(port=port) as (_, url):
        assert url.endswith(str(port))


async def test_a_port_that_somebody_has_is_refused_also_to_one_who_would_share_it() -> None:
    async with serving() as (_, url):
        with pytest.raises(InputError, match="is taken"):
            await gateway(port=int(url.rpartition(":")[2])).start()
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(InputError, match="is taken"):
            await gateway(port=other.getsockname()[1]).start()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "example.org"])
async def test_where_others_can_reach_it_it_needs_tls_or_to_be_told(host: str) -> None:
    assert not is_loopback(host)
    with pytest.raises(InputError, match="--plain"):
        await gateway(host=host).start()
    GatewayOptions(app=APP, host=host, plain=True).check()
    with pytest.raises(InputError, match="both"):
        GatewayOptions(app=APP, host=host, certificate=Path("c.pem")).check()


async def test_the_next_takes_over_and_no_request_fails() -> None:
    """Clients that keep connections, and clients that make new ones, all the while; three gateways, one port."""
    said: list[str] = []
    over = asyncio.Event()

    async def ask(url: str, keep: bool) -> None:
        while not over.is_set():
            async with httpx2.AsyncClient() as client:
                for _ in range(20 if keep else 1):
                    response = await client.get(url)
                    assert response.status_code == 200
                    said.append(response.text)
                    if over.is_set():
                        return

    options: dict[str, Any] = {"idle_s": 1}
    async with serving(arguments={"word": "0", "pause_s": 0.005}, **options) as (before, url):
        asking = [asyncio.create_task(ask(url, keep)) for keep in (True, True, False, False)]
        port = int(url.rpartition(":")[2])
        for word in ("1", "2"):
            await until(lambda: len(said) > 50)
            after = gateway(arguments={"word": word, "pause_s": 0.005}, **options)
            await after.start(True, port)
            assert await before.drain(20.0) == 0
            said.clear()
            await until(lambda: len(said) > 50)
            assert set(said[10:]) == {word}
            before = after
        over.set()
        await asyncio.gather(*asking)
        await before.drain(0.0)


async def test_an_answer_under_way_is_finished_and_one_without_end_is_cut_off() -> None:
    async with serving(arguments={"pause_s": 0.8}) as (made, url), httpx2.AsyncClient() as client:
        asked = asyncio.create_task(client.get(url))
        endless = asyncio.create_task(client.get(f"{url}/long"))
        await until(lambda: made._requests_open() == 2)
        assert await made.drain(2.0) == 1
        answer = await asked
        assert (answer.text, answer.headers["connection"]) == ("hello", "close")
        assert ((await endless).status_code, (await endless).headers["retry-after"]) == (503, "1")


async def test_who_waits_to_be_let_in_when_it_drains_is_answered() -> None:
    async with serving() as (made, url):
        address = ("127.0.0.1", int(url.rpartition(":")[2]))
        waiting = [socket.create_connection(address) for _ in range(20)]  # with this loop not looking
        for each in waiting:
            each.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert await made.drain(10.0) == 0
        for each in waiting:
            with each:
                assert each.recv(1_000).startswith(b"HTTP/1.1 200 OK")


async def test_a_socket_is_told_to_come_again_when_its_gateway_drains() -> None:
    async with serving() as (made, url), connect(url.replace("http", "ws")) as web_socket:
        await web_socket.send("?")
        assert await web_socket.recv() == "hello"
        await made.drain(5.0)
        with pytest.raises(ConnectionClosed) as closed:
            await web_socket.recv()
        assert closed.value.rcvd is not None and closed.value.rcvd.code == 1012


async def test_who_does_not_finish_a_request_is_dropped() -> None:
    async with serving(header_s=0.3, idle_s=1) as (_, url):
        port = int(url.rpartition(":")[2])
        for said in (b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: x\r\n\r\nGET / HT"):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(said)
            async with asyncio.timeout(10):
                await reader.read()  # until it is closed
            writer.close()


async def test_nobody_asking_ends_it_unless_it_is_to_last() -> None:
    ended: list[str] = []
    forgotten = gateway(lambda: ended.append("forgotten"), orphan_s=0.2)
    lasting = gateway(lambda: ended.append("lasting"), orphan_s=0.2, last=True)
    await forgotten.start()
    await lasting.start()
    await until(lambda: ended)
    await asyncio.sleep(0.3)
    assert ended == ["forgotten"]
    for each in (forgotten, lasting):
        await each.drain(0.0)
