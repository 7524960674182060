"""Identity under attack: changes during a login, clocks that are put back, files of strangers, endless tables."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from chimera.core.clock import ManualClock
from chimera.core.errors import AuditError, InputError, NotThere, SecurityError, StorageError, Unauthenticated
from chimera.security import api_keys, sessions
from chimera.security.audit_entry import signing_key
from chimera.security.capabilities import contents
from chimera.security.capability_home import CapabilityHome
from chimera.security.capability_keys import KeyFolder
from chimera.security.keyring import KeyRing
from chimera.security.manager import LOCAL, SecurityManager
from chimera.security.passwords import Passwords
from chimera.security.revocation import LEEWAY_S, SWEEP_S, MemoryRevocations, Revocations
from chimera.security.revocation_sqlite import SqliteRevocations
from chimera.security.roles import Permission, Role
from chimera.security.shared_file import SharedFile
from chimera.security.shared_limits import SharedTokens
from chimera.security.store import SecurityStore
from tests.unit.security.identity import PASSWORD, START_S, add_users, opened

Change = Callable[[SecurityManager], Awaitable[object]]


class Interrupted(Passwords):
    """Between the look at a password and the answer, something else happens."""

    meanwhile: Callable[[], Awaitable[object]] | None = None

    async def verify(self, password_hash: str | None, password: str) -> bool:
        right = await super().verify(password_hash, password)
        if self.meanwhile is not None:
            await self.meanwhile()
        return right


class Clock:
    """A wall clock that is put forward and back; the other one runs on."""

    def __init__(self) -> None:
        self.wall_s, self.ran_s = START_S, 0.0

    def now(self) -> float:
        return self.wall_s

    def monotonic(self) -> float:
        return self.ran_s


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda m: m.disable_user("oscar", by=LOCAL), id="disabled"),
        pytest.param(lambda m: m.reset_password("oscar", by=LOCAL), id="reset"),
        pytest.param(lambda m: m.set_role("oscar", Role.OBSERVER, by=LOCAL), id="another role"),
    ],
)
async def test_what_changes_during_a_login_counts(tmp_path: Path, change: Change) -> None:
    passwords = Interrupted()
    with opened(tmp_path, passwords=passwords) as manager:
        await add_users(manager, "oscar")
        passwords.meanwhile = lambda: change(manager)
        with pytest.raises(Unauthenticated, match="wait, then try again"):
            await manager.authenticate("oscar", PASSWORD)
        begun = manager.store.rows("SELECT revoked FROM families WHERE user = 'oscar'")
        assert begun and all(revoked for (revoked,) in begun)


async def test_a_clock_that_was_ahead_locks_nobody_for_years(tmp_path: Path) -> None:
    clock = Clock()
    with opened(tmp_path, clock) as manager:  # type: ignore[arg-type]
        await add_users(manager, "oscar")
        clock.wall_s += 3 * 365 * 86_400.0
        for _ in range(8):
            with pytest.raises(Unauthenticated):
                await manager.authenticate("oscar", "wrong")
            clock.wall_s += 0.001
        clock.wall_s = START_S
        assert not await manager.users.begin_attempt("oscar"), "locked still, but for its pause only"
        clock.wall_s += 900.0
        await manager.authenticate("oscar", PASSWORD)


async def test_a_key_to_drop_that_there_is_not_is_said(tmp_path: Path) -> None:
    with opened(tmp_path) as manager:
        leaked = manager.tokens.ring.current().kid
        with pytest.raises(InputError, match=leaked):
            await manager.rotate_signing_key(by=LOCAL, drop=leaked[:-1] + "x")
        await manager.rotate_signing_key(by=LOCAL, drop=leaked)
        assert manager.tokens.ring.find(leaked) is None


async def test_a_key_makes_none_that_is_quicker(tmp_path: Path) -> None:
    with opened(tmp_path) as manager:
        await add_users(manager, "oscar")
        text, _ = await manager.create_api_key("oscar", Role.OPERATOR, 7)
        _, made = await manager.create_api_key("oscar", Role.OPERATOR, 100_000, by=manager.verify(text))
        _, slower = await manager.create_api_key("oscar", Role.OPERATOR, 3, by=manager.verify(text))
    assert (made.rate_limit, slower.rate_limit) == (7, 3)


@pytest.mark.parametrize("fields", [{"name": "local"}, {"name": "unknown"}, {"name": "audit"}, {"tenant": "r" * 129}])
async def test_nobody_is_called_as_the_log_calls_others_and_a_tenant_has_a_name(
    tmp_path: Path, fields: dict[str, str]
) -> None:
    with opened(tmp_path) as manager:
        with pytest.raises(InputError):
            await manager.users.create(**{"name": "eve", "role": Role.OBSERVER, "password_hash": "-", **fields})  # type: ignore[arg-type]
        assert manager.users.list() == ()


async def test_keys_that_are_over_are_forgotten_in_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_keys, "MAX_ENDED", 3)
    clock = ManualClock(START_S)
    with opened(tmp_path, clock) as manager:
        await add_users(manager, "oscar")
        lasting, _ = await manager.create_api_key("oscar", Role.OBSERVER)
        ended = []
        for _ in range(8):
            text, key = await manager.create_api_key("oscar", Role.OBSERVER)
            await manager.revoke_key(key.id, by=LOCAL)
            ended.append(text)
            clock.advance(1.0)
        assert len(manager.keys.list(user="oscar")) <= 1 + 3 + 1
        assert manager.verify(lasting).subject == "oscar"
        for text in ended:
            with pytest.raises(Unauthenticated):
                manager.verify(text)


async def test_a_session_has_so_many_refreshes_and_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "MAX_TURNS", 3)
    with opened(tmp_path) as manager:
        await add_users(manager, "oscar")
        pair = await manager.authenticate("oscar", PASSWORD)
        for _ in range(2):
            pair = await manager.refresh(pair.refresh_token)
        with pytest.raises(Unauthenticated, match="over"):
            await manager.refresh(pair.refresh_token)
        assert manager.store.rows("SELECT count(*) FROM refreshes") == [(3,)]


@pytest.mark.parametrize("where", ["memory", "this process", "another process"])
async def test_what_was_revoked_stays_so_when_a_clock_is_put_back(tmp_path: Path, where: str) -> None:
    clock = Clock()

    def opened_again() -> Revocations:
        return SqliteRevocations(tmp_path / "revoked.db", clock=clock)

    revocations = MemoryRevocations(clock=clock) if where == "memory" else opened_again()
    revocations.revoke("a", clock.now() + 60.0)
    clock.wall_s += 61.0
    clock.ran_s += SWEEP_S + 1.0
    asked = opened_again() if where == "another process" else revocations
    assert not asked.is_revoked("a"), "over, and swept"
    clock.wall_s -= 2.0
    assert asked.is_revoked("a")
    clock.wall_s += LEEWAY_S + 3.0
    clock.ran_s += SWEEP_S + 1.0
    asked.is_revoked("b")
    assert len(asked._known) == 0
    await asked.close()
    if asked is not revocations:
        await revocations.close()


def give_away(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the file somebody else's, as far as this process can tell."""
    if os.geteuid() == 0:
        os.chown(path, 54_321, -1)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: 54_321)


def open_ring(folder: Path) -> None:
    KeyRing(folder, clock=ManualClock(START_S), keep_s=1.0).current()


def open_store(folder: Path) -> None:
    SecurityStore(folder / "x", clock=ManualClock(START_S)).close()


@pytest.mark.parametrize(
    ("open_it", "file", "error"),
    [
        pytest.param(open_ring, "signing-keys.json", SecurityError, id="signing keys"),
        pytest.param(open_store, "x", StorageError, id="users and keys"),
        pytest.param(lambda f: SharedFile(f / "x", 7, ["CREATE TABLE a (b)"]).close(), "x", StorageError, id="shared"),
        pytest.param(
            lambda f: KeyFolder(f, clock=ManualClock(START_S)), "capability-1.key", SecurityError, id="capabilities"
        ),
        pytest.param(lambda f: signing_key(f / "k"), "k", AuditError, id="audit"),
        pytest.param(
            lambda f: SharedTokens(f / "x", clock=ManualClock(START_S), rows=8).close(), "x", StorageError, id="limits"
        ),
    ],
)
def test_a_file_of_another_user_is_not_believed(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    open_it: Callable[[Path], object],
    file: str,
    error: type[Exception],
) -> None:
    tmp_path.chmod(0o700)
    open_it(tmp_path)
    open_it(tmp_path)
    give_away(tmp_path / file, monkeypatch)
    with pytest.raises(error, match=r"another user|alone"):
        open_it(tmp_path)


def test_the_audit_key_that_others_can_read_signs_nothing(tmp_path: Path) -> None:
    signing_key(tmp_path / "k")
    (tmp_path / "k").chmod(0o640)
    with pytest.raises(AuditError, match="alone"):
        signing_key(tmp_path / "k")


def test_what_a_killed_process_left_is_not_in_the_way_of_the_next_one_of_its_number(tmp_path: Path) -> None:
    (tmp_path / f".k.{os.getpid()}").write_bytes(b"half a k")
    assert signing_key(tmp_path / "k").private_bytes_raw() == signing_key(tmp_path / "k").private_bytes_raw()


def test_keys_that_others_can_read_are_refused_until_they_cannot(tmp_path: Path) -> None:
    clock = ManualClock(START_S)
    keys = KeyFolder(tmp_path / "keys", clock=clock)
    keys.path.chmod(0o755)
    clock.advance(1.0)
    for _ in range(3):
        with pytest.raises(SecurityError, match="others"):
            keys.signing_key()
    keys.path.chmod(0o700)
    assert keys.signing_key()[0] == 1


async def test_a_key_for_revoking_revokes_and_one_for_issuing_does_not(tmp_path: Path) -> None:
    with CapabilityHome(tmp_path / "capabilities", clock=ManualClock(START_S)) as home:
        with opened(tmp_path / "security", capabilities=home) as manager:
            await add_users(manager, "oscar", "ada")

            async def key(*scopes: Permission, of: str = "oscar", role: Role = Role.OPERATOR) -> str:
                return (await manager.create_api_key(of, role, scopes=scopes))[0]

            issuer = manager.verify(await key(Permission.CAPABILITY_ISSUE))
            made = [manager.issue_capability(issuer, "pays:transfer", "a/1", ttl_s=60) for _ in range(3)]
            ids = [contents(token).revocation_ids[0] for token in made]
            await manager.revoke_capability(ids[0], by=manager.verify(await key(Permission.CAPABILITY_REVOKE)))
            others = await key(Permission.CAPABILITY_REVOKE, of="ada", role=Role.ADMIN)
            with pytest.raises(NotThere):
                await manager.revoke_capability(ids[1], by=manager.verify(others))
            anybodys = await key(Permission.CAPABILITY_REVOKE, Permission.CAPABILITY_ANY, of="ada", role=Role.ADMIN)
            await manager.revoke_capability(ids[1], by=manager.verify(anybodys))
            with pytest.raises(SecurityError):
                await manager.revoke_capability(ids[2], by=issuer)
        assert [home._refused.is_revoked(id) for id in ids] == [True, True, False]
