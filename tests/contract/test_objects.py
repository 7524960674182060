"""What every object store does: in memory, in a directory, on an S3 server, behind a plain web server."""

from __future__ import annotations

import asyncio
import functools
import http.server
import multiprocessing
import os
import socket
import threading
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from itertools import count
from pathlib import Path

import pytest
from moto.server import ThreadedMotoServer

from chimera.core.errors import InputError, ObjectExists, ObjectMissing, StorageError, StorageUnavailable
from chimera.storage import objects, objects_obstore
from chimera.storage.objects import MAX_KEY_CHARACTERS, MAX_OBJECT_BYTES, ObjectStore, open_objects
from tests.servers import free_port

SECRET = "s3cr3t/key+value"

buckets = count(1)


@pytest.fixture(scope="module")
def s3_endpoint() -> Iterator[str]:
    server = ThreadedMotoServer("127.0.0.1", free_port(), verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def aws(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> str:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIATEST")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    return s3_endpoint


@pytest.fixture
def url_of(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str], str]:
    """The URL of an empty store of that scheme."""

    def url(scheme: str) -> str:
        if scheme == "file":
            return f"file://{tmp_path}/blocks of mine"
        if scheme == "s3":
            bucket = f"bucket-{next(buckets)}"
            endpoint = request.getfixturevalue("aws")
            urllib.request.urlopen(urllib.request.Request(f"{endpoint}/{bucket}", method="PUT"), timeout=10).close()
            return f"s3://{bucket}/a/folder"
        return f"{scheme}://"

    return url


@pytest.fixture(params=["memory", "file", "s3"])
async def store(request: pytest.FixtureRequest, url_of: Callable[[str], str]) -> AsyncIterator[ObjectStore]:
    opened = open_objects(url_of(request.param))
    yield opened
    await opened.close()


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def web(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A plain web server's URL, and the folder that it shows."""
    (tmp_path / "shown").mkdir()
    handler = functools.partial(Quiet, directory=str(tmp_path))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/shown", tmp_path / "shown"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("data", [b"", b"\x00\xff", b"x" * 6_000_000], ids=["empty", "bytes", "large"])
async def test_what_goes_in_comes_out(store: ObjectStore, data: bytes) -> None:
    await store.create("a/b.json", data)
    assert await store.get("a/b.json") == data
    assert type(await store.get("a/b.json")) is bytes
    assert await store.exists("a/b.json")


async def test_what_is_not_there(store: ObjectStore) -> None:
    assert not await store.exists("a/b.json")
    with pytest.raises(ObjectMissing, match=r"there is no a/b\.json"):
        await store.get("a/b.json")
    await store.create("a/b.json", b"1")
    assert not await store.exists("a")
    with pytest.raises(ObjectMissing):
        await store.get("a")


async def test_nothing_is_ever_overwritten(store: ObjectStore) -> None:
    await store.create("a/b.json", b"first")
    for data in (b"second", b"first", b""):
        with pytest.raises(ObjectExists, match=r"a/b\.json is there already"):
            await store.create("a/b.json", data)
    assert await store.get("a/b.json") == b"first"


async def test_of_many_that_create_the_same_one_wins(store: ObjectStore) -> None:
    async def create(data: bytes) -> bool:
        try:
            await store.create("a/b.json", data)
        except ObjectExists:
            return False
        return True

    offers = [bytes([number]) * 10_000 for number in range(16)]
    won = await asyncio.gather(*map(create, offers))
    assert won.count(True) == 1
    assert await store.get("a/b.json") == offers[won.index(True)]
    assert await store.list() == ["a/b.json"]


async def test_keys_are_listed_by_folder_in_order(store: ObjectStore) -> None:
    assert await store.list() == await store.list("a") == []
    keys = ["a/1.json", "a/10.json", "a/2.json", "a/b/c.json", "ab/1.json", "b=c.d_e-f"]
    for key in reversed(keys):
        await store.create(key, b"")
    assert await store.list() == keys
    assert await store.list("a") == await store.list("a/") == keys[:4]
    assert await store.list("a/b") == ["a/b/c.json"]
    assert await store.list("c") == []


async def test_a_listing_of_many_is_whole_and_has_a_limit(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = [f"k/{number:04d}" for number in range(1_050)]  # S3 lists a thousand at a time
    for start in range(0, len(keys), 50):
        await asyncio.gather(*(store.create(key, b"") for key in keys[start : start + 50]))
    assert await store.list("k") == keys
    monkeypatch.setattr(objects, "MAX_LISTED", 1_049)
    with pytest.raises(StorageError, match="more than 1049 objects"):
        await store.list("k")


BAD_KEYS = [
    "",
    "/",
    "/a",
    "a/",
    "a//b",
    ".",
    "..",
    "../a",
    "a/../b",
    "a/./b",
    ".hidden",
    "a/.hidden",
    "a b",
    "a\\b",
    "a%2e",
    "a#1",
    "a?b",
    "é",
    "a\n",
    "a\x00b",
    "\ud800",
    "k" * (MAX_KEY_CHARACTERS + 1),
]


@pytest.mark.parametrize("key", BAD_KEYS, ids=ascii)
async def test_what_is_no_key_is_refused(store: ObjectStore, key: str, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a file beside the store")
    for call in (store.get(key), store.create(key, b""), store.exists(key)):
        with pytest.raises(StorageError, match="is no key"):
            await call


async def test_an_object_over_the_limit_is_neither_made_nor_read(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(StorageError, match="the limit is"):
        await store.create("a", b"x" * (MAX_OBJECT_BYTES + 1))
    assert not await store.exists("a")
    await store.create("a", b"x" * 101)
    monkeypatch.setattr(objects, "MAX_OBJECT_BYTES", 100)
    with pytest.raises(StorageError, match="larger than 100 bytes, and is not read"):
        await store.get("a")


async def test_a_closed_store_refuses_everything(store: ObjectStore) -> None:
    await store.close()
    await store.close()
    calls: list[Awaitable[object]] = [store.get("a"), store.create("a", b""), store.exists("a"), store.list()]
    for call in calls:
        with pytest.raises(StorageError, match="closed"):
            await call


def create_all(url: str, mark: bytes, start: object, won: object) -> None:
    """In a process of its own: try to create the same hundred objects as everybody else."""

    async def run() -> list[int]:
        store, mine = open_objects(url), []
        for number in range(100):
            try:
                await store.create(f"k/{number}", mark * 1_000)
                mine.append(number)
            except ObjectExists:
                pass
        return mine

    start.wait()  # type: ignore[attr-defined]
    won.put((mark, asyncio.run(run())))  # type: ignore[attr-defined]


@pytest.mark.parametrize("scheme", ["file", "s3"])
async def test_of_two_processes_one_creates_each_object(scheme: str, url_of: Callable[[str], str]) -> None:
    url, context = url_of(scheme), multiprocessing.get_context("spawn")
    start, won = context.Barrier(2), context.Queue()
    processes = [context.Process(target=create_all, args=(url, mark, start, won)) for mark in (b"a", b"b")]
    for process in processes:
        process.start()
    mine = dict([await asyncio.to_thread(won.get, timeout=60) for _ in processes])
    for process in processes:
        process.join(30)
    assert sorted(mine[b"a"] + mine[b"b"]) == list(range(100))
    store = open_objects(url)
    for mark, numbers in mine.items():
        for number in numbers:
            assert await store.get(f"k/{number}") == mark * 1_000


async def test_a_web_server_is_read(web: tuple[str, Path]) -> None:
    url, folder = web
    (folder / "a").mkdir()
    (folder / "a" / "b.json").write_bytes(b"1")
    store = open_objects(url)
    assert await store.get("a/b.json") == b"1"
    assert await store.exists("a/b.json")
    assert not await store.exists("a/c.json")
    with pytest.raises(ObjectMissing):
        await store.get("a/c.json")
    for key in BAD_KEYS:
        with pytest.raises(StorageError, match="is no key"):
            await store.get(key)
    await store.close()
    with pytest.raises(StorageError, match="closed"):
        await store.get("a/b.json")


async def test_a_web_server_is_neither_written_nor_listed(web: tuple[str, Path]) -> None:
    store = open_objects(web[0])
    with pytest.raises(StorageError, match="can only be read"):
        await store.create("a", b"")
    with pytest.raises(StorageError, match="has no listing"):
        await store.list("a")


async def test_a_web_server_cannot_send_without_end(monkeypatch: pytest.MonkeyPatch, web: tuple[str, Path]) -> None:
    (web[1] / "a").write_bytes(b"x" * 5_000_000)
    monkeypatch.setattr(objects, "MAX_OBJECT_BYTES", 100)
    with pytest.raises(StorageError, match="larger than 100 bytes"):
        await open_objects(web[0]).get("a")


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(objects_obstore.RETRY, "max_retries", 0)


@pytest.mark.usefixtures("impatient", "aws")
async def test_a_server_out_of_reach_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    nobody = f"http://127.0.0.1:{free_port()}"
    monkeypatch.setenv("AWS_ENDPOINT_URL", nobody)
    for store in (open_objects("s3://bucket"), open_objects(nobody)):
        for call in (store.get("a"), store.exists("a")):
            with pytest.raises(StorageUnavailable, match="out of reach") as refusal:
                await call
            assert SECRET not in str(refusal.value)
            assert "AKIATEST" not in str(refusal.value)
    store = open_objects("s3://bucket")
    with pytest.raises(StorageUnavailable):
        await store.create("a", b"")
    with pytest.raises(StorageUnavailable):
        await store.list()


@pytest.mark.usefixtures("aws")
async def test_a_bucket_that_is_not_there_is_said_so() -> None:
    store = open_objects("s3://no-such-bucket")
    with pytest.raises(StorageError, match="make the bucket first") as refusal:
        await store.create("a", b"")
    assert not isinstance(refusal.value, ObjectMissing | StorageUnavailable)
    with pytest.raises(StorageError, match="HTTP status 404"):
        await store.list()


@pytest.mark.parametrize(
    ("status", "error", "message"),
    [
        (401, StorageError, "check the credentials"),
        (403, StorageError, "check the credentials"),
        (400, StorageError, "HTTP status 400"),
        (500, StorageUnavailable, "HTTP status 500"),
        (503, StorageUnavailable, "HTTP status 503"),
        (429, StorageUnavailable, "HTTP status 429"),
    ],
)
@pytest.mark.usefixtures("impatient")
async def test_a_server_that_refuses_is_not_out_of_reach(status: int, error: type[StorageError], message: str) -> None:
    class Refusing(Quiet):
        def do_GET(self) -> None:
            self.send_error(status, f"{SECRET} is wrong")

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refusing)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        with pytest.raises(error, match=message) as refusal:
            await open_objects(f"http://127.0.0.1:{server.server_port}").get("a")
    finally:
        server.shutdown()
        server.server_close()
    assert type(refusal.value) is error
    assert SECRET not in str(refusal.value)
    assert refusal.value.__cause__ is None


async def test_an_answer_that_breaks_off_is_not_half_an_object() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            for _ in range(10):
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(10_000)
                    since = b"Last-Modified: Thu, 01 Jan 2026 00:00:00 GMT"
                    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n" + since + b"\r\n\r\nhalf")

        threading.Thread(target=serve, daemon=True).start()
        with pytest.raises(StorageUnavailable):
            await open_objects(f"http://127.0.0.1:{listening.getsockname()[1]}").get("a")
        listening.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "blocks",
        "file://",
        "file:///",
        "file://host/path",
        "memory://x",
        "s3://",
        "s3://user:s3cr3t@bucket/x",
        "s3://bucket/a b",
        "s3://bucket/../x",
        "s3://bucket?x=s3cr3t",
        "http://",
        "http://user:s3cr3t@host/",
        "http://host/?token=s3cr3t",
        "http://host:port/",
        "ftp://host/x",
        "gs://bucket",
    ],
)
def test_what_is_no_store_is_refused_with_what_is(url: str) -> None:
    with pytest.raises(
        (InputError, StorageError), match=r"is not an object store: use file:///PATH|is no key"
    ) as refusal:
        open_objects(url)
    assert "s3cr3t" not in str(refusal.value)


def test_the_limit_holds_a_block() -> None:
    from chimera.arena.types import MAX_BLOCK_BYTES

    assert objects.MAX_OBJECT_BYTES >= MAX_BLOCK_BYTES
