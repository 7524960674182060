"""API keys: shown once, kept as a hash, refused once they are revoked, have expired or are not whole."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chimera.core.clock import ManualClock
from chimera.core.errors import InputError, Unauthenticated
from chimera.security.api_keys import MAX_KEYS, APIKey, ApiKeys, _check, looks_like_key
from chimera.security.roles import Permission, Role
from chimera.security.store import SecurityStore
from chimera.security.users import Users
from tests.unit.security.identity import START_S


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(START_S)


@pytest.fixture
def store(tmp_path: Path, clock: ManualClock) -> Iterator[SecurityStore]:
    made = SecurityStore(tmp_path / "security.db", clock=clock)
    yield made
    made.close()


@pytest.fixture
async def keys(store: SecurityStore, clock: ManualClock) -> ApiKeys:
    await Users(store, clock=clock).create("ada", Role.ADMIN, "hash", tenant="acme")
    await Users(store, clock=clock).create("bob", Role.ADMIN, "hash", tenant="other")
    return ApiKeys(store, clock=clock)


async def test_a_key_has_a_public_id_and_256_bits_of_secret(keys: ApiKeys) -> None:
    made = [await keys.create("ada", Role.OPERATOR) for _ in range(20)]
    for text, key in made:
        match = re.fullmatch(r"chim_([a-z2-7]{16})_([\w-]{43})([\w-]{6})", text)
        assert match is not None and match[1] == key.id
        assert keys.verify(text) == key
        assert text not in repr(key) and match[2] not in repr(key)
    assert len({text[22:65] for text, _ in made}) == 20
    assert made[0][1].rate_limit == 50


async def test_the_secret_is_in_no_file(keys: ApiKeys, store: SecurityStore) -> None:
    text, _ = await keys.create("ada", Role.OPERATOR)
    held = b"".join(path.read_bytes() for path in store.path.parent.iterdir())
    assert text[5:21].encode() in held and text[22:65].encode() not in held and text[30:50].encode() not in held


async def test_an_unknown_key_and_a_wrong_secret_are_refused_alike(keys: ApiKeys) -> None:
    text, _ = await keys.create("ada", Role.OPERATOR)
    wrong = text[:22] + ("A" if text[22] != "A" else "B") + text[23:65]
    unknown = "chim_" + "a" * 16 + text[21:65]
    said = set()
    for forged in (wrong + _check(wrong), unknown + _check(unknown)):
        with pytest.raises(Unauthenticated) as refused:
            keys.verify(forged)
        said.add(str(refused.value))
    assert said == {"the API key is refused: there is no such key; make another"}


@pytest.mark.parametrize("change", [
    lambda t: t[:-1], lambda t: t + "A", lambda t: t + "\n", lambda t: t.upper(), lambda t: t[:30] + "é" + t[31:],
    lambda t: t[:-1] + ("A" if t[-1] != "A" else "Q"), lambda t: t.replace("chim_", "chim-"),
    lambda t: t[:21] + "'" + t[22:], lambda t: None, lambda t: t.encode(), lambda t: "chim_" + "a" * 8_000_000,
])  # fmt: skip
async def test_what_is_not_a_whole_key_is_refused_unseen(keys: ApiKeys, change: object) -> None:
    text, _ = await keys.create("ada", Role.OPERATOR)
    with pytest.raises(Unauthenticated, match="not a whole key"):
        keys.verify(change(text))  # type: ignore[operator]


@given(st.text(max_size=90) | st.binary(max_size=20) | st.none())
def test_the_checksum_finds_what_is_no_key(text: object) -> None:
    whole = "chim_" + "a" * 16 + "_" + "A" * 43
    assert looks_like_key(whole + _check(whole))
    assert not looks_like_key(text) or (isinstance(text, str) and text.startswith("chim_"))


async def test_a_key_ends(keys: ApiKeys, clock: ManualClock) -> None:
    text, key = await keys.create("ada", Role.OPERATOR, lifetime_s=60.0)
    assert key.expires_at == START_S + 60
    clock.advance(59.9)
    keys.verify(text)
    clock.advance(0.1)
    with pytest.raises(Unauthenticated, match="expired"):
        keys.verify(text)


async def test_a_revoked_key_takes_those_with_it_that_were_made_with_it(keys: ApiKeys) -> None:
    first, parent = await keys.create("ada", Role.ADMIN)
    second, child = await keys.create("ada", Role.ADMIN, made_by=parent.id)
    third, _ = await keys.create("ada", Role.ADMIN, made_by=child.id)
    other, _ = await keys.create("ada", Role.ADMIN)
    assert len(await keys.revoke(parent.id)) == 3
    for text in (first, second, third):
        with pytest.raises(Unauthenticated, match="revoked"):
            keys.verify(text)
    keys.verify(other)
    with pytest.raises(Unauthenticated, match="revoked"):
        await keys.create("ada", Role.ADMIN, made_by=parent.id)
    assert await keys.revoke("nobody") == ()


async def test_scopes_come_back_as_they_were(keys: ApiKeys) -> None:
    for scopes in (None, frozenset[Permission](), frozenset({Permission.SWARM_READ, Permission.KEYS_READ})):
        text, _ = await keys.create("ada", Role.OPERATOR, scopes=scopes)
        assert keys.verify(text).scopes == scopes


async def test_keys_are_listed_by_page_user_and_tenant(keys: ApiKeys) -> None:
    for user in ("ada", "ada", "ada", "bob"):
        await keys.create(user, Role.OBSERVER)
    page = keys.list(limit=3)
    rest = keys.list(after=page[-1].id)
    assert [key.id for key in page + rest] == sorted(key.id for key in keys.list())
    assert len(page) == 3 and len(rest) == 1
    assert {key.user for key in keys.list(user="ada")} == {key.user for key in keys.list(tenant="acme")} == {"ada"}
    assert keys.list(user="bob", tenant="acme") == ()
    assert not any("digest" in field for field in APIKey.model_fields)


@pytest.mark.parametrize("wrong", [
    {"rate_limit": 0}, {"rate_limit": 10**9}, {"rate_limit": True}, {"lifetime_s": 0.0}, {"lifetime_s": float("nan")},
    {"lifetime_s": 1e12}, {"label": "x" * 101}, {"label": "a\nb"},
])  # fmt: skip
async def test_what_a_key_cannot_be_is_said(keys: ApiKeys, wrong: dict[str, object]) -> None:
    with pytest.raises(InputError):
        await keys.create("ada", Role.OPERATOR, **wrong)  # type: ignore[arg-type]
    with pytest.raises(InputError):
        keys.list(limit=0)


async def test_a_user_has_so_many_keys_and_no_more(keys: ApiKeys) -> None:
    for _ in range(MAX_KEYS):
        _, key = await keys.create("ada", Role.OBSERVER)
    with pytest.raises(InputError, match="revoke one"):
        await keys.create("ada", Role.OBSERVER)
    await keys.create("bob", Role.OBSERVER)
    await keys.revoke(key.id)
    await keys.create("ada", Role.OBSERVER)
