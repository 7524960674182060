"""Reading chains from stores: in order, one block at a time, whoever can or cannot list, and whoever keeps copies."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from chimera.arena.validators import reading
from chimera.arena.validators.blocks import block_key
from chimera.arena.validators.merge import merge
from chimera.arena.validators.reading import read_chain
from chimera.core.errors import StorageError, StorageUnavailable
from chimera.storage.objects import ObjectStore, open_objects
from tests.unit.arena.validators import adversaries as bad
from tests.unit.arena.validators.adversaries import World, hotkey

WORLD = World(own=8, shared=4, per_block=4)
ANN = hotkey("Ann")
BLOCKS = bad.honest(WORLD, "Ann")


async def holding(blocks: dict[int, bytes], *, of: str = "Ann") -> ObjectStore:
    store = open_objects("memory://")
    for index, data in blocks.items():
        await store.create(block_key(hotkey(of), index), data)
    return store


async def read(store: ObjectStore, *mirrors: ObjectStore) -> list[bytes]:
    return [data async for data in read_chain(store, ANN, mirrors)]


class Refusing(ObjectStore):
    """Another store without its listing, or one that is out of reach altogether."""

    def __init__(self, store: ObjectStore, *, error: StorageError, gone: bool = False) -> None:
        self._store = store
        self._error = error
        self._gone = gone
        self.asked = 0

    async def get(self, key: str) -> bytes:
        self.asked += 1
        if self._gone:
            raise self._error
        return await self._store.get(key)

    async def create(self, key: str, data: bytes) -> None:
        raise self._error

    async def exists(self, key: str) -> bool:
        return await self._store.exists(key)

    async def list(self, prefix: str = "") -> list[str]:
        raise self._error

    async def close(self) -> None:
        await self._store.close()


async def test_blocks_come_in_order_and_other_objects_are_passed_over() -> None:
    store = await holding(dict(reversed(BLOCKS.items())))
    await store.create(f"{ANN}/notes.txt", b"not a block")
    await store.create(f"{hotkey('Bob')}/000000000000.json", b"another's")
    assert await read(store) == list(BLOCKS.values())


async def test_a_store_without_a_listing_is_asked_for_one_block_after_another() -> None:
    store = await holding({index: data for index, data in BLOCKS.items() if index != 3})
    assert await read(Refusing(store, error=StorageError("it has no listing"))) == [BLOCKS[0], BLOCKS[1], BLOCKS[2]]


async def test_a_store_out_of_reach_says_so_and_is_not_taken_for_an_empty_one() -> None:
    store = Refusing(await holding(BLOCKS), error=StorageUnavailable("out of reach"))
    with pytest.raises(StorageUnavailable):
        await read(store)


async def test_blocks_are_fetched_when_they_are_read_and_not_before() -> None:
    store = Refusing(await holding(BLOCKS), error=StorageError("it has no listing"))
    chain = read_chain(store, ANN)
    await anext(chain)
    assert store.asked == 1
    await chain.aclose()


async def test_a_copy_that_differs_comes_after_the_authors_own_if_the_author_has_signed_it() -> None:
    branch = bad.another_branch(WORLD, "Ann")
    own, same = await holding(BLOCKS), await holding(BLOCKS)
    forged = await holding({1: bad.unsigned(WORLD, "Ann")[1], 2: b"garbage", 3: BLOCKS[2]})
    assert await read(own, same, forged) == list(BLOCKS.values())
    told = await holding({1: branch})
    assert await read(own, told, told) == [BLOCKS[0], BLOCKS[1], branch, *list(BLOCKS.values())[2:]]


async def test_what_an_author_has_lost_comes_from_a_copy_and_a_broken_mirror_costs_nothing() -> None:
    own = await holding({0: BLOCKS[0], 2: BLOCKS[2]})
    gone = Refusing(await holding(BLOCKS), error=StorageUnavailable("out of reach"))
    broken = Refusing(await holding(BLOCKS), error=StorageError("refused"), gone=True)
    assert await read(own, gone, broken) == [BLOCKS[0], BLOCKS[2]]
    assert await read(own, gone, await holding({1: BLOCKS[1], 3: BLOCKS[3]})) == [BLOCKS[n] for n in range(4)]


@contextmanager
def serving(answer: bytes) -> Iterator[tuple[str, list[str]]]:
    """A web server that has an answer to everything, and what it was asked."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.answer(answer)

        def do_HEAD(self) -> None:
            self.answer(b"")

        def answer(self, data: bytes) -> None:
            asked.append(self.command)
            self.send_response(200 if len(asked) < 5_000 else 404)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


async def test_a_server_that_has_every_block_is_asked_for_no_more_than_the_first_that_is_none() -> None:
    with serving(b"x") as (url, asked):
        store = open_objects(url)
        found = await merge({ANN: read_chain(store, ANN)})
        assert [offence.kind for offence in found.offences] == ["undecodable"]
        assert asked == ["GET"]
        own = await holding(BLOCKS)
        assert await read(own, store) == list(BLOCKS.values())  # the same as a mirror
        assert asked == ["GET", "GET"]
        await store.close()


async def test_blocks_over_http_come_until_one_is_missing() -> None:
    own = await holding({index: data for index, data in BLOCKS.items() if index != 3})
    unlisted = Refusing(own, error=StorageError("it has no listing"))
    assert await read(await holding({0: BLOCKS[0]}), unlisted) == [BLOCKS[n] for n in range(3)]
    assert await read(unlisted, await holding({4: BLOCKS[4]})) == [BLOCKS[0], BLOCKS[1], BLOCKS[2], BLOCKS[4]]


@pytest.mark.parametrize("listed", [True, False])
async def test_a_chain_of_more_blocks_than_are_fetched_is_unread(monkeypatch: pytest.MonkeyPatch, listed: bool) -> None:
    monkeypatch.setattr(reading, "MAX_BLOCKS", len(BLOCKS))
    own: ObjectStore = await holding(BLOCKS)
    store = own if listed else Refusing(own, error=StorageError("it has no listing"))
    if listed:
        assert await read(store) == list(BLOCKS.values())
        await own.create(block_key(ANN, len(BLOCKS)), b"one more")
    else:
        monkeypatch.setattr(reading, "MAX_BLOCKS", len(BLOCKS) - 1)
    with pytest.raises(StorageError, match="more than"):
        await read(store)
    assert (await merge({ANN: read_chain(store, ANN)})).unread == (ANN,)
