"""People are told at least once, in order, signed, and only where the operator said."""

from __future__ import annotations

import asyncio
import base64
import ipaddress
import json
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from chimera.core.clock import ManualClock
from chimera.core.errors import InputError, SourceError, StorageError
from chimera.llm.backoff import Backoff
from chimera.review.notices import Notice, Place, deliver
from chimera.review.queue import ReviewQueue
from chimera.review.types import Item
from chimera.review.webhook import Webhook, read_secret, signature
from chimera.storage.memory import MemoryJournal
from tests.unit.review.made import POLICY, proposal

SECRET = b"k" * 32
NOTICE = Notice(
    id="main-1",
    type="review.waiting",
    at_s=1.0,
    queue="main",
    item="0" * 32,
    key="k",
    kind="answer",
    summary="A line",
    confidence=0.5,
    group="",
)


class Memory:
    """A notifier that keeps what it is told, and takes so many more before it fails."""

    name = "memory"

    def __init__(self) -> None:
        self.told: list[Notice] = []
        self.takes = 100

    async def tell(self, notice: Notice) -> None:
        if not self.takes:
            raise SourceError("away")
        self.takes -= 1
        self.told.append(notice)


async def busy_queue() -> ReviewQueue:
    """Seven things that happened, of which one is nobody's business."""
    policy = POLICY.model_copy(update={"check_automatic": 0.5})
    queue = ReviewQueue(
        journal=MemoryJournal(), policy=policy, clock=ManualClock(1.0), generator=random.Random(3)
    )  # its first numbers are 0.24, 0.54, 0.37, 0.60
    await queue.ask(proposal("check", confidence=0.99))
    await queue.ask(proposal("quiet", confidence=0.99))
    await queue.ask(proposal("told", confidence=0.8))
    asked = await queue.ask(proposal("secret", summary="use api_key=sk-live-0123456789abcdef0123456789"))
    assert isinstance(asked, Item)
    await queue.claim(asked.id, "ann")
    await queue.escalate(asked.id, "ann", "leads", "?")
    await queue.reject(asked.id, "ann", "no")
    return queue


async def test_each_is_told_once_in_order_and_no_secret(tmp_path: Path) -> None:
    queue, notifier, place = await busy_queue(), Memory(), Place(tmp_path / "places" / "memory")
    assert await deliver(queue, notifier, place, queue="main") == 5
    assert [(each.key, each.type.removeprefix("review.")) for each in notifier.told] == [
        ("check", "check"),
        ("told", "monitored"),
        ("secret", "waiting"),
        ("secret", "escalated"),
        ("secret", "rejected"),
    ]
    assert "sk-live" not in "".join(each.model_dump_json() for each in notifier.told)
    assert [each.group for each in notifier.told[-2:]] == ["leads", "leads"]
    assert await deliver(queue, notifier, place, queue="main") == 0
    await queue.ask(proposal("more"))
    assert await deliver(queue, notifier, place, queue="main") == 1


async def test_one_that_is_not_taken_comes_again_and_none_is_left_out(tmp_path: Path) -> None:
    queue, notifier, place = await busy_queue(), Memory(), Place(tmp_path / "memory")
    for _ in range(4):
        notifier.takes = 1
        with pytest.raises(SourceError):
            await deliver(queue, notifier, place, queue="main")
    notifier.takes = 100
    assert await deliver(queue, notifier, place, queue="main") == 1
    assert [each.id for each in notifier.told] == ["main-1", "main-3", "main-4", "main-6", "main-7"]


async def test_killed_between_telling_and_noting_it_tells_that_one_again(tmp_path: Path) -> None:
    queue, notifier, place = await busy_queue(), Memory(), Place(tmp_path / "memory")
    await deliver(queue, notifier, place, queue="main")
    last = notifier.told[-1]
    place.write(place.read() - 1)  # as it is on the disk then
    await deliver(queue, notifier, place, queue="main")
    assert notifier.told[-1].id == last.id and len(notifier.told) == 6


async def test_one_process_at_a_time_tells(tmp_path: Path) -> None:
    queue, notifier, place = await busy_queue(), Memory(), Place(tmp_path / "memory")
    with place.held() as mine:
        assert mine
        assert await deliver(queue, notifier, Place(tmp_path / "memory"), queue="main") == 0
    assert await deliver(queue, notifier, place, queue="main") == 5
    (tmp_path / "memory").write_text("seven")
    with pytest.raises(StorageError, match="says no number"):
        await deliver(queue, notifier, place, queue="main")


class Receiver:
    """A server on loopback that answers with these statuses, one a request, and then with the last."""

    def __init__(self, *statuses: int, more: str = "") -> None:
        self.statuses, self.more = list(statuses), more
        self.got: list[tuple[str, dict[str, str], bytes]] = []
        self.url = ""

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)}
        self.got.append((head[0], headers, await reader.readexactly(int(headers["content-length"]))))
        status = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
        if status:
            writer.write(f"HTTP/1.1 {status} x\r\n{self.more}content-length: 0\r\n\r\n".encode())
            await writer.drain()
        writer.close()

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[Receiver]:
        async with await asyncio.start_server(self._answer, "127.0.0.1", 0) as server:
            self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook?to=a"
            yield self


def webhook(url: str, **changes: Any) -> Webhook:
    told = {"backoff": Backoff(rounds=3, base_s=0.0, longest_s=0.0), "clock": ManualClock(1_700_000_000.7)}
    return Webhook(url=url, secret=SECRET, generator=random.Random(1), **{**told, **changes})


def test_the_signature_is_that_of_the_standard() -> None:
    secret = read_secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    body = b'{"test": 2432232314}'
    signed = signature(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body)
    assert signed == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


async def test_a_notice_arrives_signed_with_its_id() -> None:
    async with Receiver(500, 0, 204).listening() as server:
        await webhook(server.url).tell(NOTICE)
    assert len(server.got) == 3, "an error and a silence are tried again"
    line, headers, body = server.got[-1]
    assert line == "POST /hook?to=a HTTP/1.1"
    assert json.loads(body) == NOTICE.model_dump(mode="json")
    assert (headers["webhook-id"], headers["webhook-timestamp"]) == ("main-1", "1700000000")
    assert headers["webhook-signature"] == signature(SECRET, "main-1", 1_700_000_000, body)


async def test_a_redirect_is_not_followed_and_failure_is_told_in_the_end() -> None:
    async with Receiver(200).listening() as secret_place:
        async with Receiver(307, more=f"location: {secret_place.url}\r\n").listening() as server:
            with pytest.raises(SourceError, match="redirects are not followed"):
                await webhook(server.url).tell(NOTICE)
        assert (len(server.got), secret_place.got) == (3, [])


async def test_one_that_does_not_answer_is_given_up() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with await asyncio.start_server(silent, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(SourceError, match="did not answer"):
            await webhook(f"http://127.0.0.1:{port}/", timeout_s=0.05).tell(NOTICE)


@pytest.mark.parametrize(
    "address",
    (
        "10.0.0.1 192.168.1.1 169.254.169.254 127.0.0.1 ::1 0.0.0.0 100.64.0.1 fd00::1 fe80::1 224.0.0.1"
        " ::ffff:10.0.0.1 ::ffff:127.0.0.1 64:ff9b::a00:1 2002:a00:1::"
    ).split(),
)
async def test_a_name_that_leads_inside_is_not_followed(address: str) -> None:
    """The name server's answer is made here: a real one would need a domain of ours."""
    loop = asyncio.get_running_loop()

    async def lookup(*_: object, **__: object) -> list[tuple[Any, ...]]:
        return [(0, 0, 0, "", ("93.184.216.34", 443)), (0, 0, 0, "", (address, 443))]

    loop.getaddrinfo = lookup  # type: ignore[method-assign]
    with pytest.raises(SourceError, match="which is not public"):
        await webhook("https://hooks.example.com/").tell(NOTICE)


async def test_a_private_network_can_be_let_in_and_the_metadata_service_not() -> None:
    hook = webhook("https://hooks.example.com/", allow_private=True)
    reach = [hook._may_reach("h", ipaddress.ip_address(each)) for each in ("10.0.0.1", "169.254.169.254", "127.0.0.1")]
    assert reach == [True, False, False]


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/",
        "ftp://127.0.0.1/",
        "https://",
        "https://a@b/",
        "https://a/\r\nx: y",
        "https://a b/",
        "https://é/",
        "http://127.0.0.1.nip.io/",
        "https://a:99999/",
        "http://localhost.example.com/",
    ],
)
def test_a_url_that_will_not_do_is_refused_at_once(url: str) -> None:
    with pytest.raises(InputError, match="webhook"):
        webhook(url)


@pytest.mark.parametrize("text", ["", "whsec_", "whsec_!!", "whsec_" + base64.b64encode(b"short").decode(), "a" * 44])
def test_a_secret_that_is_none_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(InputError) as refused:
        read_secret(text)
    assert not text[6:] or text[6:] not in str(refused.value)
