"""Identity as a whole: who gets in, what they may hand out, and that it ends when it is ended."""

from __future__ import annotations

import asyncio
import pickle
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chimera.core.clock import ManualClock
from chimera.core.errors import Forbidden, InputError, NotThere, SecurityError, TokenReused, Unauthenticated
from chimera.security.manager import LOCAL, LOGIN_REFUSED, SecurityManager
from chimera.security.passwords import Passwords
from chimera.security.principal import Principal
from chimera.security.roles import PERMISSIONS, Permission, Role
from chimera.security.users import FREE_FAILURES
from tests.unit.security.identity import PASSWORD, START_S, USERS, Notes, add_users, opened


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(START_S)


@pytest.fixture
def notes() -> Notes:
    return Notes()


@pytest.fixture
def manager(tmp_path: Path, clock: ManualClock, notes: Notes) -> Iterator[SecurityManager]:
    with opened(tmp_path, clock, audit=notes) as made:
        yield made


def of(name: str, scopes: frozenset[Permission] | None = None, tenant: str = "") -> Principal:
    return Principal(subject=name, role=USERS[name], kind="user", scopes=scopes, token_id="t" * 22, tenant=tenant)


async def test_whoever_knows_the_password_gets_in_as_what_they_are(manager: SecurityManager, notes: Notes) -> None:
    await add_users(manager)
    for name, role in USERS.items():
        principal = manager.verify((await manager.authenticate(name, PASSWORD)).access_token)
        assert (principal.subject, principal.role) == (name, role)
        assert principal.kind == ("node" if role is Role.NODE else "user")
        assert notes.has(name, "login", "ok")
    assert PASSWORD not in repr(notes.lines)


async def test_no_answer_tells_why_somebody_was_not_let_in(manager: SecurityManager, notes: Notes) -> None:
    """Unknown, wrong, locked, disabled: one message, one run of argon2, one write; also with the right password."""
    await add_users(manager, "oscar", "olga")
    await manager.disable_user("olga", by=LOCAL)
    for _ in range(FREE_FAILURES):
        with pytest.raises(Unauthenticated):
            await manager.authenticate("oscar", "wrong password 1")
    writes = 0
    begin = manager.users.begin_attempt

    async def counted(name: str) -> bool:
        nonlocal writes
        writes += 1
        return await begin(name)

    manager.users.begin_attempt = counted  # type: ignore[method-assign]
    tries = [("oscar", PASSWORD), ("oscar", "wrong"), ("olga", PASSWORD), ("nobody", PASSWORD), ("", ""),
             ("x" * 10_000, PASSWORD), ("'; DROP TABLE users; --", PASSWORD), ("nobody", "x" * 10_000)]  # fmt: skip
    said = set()
    for done, (name, password) in enumerate(tries, 1):
        before = manager._passwords.runs
        with pytest.raises(Unauthenticated) as refused:
            await manager.authenticate(name, password)
        said.add((type(refused.value), str(refused.value)))
        assert (manager._passwords.runs - before, writes) == (1, done), name
    assert said == {(Unauthenticated, LOGIN_REFUSED)}
    assert {line[0] for line in notes.lines if line[1] == "login"} == {"oscar", "olga", "unknown"}


async def test_a_lock_ends_and_a_good_login_forgets_the_failures(manager: SecurityManager, clock: ManualClock) -> None:
    await add_users(manager, "oscar")
    for _ in range(FREE_FAILURES):
        with pytest.raises(Unauthenticated):
            await manager.authenticate("oscar", "wrong")
    with pytest.raises(Unauthenticated):
        await manager.authenticate("oscar", PASSWORD)
    clock.advance(1.0)
    await manager.authenticate("oscar", PASSWORD)
    for _ in range(FREE_FAILURES - 1):
        with pytest.raises(Unauthenticated):
            await manager.authenticate("oscar", "wrong")
    await manager.authenticate("oscar", PASSWORD)


async def test_the_first_administrator_has_a_one_time_password(
    manager: SecurityManager, clock: ManualClock, notes: Notes
) -> None:
    password = await manager.bootstrap()
    assert password is not None and await manager.bootstrap() is None
    with pytest.raises(Forbidden, match="one-time"):
        await manager.authenticate("admin", password)
    with pytest.raises(InputError):
        await manager.authenticate("admin", password, new_password="weak")
    with pytest.raises(InputError, match="old one"):
        await manager.authenticate("admin", password, new_password=password)
    pair = await manager.authenticate("admin", password, new_password=PASSWORD)
    assert manager.verify(pair.access_token).role is Role.ADMIN
    with pytest.raises(Unauthenticated):
        await manager.authenticate("admin", password, new_password="another good one")
    assert password not in repr(notes.lines)


async def test_a_one_time_password_is_good_for_a_day_and_once(manager: SecurityManager, clock: ManualClock) -> None:
    await add_users(manager, "oscar")
    password = await manager.reset_password("oscar", by=LOCAL)
    came = await asyncio.gather(
        *(manager.authenticate("oscar", password, new_password=f"good password {n}") for n in range(3)),
        return_exceptions=True,
    )
    assert sum(isinstance(one, Unauthenticated) for one in came) == 2
    password = await manager.reset_password("oscar", by=LOCAL)
    clock.advance(86_400.0)
    with pytest.raises(Unauthenticated):
        await manager.authenticate("oscar", password, new_password=PASSWORD)


def test_two_processes_make_one_first_administrator(tmp_path: Path) -> None:
    async def both() -> list[str | None]:
        with opened(tmp_path) as one, opened(tmp_path) as two:
            return list(await asyncio.gather(one.bootstrap(), two.bootstrap()))

    assert sorted(password is None for password in asyncio.run(both())) == [False, True]


@pytest.mark.parametrize("how", ["password", "new password", "role", "disabled", "reused"])
async def test_what_changes_a_user_ends_their_sessions(manager: SecurityManager, how: str, notes: Notes) -> None:
    await add_users(manager, "oscar", "olga")
    pair, other = await manager.authenticate("oscar", PASSWORD), await manager.authenticate("olga", PASSWORD)
    manager.verify(pair.access_token)
    if how == "password":
        await manager.reset_password("oscar", by=LOCAL)
    elif how == "new password":
        newer = await manager.authenticate("oscar", PASSWORD, new_password="another good one")
        assert manager.verify(newer.access_token).subject == "oscar"
    elif how == "role":
        await manager.set_role("oscar", Role.OBSERVER, by=LOCAL)
    elif how == "disabled":
        await manager.disable_user("oscar", by=LOCAL)
    else:
        await manager.refresh(pair.refresh_token)
        with pytest.raises(TokenReused):
            await manager.refresh(pair.refresh_token)
        assert notes.has("oscar", "refresh", "reused")
    with pytest.raises(Unauthenticated):
        manager.verify(pair.access_token)
    with pytest.raises(Unauthenticated):
        await manager.refresh(pair.refresh_token)
    assert manager.verify(other.access_token).subject == "olga"


async def test_a_check_is_of_the_permission_and_the_time(
    manager: SecurityManager, clock: ManualClock, notes: Notes
) -> None:
    for name, role in USERS.items():
        for permission in Permission:
            if permission in PERMISSIONS[role]:
                manager.check(of(name), permission, "thing/1")
            else:
                with pytest.raises(Forbidden):
                    manager.check(of(name), permission, "thing/1")
                assert (name, permission, "thing/1", "forbidden", {"role": role}) in notes.lines
    ended = of("ada").model_copy(update={"expires_at": START_S + 60})
    manager.check(ended, Permission.SWARM_READ)
    clock.advance(71.0)
    with pytest.raises(Unauthenticated, match="expired"):
        manager.check(ended, Permission.SWARM_READ)


KEY_CASES: list[tuple[str, str, Role, bool]] = [
    ("ada", "ada", Role.ADMIN, True),
    ("ada", "oscar", Role.OPERATOR, True),
    ("ada", "oscar", Role.ADMIN, False),  # no more than its user has
    ("oscar", "oscar", Role.OPERATOR, True),
    ("oscar", "oscar", Role.API_CLIENT, True),
    ("oscar", "oscar", Role.ADMIN, False),
    ("oscar", "oscar", Role.NODE, False),
    ("oscar", "ada", Role.OPERATOR, False),  # of somebody else
    ("oscar", "olga", Role.OBSERVER, False),
    ("olga", "olga", Role.OBSERVER, False),
    ("paul", "paul", Role.API_CLIENT, False),
    ("node-1", "node-1", Role.NODE, False),
]


@pytest.mark.parametrize(("by", "user", "role", "may"), KEY_CASES)
async def test_nobody_makes_a_key_of_more_than_they_have(
    manager: SecurityManager, by: str, user: str, role: Role, may: bool
) -> None:
    await add_users(manager)
    if may:
        text, key = await manager.create_api_key(user, role, by=of(by))
        found = manager.verify(text)
        assert (found.subject, found.role, found.rate_limit, found.token_id) == (user, role, 50, key.id)
    else:
        with pytest.raises(Forbidden):
            await manager.create_api_key(user, role, by=of(by))
        assert manager.keys.list() == ()


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    mine=st.none() | st.frozensets(st.sampled_from(Permission)),
    asked=st.none() | st.frozensets(st.sampled_from(Permission)),
    by=st.sampled_from(sorted(USERS)),
    role=st.sampled_from(Role),
)
def test_a_key_never_has_what_its_maker_has_not(
    tmp_path_factory: pytest.TempPathFactory,
    shared: tuple[SecurityManager, Callable[[Any], Any]],
    mine: frozenset[Permission] | None,
    asked: frozenset[Permission] | None,
    by: str,
    role: Role,
) -> None:
    manager, run = shared
    maker = of(by, mine)
    try:
        text, key = run(manager.create_api_key(by, role, by=maker, scopes=asked))
    except SecurityError:
        return
    assert manager.verify(text).permissions <= maker.permissions
    run(manager.revoke_key(key.id, by=of("ada")))


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[SecurityManager, Callable[[Any], Any]]]:
    with opened(tmp_path_factory.mktemp("shared")) as made, asyncio.Runner() as runner:
        runner.run(add_users(made))
        yield made, runner.run


async def test_a_key_made_with_a_key_ends_with_it(manager: SecurityManager, clock: ManualClock) -> None:
    await add_users(manager, "ada")
    first, parent = await manager.create_api_key("ada", Role.ADMIN, by=of("ada"), lifetime_s=100.0)
    second, child = await manager.create_api_key("ada", Role.ADMIN, by=manager.verify(first), lifetime_s=1e6)
    assert child.expires_at == parent.expires_at and child.made_by == parent.id
    await manager.revoke(first)  # by its text
    for text in (first, second):
        with pytest.raises(Unauthenticated, match="revoked"):
            manager.verify(text)


async def test_a_key_of_a_user_who_became_less_is_less(manager: SecurityManager) -> None:
    await add_users(manager, "oscar")
    text, _ = await manager.create_api_key("oscar", Role.OPERATOR)
    assert manager.verify(text).may(Permission.SWARM_TASK)
    await manager.set_role("oscar", Role.OBSERVER, by=LOCAL)
    assert manager.verify(text).permissions == PERMISSIONS[Role.OBSERVER]
    await manager.disable_user("oscar", by=LOCAL)
    with pytest.raises(Unauthenticated):
        manager.verify(text)
    with pytest.raises(NotThere):
        await manager.create_api_key("oscar", Role.OBSERVER)


async def test_keys_are_seen_and_revoked_by_their_owner_and_by_an_administrator(manager: SecurityManager) -> None:
    await add_users(manager)
    text, key = await manager.create_api_key("oscar", Role.OPERATOR, by=of("oscar"))
    _, adas = await manager.create_api_key("ada", Role.ADMIN, by=of("ada"))
    assert manager.list_keys(of("oscar")) == (key,)
    assert set(manager.list_keys(of("ada"))) == {key, adas}
    assert manager.list_keys(of("ada"), user_id="oscar") == (key,)
    assert manager.list_keys(of("olga")) == ()
    with pytest.raises(Forbidden):
        manager.list_keys(of("oscar"), user_id="ada")
    said = set()
    for unknown in (adas.id, "a" * 16):
        with pytest.raises(NotThere) as refused:
            await manager.revoke_key(unknown, by=of("oscar"))
        said.add(str(refused.value))
    assert len(said) == 1
    with pytest.raises(Forbidden):
        await manager.revoke_key(key.id, by=of("olga"))
    manager.verify(text)
    await manager.revoke_key(key.id, by=of("ada"))
    with pytest.raises(Unauthenticated, match="revoked"):
        manager.verify(text)


async def test_nobody_makes_or_changes_a_user_of_more_than_they_are(manager: SecurityManager) -> None:
    await add_users(manager)
    for by in ("oscar", "olga", "paul", "node-1"):
        with pytest.raises(Forbidden):
            await manager.create_user("eve", PASSWORD, Role.OBSERVER, by=of(by))
    narrowed = of("ada", frozenset({Permission.USERS_MANAGE}) | PERMISSIONS[Role.OPERATOR])
    await manager.create_user("eve", PASSWORD, Role.OPERATOR, by=narrowed)
    with pytest.raises(Forbidden):
        await manager.create_user("mallory", PASSWORD, Role.ADMIN, by=narrowed)
    with pytest.raises(Forbidden):
        await manager.set_role("eve", Role.ADMIN, by=narrowed)
    for change in (manager.reset_password("ada", by=narrowed), manager.disable_user("ada", by=narrowed)):
        with pytest.raises((Forbidden, InputError)):
            await change
    with pytest.raises(InputError, match="themselves"):
        await manager.disable_user("ada", by=of("ada"))
    for name in ("eve", "Eve", "", "a b", "../x", "x" * 65, "é"):
        with pytest.raises(InputError):
            await manager.create_user(name, PASSWORD, Role.OBSERVER, by=of("ada"))


async def test_a_tenants_administrator_reaches_their_own_tenant_only(manager: SecurityManager) -> None:
    await add_users(manager)
    boss = of("ada", tenant="acme")
    await manager.create_user("anna", PASSWORD, Role.OPERATOR, by=boss, tenant="acme")
    with pytest.raises(Forbidden):
        await manager.create_user("eve", PASSWORD, Role.OBSERVER, by=boss)
    _, key = await manager.create_api_key("oscar", Role.OPERATOR)
    _, annas = await manager.create_api_key("anna", Role.OPERATOR, by=boss)
    assert manager.list_keys(boss) == (annas,) and manager.list_keys(boss, user_id="oscar") == ()
    for change in (
        manager.create_api_key("oscar", Role.OPERATOR, by=boss),
        manager.revoke_key(key.id, by=boss),
        manager.reset_password("oscar", by=boss),
        manager.set_role("oscar", Role.OBSERVER, by=boss),
        manager.disable_user("oscar", by=boss),
    ):
        with pytest.raises(NotThere):
            await change
    pair = await manager.authenticate("anna", PASSWORD)
    assert manager.verify(pair.access_token).tenant == "acme"


async def test_signing_keys_are_rotated_by_an_administrator(manager: SecurityManager) -> None:
    await add_users(manager, "oscar")
    pair = await manager.authenticate("oscar", PASSWORD)
    with pytest.raises(Forbidden):
        await manager.rotate_signing_key(by=of("oscar"))
    old = manager.jwks()["keys"][0]["kid"]
    await manager.rotate_signing_key(by=LOCAL)
    assert manager.verify(pair.access_token)
    await manager.rotate_signing_key(by=LOCAL, drop=old)
    with pytest.raises(Unauthenticated, match="key is not known"):
        manager.verify(pair.access_token)


class Elsewhere:
    """Revocations of the whole cluster."""

    def __init__(self) -> None:
        self.ids: dict[str, float] = {}
        self.out_of_reach = False

    def is_revoked(self, id: str) -> bool:
        if self.out_of_reach:
            raise SecurityError("revocations cannot be read")
        return id in self.ids

    def revoke(self, id: str, until: float) -> None:
        self.ids[id] = until


async def test_revocations_may_be_kept_elsewhere(tmp_path: Path) -> None:
    elsewhere = Elsewhere()
    with opened(tmp_path, revocations=elsewhere) as manager:
        await add_users(manager, "oscar")
        pair = await manager.authenticate("oscar", PASSWORD)
        other = await manager.authenticate("oscar", PASSWORD)
        text, key = await manager.create_api_key("oscar", Role.OPERATOR)
        await manager.revoke(pair.access_token)
        assert len(elsewhere.ids) == 2 and min(elsewhere.ids.values()) >= START_S + 900
        elsewhere.revoke(key.id, 0.0)
        for token in (pair.access_token, text):
            with pytest.raises(Unauthenticated, match="revoked"):
                manager.verify(token)
        manager.verify(other.access_token)
        elsewhere.out_of_reach = True
        with pytest.raises(SecurityError):
            manager.verify(other.access_token)  # what cannot be known is no leave


async def test_an_outdated_hash_is_made_anew_at_the_next_login(manager: SecurityManager) -> None:
    import argon2

    weak = argon2.PasswordHasher(time_cost=1, memory_cost=64, parallelism=1).hash(PASSWORD)
    await manager.users.create("oscar", Role.OPERATOR, weak)
    await manager.authenticate("oscar", PASSWORD)
    found = manager.users.find("oscar")
    assert found is not None and "m=19456,t=2,p=1" in found.password_hash
    assert found.password_hash not in repr(found)
    await manager.authenticate("oscar", PASSWORD)


async def test_capabilities_are_issued_out_of_what_one_may_do(tmp_path: Path, manager: SecurityManager) -> None:
    asked = []

    class Issuer:
        def issue_for(self, by: str, subject: str, operations: Any, resource: str, **more: Any) -> str:
            asked.append((by, subject, operations, resource, more))
            return "a capability"

    with pytest.raises(InputError, match="CapabilityHome"):
        manager.issue_capability(of("oscar"), "swarm:task", "missions/1", ttl_s=60)
    with opened(tmp_path / "other", capabilities=Issuer()) as issuing:
        issuing.issue_capability(of("oscar"), ["swarm:task", "tool:fetch"], "missions/1", ttl_s=60, subject="agent-7")
        more = {"ttl_s": 60, "caveats": (), "tenant": ""}
        assert asked == [("oscar", "agent-7", ("swarm:task", "tool:fetch"), "missions/1", more)]
        for name, operation in (("oscar", "users:manage"), ("olga", "swarm:read"), ("paul", "swarm:task")):
            with pytest.raises(Forbidden):
                issuing.issue_capability(of(name), operation, "missions/1", ttl_s=60)
    assert len(asked) == 1


def test_it_leaves_no_process_and_a_missing_library_says_what_to_install(
    manager: SecurityManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    from chimera.core.errors import MissingExtra

    with pytest.raises(TypeError):
        pickle.dumps(manager)
    monkeypatch.setitem(sys.modules, "argon2", None)
    with pytest.raises(MissingExtra, match=r"chimera\[security\]"):
        Passwords()
