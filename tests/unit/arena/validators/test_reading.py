"""Reading chains from stores: in order, one block at a time, whoever can or cannot list, and whoever keeps copies."""

from __future__ import annotations

import pytest

from chimera.arena.validators.blocks import block_key
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
