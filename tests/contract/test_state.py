"""What every state store does, over every adapter."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable

import pytest
from pydantic import JsonValue

from chimera.core.errors import InputError, StateConflict, StorageError
from chimera.storage.state import MAX_KEY_CHARACTERS, MAX_VALUE_BYTES, StateStore, Versioned, open_state
from tests.contract.wire import Wire
from tests.servers import ESCAPED_PASSWORD, PASSWORD, RedisServer


@pytest.fixture(params=["memory", "sqlite", "redis"])
async def store(request: pytest.FixtureRequest, url_of: Callable[[str], str]) -> AsyncIterator[StateStore]:
    opened = open_state(url_of(request.param))
    yield opened
    await opened.close()


@pytest.mark.parametrize(
    "value", [None, True, 0, 2**80, 0.1 + 0.2, "é\x00 🐙", "NaN", [], {}, {"b": [1, {"a": None}], "a": "x"}]
)
async def test_what_goes_in_comes_out(store: StateStore, value: JsonValue) -> None:
    version = await store.put("key", value)
    assert await store.get("key") == Versioned(value, version)


async def test_a_key_that_is_not_there(store: StateStore) -> None:
    assert await store.get("key") is None
    await store.delete("key")
    await store.put("other", 1)
    assert await store.get("key") is None


async def test_a_value_is_changed_only_at_the_version_that_is_expected(store: StateStore) -> None:
    first = await store.put("key", "a", expected=0)
    with pytest.raises(StateConflict, match="is at version") as refusal:
        await store.put("key", "b", expected=0)
    assert refusal.value.version == first
    second = await store.put("key", "b", expected=first)
    assert second > first
    with pytest.raises(StateConflict):
        await store.put("key", "c", expected=first)
    assert await store.get("key") == Versioned("b", second)
    assert await store.put("key", "d") > second


async def test_what_is_not_there_has_version_zero(store: StateStore) -> None:
    with pytest.raises(StateConflict, match="is not there") as refusal:
        await store.put("key", 1, expected=7)
    assert refusal.value.version == 0
    assert await store.get("key") is None


async def test_a_key_that_was_deleted_and_made_anew_has_no_old_version(store: StateStore) -> None:
    old = await store.put("key", "old")
    await store.delete("key")
    assert await store.get("key") is None
    assert await store.put("key", "new", expected=0) > old
    with pytest.raises(StateConflict):
        await store.put("key", "late", expected=old)


async def test_keys_do_not_meet(store: StateStore) -> None:
    keys = ["a", "A", "a ", "a:b", "version", "a\x00", "a\x00b", "é", "%s", "*", "'", "k" * MAX_KEY_CHARACTERS]
    versions = [await store.put(key, key) for key in keys]
    assert versions == sorted(set(versions))
    assert [await store.get(key) for key in keys] == list(map(Versioned, keys, versions))


@pytest.mark.parametrize("key", ["", "k" * (MAX_KEY_CHARACTERS + 1), "\ud800"], ids=["empty", "long", "surrogate"])
async def test_a_bad_key_is_refused(store: StateStore, key: str) -> None:
    for call in (store.get(key), store.put(key, 1), store.delete(key)):
        with pytest.raises(StorageError, match="key"):
            await call


@pytest.mark.parametrize("value", [float("nan"), [float("inf")], {"x": "\ud800"}], ids=["nan", "inf", "surrogate"])
async def test_what_would_not_come_back_the_same_is_refused(store: StateStore, value: JsonValue) -> None:
    with pytest.raises(StorageError, match="cannot be stored as JSON"):
        await store.put("key", value)
    assert await store.get("key") is None


async def test_a_value_over_the_limit_is_refused(store: StateStore) -> None:
    largest = "é" * (MAX_VALUE_BYTES // 2 - 1)
    version = await store.put("key", largest)
    with pytest.raises(StorageError, match="the limit is 1000000"):
        await store.put("key", largest + "e")
    assert await store.get("key") == Versioned(largest, version)


async def test_counting_by_compare_and_set_loses_nothing(store: StateStore) -> None:
    async def count(times: int) -> None:
        while times:
            now = await store.get("count") or Versioned(0, 0)
            assert isinstance(now.value, int)
            try:
                await store.put("count", now.value + 1, expected=now.version)
                times -= 1
            except StateConflict:
                pass

    await asyncio.gather(*(count(5) for _ in range(8)))
    stored = await store.get("count")
    assert stored is not None
    assert stored.value == 40


async def test_it_is_what_a_dictionary_is(store: StateStore) -> None:
    chance = random.Random(3)
    model: dict[str, Versioned] = {}
    for step in range(150):
        key = f"k{chance.randrange(5)}"
        now = model.get(key, Versioned(None, 0)).version
        match chance.randrange(4):
            case 0:
                await store.delete(key)
                model.pop(key, None)
            case 1:
                with pytest.raises(StateConflict):
                    await store.put(key, step, expected=now + 1)
            case 2:
                model[key] = Versioned(step, await store.put(key, step, expected=now))
            case 3:
                model[key] = Versioned(step, await store.put(key, step))
        assert await store.get(key) == model.get(key)


@pytest.mark.parametrize("scheme", ["sqlite", "redis"])
async def test_what_was_put_is_there_after_reopening(scheme: str, url_of: Callable[[str], str]) -> None:
    url = url_of(scheme)
    first, second = open_state(url), open_state(url)
    version = await first.put("key", {"a": 1})
    assert await second.get("key") == Versioned({"a": 1}, version)
    newer = await second.put("key", 2, expected=version)
    with pytest.raises(StateConflict):
        await first.put("key", 3, expected=version)
    await first.close()
    await second.close()
    third = open_state(url)
    assert await third.get("key") == Versioned(2, newer)
    assert await third.put("key", 3) > newer
    await third.close()


async def test_a_closed_store_refuses_everything(store: StateStore) -> None:
    putting = asyncio.ensure_future(store.put("key", 1))
    await asyncio.sleep(0)
    await asyncio.gather(store.close(), store.close())
    await putting
    for call in (store.get("key"), store.put("key", 1), store.delete("key")):
        with pytest.raises(StorageError, match="closed"):
            await call


async def test_a_put_whose_answer_is_lost_is_no_conflict(
    redis_server: RedisServer, url_of: Callable[[str], str]
) -> None:
    wire = Wire(redis_server.port, b"EVALSHA")
    async with wire.listening() as port:
        store = open_state(url_of("redis").replace(f":{redis_server.port}/", f":{port}/"))
        version = await store.put("key", "a", expected=0)
        wire.lose_answers = 1
        newer = await store.put("key", "b", expected=version)
        assert wire.lose_answers == 0
        assert await store.get("key") == Versioned("b", newer)
        with pytest.raises(StateConflict):
            await store.put("key", "b", expected=version)
        await store.close()


@pytest.mark.parametrize(
    "url", ["", "state.db", "postgresql://u:secret@host/db", "sqlite://", "memory://x", "redis://"]
)
def test_what_is_not_a_store_is_refused_with_what_is(url: str) -> None:
    with pytest.raises(InputError, match=r"use sqlite:///PATH, memory:// or redis://") as refusal:
        open_state(url)
    assert "secret" not in str(refusal.value)


async def test_no_password_is_shown(url_of: Callable[[str], str], redis_server: RedisServer) -> None:
    store = open_state(url_of("redis").replace(f":{redis_server.port}/", ":1/"))
    with pytest.raises(StorageError, match="out of reach") as refusal:
        await store.get("key")
    assert PASSWORD not in str(refusal.value)
    assert ESCAPED_PASSWORD not in str(refusal.value)
    await store.close()
