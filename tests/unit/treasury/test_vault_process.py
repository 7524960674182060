"""The vault as a process: nobody looks into it, there is one, it ends cleanly, and a kill loses and doubles nothing."""

from __future__ import annotations

import asyncio
import ctypes
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from chimera.core.errors import InputError, LedgerUnavailable, SecurityError
from chimera.treasury.audit import examine
from chimera.treasury.keys import Keyring
from chimera.treasury.ledger import LedgerRole
from chimera.treasury.types import NANO, PaymentRequest, Written
from chimera.treasury.vault.client import VaultLedger
from chimera.treasury.vault.home import VaultHome, init
from chimera.treasury.vault.process import VaultProcess, start_vault
from tests.ledger_house import transfer
from tests.ledgers_vault import SETTINGS, proposal

PTRACE_ATTACH, PTRACE_DETACH = 16, 17
PR_SET_DUMPABLE = 4
USER = "nobody"
CLIENTS = 4


@pytest.fixture
async def place() -> AsyncIterator[VaultHome]:
    """A treasury whose vault has not been started, in a place that every user can reach."""
    home = Path(tempfile.mkdtemp(prefix="chv"))
    os.chmod(home, 0o755)
    try:
        made = await init(home)
        made.config.write_text(SETTINGS)
        yield made
    finally:
        shutil.rmtree(home)


@contextmanager
def started(place: VaultHome, user: str = "") -> Iterator[VaultProcess]:
    vault = start_vault(place.home, user=user, end_with_me=True)
    try:
        yield vault
    finally:
        vault.stop()


async def test_one_vault_serves_and_ends_cleanly(place: VaultHome) -> None:
    with started(place) as vault:
        app = VaultLedger(path=vault.path())
        assert {use.cap.limit for use in await app.caps()} == {1_000 * NANO, 5_000 * NANO, 20_000 * NANO}
        assert (await app.account("model")).kind == "metered"
        with pytest.raises(LedgerUnavailable, match=f"another vault .pid {vault.pid}. serves"):
            start_vault(place.home)
        assert vault.answers() and await app.head()
        await app.close()
    assert not vault.running and not any(place.socket(role).exists() for role in LedgerRole)
    with started(place) as vault:
        again = VaultLedger(path=vault.path())
        assert (await again.head()).seq == 9, "what is there already is not made again"
        await again.close()


async def test_a_home_that_is_none_is_told(place: VaultHome, tmp_path: Path) -> None:
    with pytest.raises(LedgerUnavailable, match="init"):
        start_vault(tmp_path / "nowhere")
    place.config.write_text("cups: []\n")
    with pytest.raises(LedgerUnavailable, match="line 1: cups: there is no such setting"):
        start_vault(place.home)
    place.config.write_text("")
    (place.vault / "cfo-1.pem").chmod(0o644)
    with pytest.raises(LedgerUnavailable, match="can be read by others"):
        start_vault(place.home)


async def test_init_makes_what_is_missing_and_changes_nothing(place: VaultHome) -> None:
    before = {path: path.read_bytes() for path in place.folder.rglob("*") if path.is_file()}
    await init(place.home)
    assert {path: path.read_bytes() for path in place.folder.rglob("*") if path.is_file()} == before
    assert place.vault.stat().st_mode & 0o777 == 0o700
    first = place.signing_key()
    second = place.new_key()
    assert place.signing_key().key_id == second.key_id == "cfo-2"
    assert place.cfo_keys() == {"cfo-1": first.public, "cfo-2": second.public}
    assert not (place.vault / "cfo-1.pem").exists()
    with pytest.raises(InputError, match="sockets are"):
        await init(place.home, connect={LedgerRole.CFO: (0,)})
    if os.geteuid() == 0:
        with pytest.raises(InputError, match="no user"):
            await init(place.home, user="nobody-of-that-name")


def test_the_starter_takes_the_vault_with_it(place: VaultHome) -> None:
    script = (
        "import os, pathlib, sys\nfrom chimera.treasury.vault.process import start_vault\n"
        "vault = start_vault(pathlib.Path(sys.argv[1]), end_with_me=True)\nprint(vault.pid, flush=True)\nos._exit(0)"
    )
    done = subprocess.run([sys.executable, "-c", script, str(place.home)], stdout=subprocess.PIPE, check=True)
    for _ in range(500):
        if done.stdout and not place.socket(LedgerRole.APP).exists():
            break
        time.sleep(0.02)
    else:
        pytest.fail("the vault goes on")


def in_child(user: int, what: Callable[[], str]) -> str:
    """What comes of it in a process of that user (0: as we are)."""
    reads, writes = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            if user:
                os.setgroups([])
                os.setgid(user)
                os.setuid(user)
            os.write(writes, what().encode())
        except BaseException as error:
            os.write(writes, repr(error).encode())
        finally:
            os._exit(0)
    os.close(writes)
    with os.fdopen(reads, "rb") as answer:
        found = answer.read().decode()
    os.waitpid(child, 0)
    return found


def of_process(pid: int, name: str) -> str:
    return Path(f"/proc/{pid}/{name}").read_text()


def looks_into(pid: int) -> str:
    """What another process of the same user gets of it."""
    got = []
    for name in ("environ", "mem", "maps", "auxv"):
        try:
            with open(f"/proc/{pid}/{name}", "rb") as file:
                if name != "mem":
                    file.read(10)
                got.append(name)
        except PermissionError:
            pass
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.ptrace(PTRACE_ATTACH, pid, None, None) == 0:
        got.append("ptrace")
        os.waitpid(pid, 0)
        libc.ptrace(PTRACE_DETACH, pid, None, None)
    return " ".join(got)


@contextmanager
def bystander(user: int) -> Iterator[int]:
    """An ordinary process of that user."""
    child = os.fork()
    if child == 0:
        if user:
            os.setgid(user)
            os.setuid(user)
            ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)
        signal.pause()
        os._exit(0)
    time.sleep(0.05)
    try:
        yield child
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


async def test_no_process_of_its_own_user_sees_the_vaults_memory(place: VaultHome) -> None:
    root = os.geteuid() == 0
    if root:
        await init(place.home, user=USER)
    with started(place, user=USER if root else "") as vault:
        uid = place.vault.stat().st_uid
        assert not root or uid != 0
        with bystander(uid if root else 0) as other:
            assert "environ" in in_child(uid if root else 0, lambda: looks_into(other)), "others it sees"
        assert in_child(uid if root else 0, lambda: looks_into(vault.pid)) == ""


async def test_the_vault_runs_as_a_user_of_its_own(place: VaultHome) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root starts a vault as somebody else")
    place.config.unlink()
    shutil.rmtree(place.folder)
    me, other = (4242,), 4243
    await init(place.home, user=USER, connect={LedgerRole.APP: me})
    with started(place, user=USER) as vault:
        status = of_process(vault.pid, "status")
        uid = place.vault.stat().st_uid
        assert re.search(r"Max core file size +0 +0", of_process(vault.pid, "limits"))
        assert f"Uid:\t{uid}\t{uid}\t{uid}\t{uid}" in status and "NoNewPrivs:\t1" in status
        assert place.ledger.stat().st_uid == uid and place.ledger.stat().st_mode & 0o077 == 0

        def ask(role: LedgerRole) -> str:
            async def head() -> str:
                ledger = VaultLedger(path=place.socket(role), role=role)
                return str((await ledger.head()).seq)

            return asyncio.run(head())

        assert in_child(me[0], lambda: ask(LedgerRole.APP)).isdigit()
        for user, role in ((other, LedgerRole.APP), (me[0], LedgerRole.APPROVER), (me[0], LedgerRole.OWNER)):
            assert not in_child(user, lambda role=role: ask(role)).isdigit(), (user, role)  # type: ignore[misc]
        assert "PermissionError" in in_child(me[0], lambda: str(os.listdir(place.vault)))
        assert "PermissionError" in in_child(me[0], lambda: str(place.config.write_text("")))


def test_only_root_becomes_another() -> None:
    from chimera.treasury.vault.hardening import become

    with pytest.raises(InputError, match="no user"):
        become("nobody-of-that-name")
    if os.geteuid() == 0:
        assert "SecurityError" in in_child(4242, lambda: str(become(USER)))
    else:
        with pytest.raises(SecurityError):
            become("root")


class Client:
    """Asks, has it decided and pays, one after the other, whatever happens to the vault."""

    def __init__(self, place: VaultHome, name: str) -> None:
        self.ledger = VaultLedger(path=place.socket(LedgerRole.APP))
        self.name = name
        self.paid: list[PaymentRequest] = []

    async def run(self) -> None:
        number = 0
        while True:
            number += 1
            fields = {"debit": "cash", "credit": "model", "amount": number, "category": "any", "requester": self.name}
            request = PaymentRequest(id=f"{self.name}-{number}", expires_at=2**53, **fields)
            for row in (request, None, transfer(request)):
                asked = self.ledger.decide([proposal(request)]) if row is None else self.ledger.write([row])
                [outcome] = await asked
                assert isinstance(outcome, Written), outcome
            self.paid.append(request)


async def kept(app: VaultLedger, paid: list[PaymentRequest]) -> None:
    """The audit finds nothing, and whatever was acknowledged is there, once."""
    rows, page = [], await app.rows()
    while page:
        rows += page
        page = await app.rows(after=rows[-1][0])
    told = await app.public_keys()
    accounts = [str(columns["id"]) for _, table, columns, _ in rows if table == "account"]
    report = examine(
        rows,
        [await app.balance(account) for account in accounts],
        await app.caps(),
        at=time.time_ns() // 1_000,
        head=await app.head(),
        verify=Keyring(cfo={name: bytes.fromhex(key) for name, key in told.cfo.items()}).verify,
    )
    assert report.ok and report.rows == len(rows), report.findings
    moved = [columns["request_id"] for _, table, columns, _ in rows if table == "transfer"]
    assert len(moved) == len(set(moved)) and {each.id for each in paid} <= set(moved)
    begun = len(set(moved) - {each.id for each in paid} - {"fill"})
    assert begun <= CLIENTS, "what was not acknowledged is what was under way"


@pytest.mark.parametrize("seed", [0, 1, *(pytest.param(seed, marks=pytest.mark.soak) for seed in range(2, 50))])
async def test_a_vault_that_is_killed_while_four_write_loses_and_doubles_nothing(place: VaultHome, seed: int) -> None:
    chance = random.Random(seed)
    place.config.write_text(SETTINGS + "breaker: {spend: {USD: 100000}}\n")
    vault = start_vault(place.home, end_with_me=True)
    app = VaultLedger(path=vault.path())
    fill = PaymentRequest(
        id="fill", debit="bank", credit="cash", amount=NANO, category="any", requester="x", expires_at=2**53
    )
    await app.write([fill])
    await app.decide([proposal(fill)])
    await app.write([transfer(fill)])
    clients = [Client(place, f"w{i}") for i in range(CLIENTS)]
    running = [asyncio.create_task(client.run()) for client in clients]
    try:
        for _ in range(2):
            wanted = sum(len(client.paid) for client in clients) + chance.randint(1, 20)
            while sum(len(client.paid) for client in clients) < wanted:
                assert not any(task.done() for task in running), [task for task in running if task.done()]
                await asyncio.sleep(0.002)
            await asyncio.sleep(chance.uniform(0, 0.01))
            vault.kill()
            vault = await asyncio.to_thread(start_vault, place.home, end_with_me=True)
    finally:
        for task in running:
            task.cancel()
        found = await asyncio.gather(*running, return_exceptions=True)
    assert all(isinstance(each, asyncio.CancelledError) for each in found), found
    await kept(app, [request for client in clients for request in client.paid])
    for client in (*(each.ledger for each in clients), app):
        await client.close()
    vault.stop()
