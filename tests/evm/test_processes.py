"""Each key in a process of its own, with the ledger behind a socket of the vault: the whole way of a payment."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import yaml

from chimera.core.errors import SecurityError
from chimera.treasury.evm import payments
from chimera.treasury.evm.keys import EvmKey
from chimera.treasury.evm.remote import RemoteKey
from chimera.treasury.evm.rules import KeyRole
from chimera.treasury.evm.types import Declined, SafeSignature
from chimera.treasury.ledger import LedgerRole
from chimera.treasury.types import TransferKind
from chimera.treasury.vault.server import Door, VaultServer
from tests.evm.house import ETH, PAYEE, WEI, EvmHouse

START_S = 60.0


class KeyProcess:
    """`python -m chimera.treasury.evm.keyholder` for one role, and who asks it."""

    def __init__(self, house: EvmHouse, folder: Path, role: KeyRole, ledger: Path) -> None:
        self.role = role
        self.folder = folder
        self.folder.mkdir(mode=0o700)
        key = folder / f"{role}.key"
        key.touch(mode=0o600)
        key.write_text(house.keys[role]._key.secret.hex())
        told = {
            "network": house.network.model_dump(mode="json"),
            "node": house.anvil.url,
            "ledger": str(ledger),
            "cfo": {"cfo-1": house.cfo_key.public.hex()},
            "people": {"ann": {"ann-1": house.ann_key.public.hex()}},
        }
        settings = folder / "evm.yaml"
        settings.touch(mode=0o600)
        settings.write_text(yaml.safe_dump(told))
        self.remote = RemoteKey(folder / f"{role}.sock")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "chimera.treasury.evm.keyholder", "--home", str(self.folder)]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*command, "--role", self.role, "--end-with", str(os.getpid())], stdout=log, stderr=log
            )

    async def answers(self) -> None:
        """Wait until it does."""
        deadline = time.monotonic() + START_S
        while True:
            try:
                await self.remote.address()
                return
            except SecurityError:
                assert self._process is not None
                assert self._process.poll() is None and time.monotonic() < deadline, (self.folder / "log").read_text()
                await asyncio.sleep(0.02)

    def is_hidden(self) -> bool:
        """Others cannot read its memory (root can), nor can it become somebody else."""
        told = Path(f"/proc/{self.pid}")
        with contextlib.suppress(PermissionError):
            if (told / "environ").read_bytes() and os.geteuid() != 0:
                return False
        return "NoNewPrivs:\t1" in (told / "status").read_text()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        (self.folder / f"{self.role}.sock").unlink()

    async def stop(self) -> None:
        await self.remote.close()
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            assert self._process.wait(START_S) == 0


@pytest.fixture
async def keys(house: EvmHouse, short_tmp: Path) -> AsyncIterator[dict[KeyRole, KeyProcess]]:
    """The house's keys, in processes: its payer asks these."""
    door = Door(path=short_tmp / f"app-{house.anvil.port}.sock", role=LedgerRole.APP)
    server = VaultServer(doors=[door], ledgers={LedgerRole.APP: house.app}, reading=house.app)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(server.close)
        await server.start()
        made = {}
        for role in KeyRole:
            made[role] = KeyProcess(house, short_tmp / f"{role}-{house.anvil.port}", role, door.path)
            stack.push_async_callback(made[role].stop)
            made[role].start()
        for each in made.values():
            await each.answers()
        house.outbox.close()
        owners = [made[KeyRole.APPROVER].remote, made[KeyRole.CFO].remote]
        house.start(owners=owners, relayer=made[KeyRole.RELAYER].remote)
        yield made


async def test_both_keys_sign_a_payment_in_processes_that_nobody_can_look_into(
    house: EvmHouse, keys: dict[KeyRole, KeyProcess]
) -> None:
    for role, each in keys.items():
        assert await each.remote.address() == house.keys[role].address
        assert each.is_hidden()

    request = await house.reserved(ETH)
    sent = await house.payer.pay(request.id)
    assert sent.signed and len(sent.sent) == 1
    await house.mined(3)
    assert await house.end(request) is TransferKind.POST
    assert house.anvil.balance(PAYEE) == WEI

    unapproved = await house.reserved(ETH // 200, approved=False)
    tx = payments.safe_tx(house.network, unapproved, 1)
    told = await keys[KeyRole.APPROVER].remote.sign(unapproved.id, tx)
    assert isinstance(told, Declined) and "no person" in told.why

    # A key that was killed remembers what it has signed, and its process can be started anew.
    second = await house.reserved(ETH)
    tx = payments.safe_tx(house.network, second, 1)
    cfo = keys[KeyRole.CFO]
    first = await cfo.remote.sign(second.id, tx)
    cfo.kill()
    with pytest.raises(SecurityError, match="start it"):
        await cfo.remote.sign(second.id, tx)
    cfo.start()
    await cfo.answers()
    assert isinstance(first, SafeSignature) and await cfo.remote.sign(second.id, tx) == first
    told = await cfo.remote.sign(second.id, tx.model_copy(update={"nonce": 2}))
    assert isinstance(told, Declined) and "another transaction" in told.why
    remembered = await cfo.remote.signed(second.id)
    assert remembered is not None and remembered.tx == tx

    await house.let_go(unapproved)
    await house.payer.pay(second.id)
    await house.mined(3)
    assert await house.end(second) is TransferKind.POST


def test_a_new_key_is_made_in_a_process_that_shows_its_address(tmp_path: Path) -> None:
    home = tmp_path / "relayer"
    home.mkdir(mode=0o700)
    command = [sys.executable, "-m", "chimera.treasury.evm.keyholder", "--home", str(home), "--role", "relayer"]
    made = subprocess.run([*command, "--new"], capture_output=True, text=True, check=True)
    assert made.stdout.strip() == EvmKey.open(home / "relayer.key").address
