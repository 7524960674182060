"""Passwords: the same work for whoever is asked about, so many at a time, and nobody locked out for good."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chimera.core.clock import ManualClock
from chimera.core.errors import InputError, RateLimited
from chimera.security.passwords import MAX_CHARS, Passwords, one_time_password, refuse_weak
from chimera.security.roles import Role
from chimera.security.store import SecurityStore
from chimera.security.users import FREE_FAILURES, MAX_PAUSE_S, Users, pause_s
from tests.unit.security.identity import PASSWORD, START_S


@pytest.fixture
def passwords() -> Iterator[Passwords]:
    made = Passwords()
    yield made
    made.close()


async def test_a_hash_is_argon2id_with_owasps_parameters_and_salted(passwords: Passwords) -> None:
    first, second = await passwords.hash(PASSWORD), await passwords.hash(PASSWORD)
    assert first.startswith("$argon2id$v=19$m=19456,t=2,p=1$") and first != second
    assert PASSWORD not in first
    assert await passwords.verify(first, PASSWORD) and await passwords.verify(second, PASSWORD)
    assert not await passwords.verify(first, PASSWORD + "r")
    assert not passwords.is_outdated(first)
    assert passwords.is_outdated(first.replace("t=2", "t=1"))


async def test_nobodys_password_is_never_right_and_takes_one_run_too(passwords: Passwords) -> None:
    hashed = await passwords.hash(PASSWORD)
    for known, given_password in [(hashed, PASSWORD), (hashed, "wrong"), (None, PASSWORD), (None, ""),
                                  (hashed, "x" * 1_000_000)]:  # fmt: skip
        before = passwords.runs
        await passwords.verify(known, given_password)
        assert passwords.runs == before + 1


async def test_a_password_is_the_same_however_its_accents_are_typed(passwords: Passwords) -> None:
    hashed = await passwords.hash("caf\u00e9 au lait, deux")
    assert await passwords.verify(hashed, "cafe\u0301 au lait, deux")


async def test_what_no_keyboard_types_is_a_wrong_password_and_no_failure(passwords: Passwords) -> None:
    hashed = await passwords.hash(PASSWORD)
    for odd in ("\ud800" * 12, "\0" * 12, "", "x" * (MAX_CHARS + 1)):
        assert not await passwords.verify(hashed, odd)


async def test_one_too_long_is_wrong_even_if_its_beginning_is_right(passwords: Passwords) -> None:
    assert not await passwords.verify(await passwords.hash(""), "x" * (MAX_CHARS + 1))


async def test_so_many_wait_and_no_more() -> None:
    passwords = Passwords(threads=1, max_waiting=1)
    go_on = threading.Event()
    try:
        waiting = [asyncio.create_task(passwords._run(go_on.wait)) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(RateLimited) as refused:
            await passwords.verify(None, PASSWORD)
        assert refused.value.retry_after_s > 0
        go_on.set()
        await asyncio.gather(*waiting)
        assert not await passwords.verify(None, PASSWORD)
    finally:
        go_on.set()
        passwords.close()


WEAK = ["short", "x" * (MAX_CHARS + 1), "abababababababab", "i-am-OSCAR-the-operator", ""]
KNOWN = ["123456789012", "Passwordpassword", "Password1234!", "qwertyuiop123", "abcdefghijklm", "Chimera-Admin-2026"]


@pytest.mark.parametrize(
    "good", ["correct horse battery", "0dd but 1ong enough", "Zm9vYmFyYmF6cXV4", "пароль надёжный да"]
)
def test_passwords_of_ones_own_are_taken(good: str) -> None:
    refuse_weak("oscar", good)


@pytest.mark.parametrize("weak", WEAK + KNOWN)
def test_weak_passwords_are_refused(weak: str) -> None:
    with pytest.raises(InputError) as refused:
        refuse_weak("oscar", weak)
    assert not weak or weak not in str(refused.value)


def test_one_time_passwords_are_long_and_never_the_same() -> None:
    many = {one_time_password() for _ in range(100)}
    assert len(many) == 100
    for password in many:
        refuse_weak("admin", password)


@given(st.integers(0, 10_000))
def test_pauses_begin_late_double_and_end(failures: int) -> None:
    assert 0.0 <= pause_s(failures) <= pause_s(failures + 1) <= MAX_PAUSE_S
    assert (pause_s(failures) == 0.0) == (failures < FREE_FAILURES)
    if 0.0 < pause_s(failures + 1) < MAX_PAUSE_S and pause_s(failures):
        assert pause_s(failures + 1) == 2 * pause_s(failures)


async def test_a_lock_outlives_its_process_and_grows(tmp_path: Path) -> None:
    clock, locked = ManualClock(START_S), []
    store = SecurityStore(tmp_path / "security.db", clock=clock)
    await Users(store, clock=clock).create("oscar", Role.OPERATOR, "hash")
    assert [await Users(store, clock=clock).begin_attempt("oscar") for _ in range(FREE_FAILURES)] == [True] * 5
    for _ in range(6):
        store.close()
        store = SecurityStore(tmp_path / "security.db", clock=clock)
        users, locked_s = Users(store, clock=clock), 0
        while not await users.begin_attempt("oscar"):  # attempts while locked do not make it longer
            clock.advance(1.0)
            locked_s += 1
        locked.append(locked_s)
    store.close()
    assert locked == [1, 2, 4, 8, 16, 32]


async def test_many_attempts_at_once_get_no_more_tries_than_one_after_another(tmp_path: Path) -> None:
    clock = ManualClock(START_S)
    store = SecurityStore(tmp_path / "security.db", clock=clock)
    users = Users(store, clock=clock)
    await users.create("oscar", Role.OPERATOR, "hash")
    admitted = await asyncio.gather(*(users.begin_attempt("oscar") for _ in range(50)))
    assert sum(admitted) == FREE_FAILURES
    await users.succeeded("oscar")
    assert await users.begin_attempt("oscar")
    store.close()
