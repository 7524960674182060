"""The ledger behind the vault: a bench for the contract (see `tests/ledgers.py`), and a whole vault in this process.

The bench has a socket for every role, the CFO's too, which no vault that is used has.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any

from chimera.treasury.keys import FileKey, Keyring, approve
from chimera.treasury.ledger import LedgerRole
from chimera.treasury.signer import Proposal, Verdict
from chimera.treasury.types import NANO, CfoDecision, Outcome, PaymentRequest, RefusalReason
from chimera.treasury.vault.client import VaultLedger
from chimera.treasury.vault.decide import Decider
from chimera.treasury.vault.home import VaultHome, init
from chimera.treasury.vault.run import vault
from chimera.treasury.vault.server import Door, VaultServer
from tests.ledger_house import reason, transfer
from tests.ledgers import Verify, verify
from tests.ledgers_sqlite import Moved, SqliteBench, SqliteRaw


class VaultBench:
    """A ledger in the file at `path`, and for each `verify` a vault before it."""

    def __init__(self, path: Path) -> None:
        self.inner = SqliteBench(path)
        self.folder = Path(tempfile.mkdtemp(prefix="chv"))  # short: sockets have at most 107 characters
        self._vaults: dict[Verify, VaultServer] = {}
        self._clients: list[VaultLedger] = []

    @property
    def at(self) -> int:
        return self.inner.at

    async def open(self, role: LedgerRole, verify: Verify = verify) -> VaultLedger:
        if verify not in self._vaults:
            await self._serve(verify)
        path = next(door.path for door in self._vaults[verify].doors if door.role is role)
        client = VaultLedger(path=path, role=role)
        self._clients.append(client)
        return client

    async def _serve(self, verify: Verify) -> None:
        ledgers = {role: await self.inner.open(role, verify) for role in LedgerRole}
        folder = self.folder / str(len(self._vaults))
        folder.mkdir()
        doors = [Door(path=folder / f"{role}.sock", role=role) for role in LedgerRole]
        reading = await self.inner.open(LedgerRole.APP, verify)
        self._vaults[verify] = VaultServer(doors=doors, ledgers=ledgers, reading=reading)
        await self._vaults[verify].start()

    def advance(self, us: int) -> None:
        self.inner.advance(us)

    def raw(self, role: LedgerRole) -> SqliteRaw:
        return self.inner.raw(role)

    async def close(self) -> None:
        for client in self._clients:
            await client.close()
        for server in self._vaults.values():
            await server.close()
        await self.inner.close()
        shutil.rmtree(self.folder)


SETTINGS = """
accounts:
  - {id: cash, kind: fund}
  - {id: bank, kind: outside}
  - {id: acme, kind: outside}
  - {id: globex, kind: outside}
  - {id: model, kind: metered}
policy: {ask_at: 1.0, refuse_at: 1.0}
"""
"""A house in which risk decides nothing: what does, is what a test looks at."""


class Inside:
    """A vault with real keys, and somebody at each of its sockets. Ann's key is known to it, Eve's is not."""

    def __init__(self, place: VaultHome, ann: FileKey, eve: FileKey, clock: Moved) -> None:
        self.place, self.ann, self.eve, self.clock = place, ann, eve, clock
        self.numbers = count(1)
        self.decider: Decider
        self.app = VaultLedger(path=place.socket(LedgerRole.APP))
        self.approver = VaultLedger(path=place.socket(LedgerRole.APPROVER), role=LedgerRole.APPROVER)
        self.owner = VaultLedger(path=place.socket(LedgerRole.OWNER), role=LedgerRole.OWNER)

    async def keyring(self) -> Keyring:
        told = await self.app.public_keys()
        people = {who: {name: bytes.fromhex(key) for name, key in keys.items()} for who, keys in told.people.items()}
        return Keyring(cfo={name: bytes.fromhex(key) for name, key in told.cfo.items()}, people=people)

    async def filed(self, amount: int = NANO, **fields: Any) -> PaymentRequest:
        told = {"id": f"r{next(self.numbers)}", "debit": "cash", "credit": "acme", "requester": "worker-1", **fields}
        told.setdefault("expires_at", self.clock.at + 3_600_000_000)
        request = PaymentRequest(amount=amount, category="any", **told)
        assert reason(*await self.app.write([request])) is None
        return request

    async def decide(self, request: PaymentRequest, verdict: Verdict = "approved", **fields: Any) -> Outcome:
        return (await self.app.decide([proposal(request, verdict, **fields)]))[0]

    async def said(self, request: PaymentRequest) -> list[str]:
        """The CFO's verdicts, and nothing that is not signed by the CFO."""
        ring = await self.keyring()
        words = [word for word in await self.app.decisions(request.id) if isinstance(word, CfoDecision)]
        assert all(map(ring.verify, words))
        return [word.verdict for word in words]

    async def approve(self, request: PaymentRequest, key: FileKey | None, who: str = "ann", **fields: Any) -> Outcome:
        word = approve(
            request, approver=who, key=key, at=self.clock.at, expires_at=self.clock.at + 60_000_000, **fields
        )
        return (await self.approver.write([word]))[0]

    async def pay(self, request: PaymentRequest) -> RefusalReason | None:
        return reason(*await self.app.write([transfer(request)]))

    async def fill(self, amount: int = 10_000 * NANO) -> None:
        request = await self.filed(amount, debit="bank", credit="cash")
        assert reason(await self.decide(request)) is None and await self.pay(request) is None


@asynccontextmanager
async def inside(settings: str = SETTINGS) -> AsyncIterator[Inside]:
    """A vault in this process, on a folder of its own."""
    home = Path(tempfile.mkdtemp(prefix="chv"))
    place = await init(home)
    ann, eve = (FileKey.create(home / "keys" / name, f"{name}-1") for name in ("ann", "eve"))
    people = f"people: {{ann: {{ann-1: {ann.public.hex()}}}}}\n"
    place.config.write_text(people + settings)
    clock = Moved()
    try:
        async with vault(place, clock=clock) as decider:
            found = Inside(place, ann, eve, clock)
            found.decider = decider
            yield found
            for client in (found.app, found.approver, found.owner):
                await client.close()
    finally:
        shutil.rmtree(home)


def proposal(request: PaymentRequest, verdict: Verdict = "approved", **fields: Any) -> Proposal:
    told = {"request_id": request.id, "request_digest": request.digest(), "risk": 0.0, **fields}
    return Proposal(verdict=verdict, **told)
