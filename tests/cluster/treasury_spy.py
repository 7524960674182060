"""What an ordinary process of the cluster gets of the treasury, when it tries everything that its user may.

`python -m tests.cluster.treasury_spy` starts a Ray, says where, and waits on its standard input: for a line that says
where the treasury is, and then for the end. What it got is a line too: by the name of each try, what came of it.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

from chimera import Settings
from chimera.actors import cluster
from chimera.actors.cfo import CFO
from chimera.actors.expenses import CfoPayments
from chimera.actors.ledger import LEDGER, ActorLedger
from chimera.treasury.keys import FileKey, approve, signed
from chimera.treasury.ledger import LedgerRole
from chimera.treasury.signer import Proposal
from chimera.treasury.types import (
    NANO,
    Account,
    AccountKind,
    Cap,
    CfoDecision,
    PaymentRequest,
    Refused,
    Rules,
    Window,
)
from chimera.treasury.vault.client import VaultLedger
from chimera.treasury.vault.home import VaultHome
from tests.ledger_house import transfer

PTRACE_ATTACH, PTRACE_DETACH = 16, 17

Try = Callable[[], Awaitable[Any]]


class Spy:
    """An actor that was taken over. `decoy` is a secret of its own, left wherever a careless one would leave a key."""

    def __init__(self, *, home: Path, vault: int, decoy: str) -> None:
        self._place, self._vault, self._decoy = VaultHome.at(home), vault, decoy
        self._app = VaultLedger(path=self._place.socket(LedgerRole.APP))
        self._through = ActorLedger(cluster.find(LEDGER))
        self._payments = CfoPayments()
        self._key = FileKey.create(Path(os.environ["HOME"]) / "own" / "key.pem", "cfo-1")

    async def spy(self) -> dict[str, str]:
        """What came of each try."""
        self._leave_decoys()
        found = {}
        for name, attempt in self._tries().items():
            try:
                found[name] = f"got {await attempt()!s:.200}"
            except Exception as error:
                found[name] = f"{type(error).__name__}: {error!s:.300}"
        return found

    def _leave_decoys(self) -> None:
        """So that who searches afterwards sees that these places are searched."""
        import ray
        from ray.experimental.internal_kv import _internal_kv_put

        self._object = ray.put((self._decoy * 10_000).encode())
        _internal_kv_put(b"decoy", self._decoy.encode())
        sys.stderr.write(f"{self._decoy}\n")
        sys.stderr.flush()

    def _tries(self) -> dict[str, Try]:
        place = self._place
        tries: dict[str, Try] = {
            "what it may: pay": lambda: self._pay("small", 20),
            "what it may: ask for much": lambda: self._pay("large", 60),
            "list the vault's folder": _blocking(lambda: os.listdir(place.vault)),
            "write the settings": _blocking(lambda: place.config.write_text("caps: []")),
            "trace it": _blocking(lambda: _trace(self._vault)),
            "a key in memory of the CFO": lambda: self._held(CFO),
            "a key in memory of the ledger": lambda: self._held(LEDGER),
            "approve": self._approve,
            "sign as the CFO": self._sign,
            "have it agreed to": lambda: self._decide("large"),
            "have agreed to what nobody asked for": lambda: self._decide("none"),
            "move what is not approved": self._move,
            "raise a cap": lambda: _refused(
                self._app.set_cap(Cap(window=Window.LAST_DAY, limit=10**15)),
                self._through.set_cap(Cap(window=Window.LAST_DAY, limit=10**15)),
            ),
            "change the rules": lambda: _refused(self._app.set_rules(Rules(ask_over=10**15, dual_over=10**15))),
            "let a stopped treasury spend": lambda: _refused(self._app.resume("spy"), self._through.resume("spy")),
            "make a payee who is paid by use": lambda: _refused(
                self._app.write([Account(id="spy", kind=AccountKind.METERED)])
            ),
        }
        for name in ("cfo-1.pem", "cfo-1.pub", "ledger.db", "logins.json", "vault.log"):
            tries[f"read {name}"] = _blocking((place.vault / name).read_bytes)
        for name in ("mem", "environ", "maps", "auxv", "fd"):
            tries[f"look into its {name}"] = _blocking(partial(_look, Path(f"/proc/{self._vault}/{name}")))
        for role in (LedgerRole.APPROVER, LedgerRole.OWNER):
            ledger = VaultLedger(path=place.socket(role), role=role)
            tries[f"connect as {role}"] = ledger.head
        return tries

    def _request(self, name: str, dollars: int, debit: str = "cash", credit: str = "acme") -> PaymentRequest:
        told = {"debit": debit, "credit": credit, "category": "tests", "requester": "spy"}
        ends_us = 4_000_000_000_000_000
        return PaymentRequest(id=f"spy-{name}", amount=dollars * NANO, expires_at=ends_us, **told)

    async def _pay(self, name: str, dollars: int) -> str:
        await self._payments.pay(self._request("fill", 500, "bank", "cash"))
        return (await self._payments.pay(self._request(name, dollars))).state.value

    async def _approve(self) -> Any:
        now = time.time_ns() // 1_000
        for key in (self._key, None):
            word = approve(self._request("large", 60), approver="ann", key=key, at=now, expires_at=now + 10**10)
            found = await _refused(self._app.write([word]), self._through.write([word]))
        return found

    async def _sign(self) -> Any:
        request = self._request("large", 60)
        word = CfoDecision(
            request_id=request.id, request_digest=request.digest(), at=time.time_ns() // 1_000, risk=0.0,
            verdict="approved",
        )  # fmt: skip
        return await _refused(self._app.write([signed(word, self._key)]), self._app.write([word]))

    async def _decide(self, name: str) -> str:
        request = self._request(name, 60)
        proposal = Proposal(request_id=request.id, request_digest=request.digest(), verdict="approved", risk=0.0)
        outcomes = [*await self._app.decide([proposal]), *await self._through.decide([proposal])]
        if reasons := [each.reason.value for each in outcomes if isinstance(each, Refused)]:
            return f"refused: {reasons}"
        words = await self._app.decisions(request.id)
        return f"{[word.verdict for word in words]}"

    async def _move(self) -> Any:
        return await _refused(self._app.write([transfer(self._request("large", 60))]))

    async def _held(self, name: str) -> Any:
        """Objects of that actor's process that could be a private key, and whatever of its state can be pickled."""
        return await cluster.find(name).__ray_call__.remote(_holds)


def _holds(actor: Any) -> list[str]:
    names = {type(each).__name__ for each in gc.get_objects()}
    return sorted(name for name in names if "PrivateKey" in name or name == "FileKey")


def _blocking(work: Callable[[], Any]) -> Try:
    async def attempt() -> Any:
        return work()

    return attempt


def _look(path: Path) -> Any:
    return os.listdir(path) if path.name == "fd" else path.open("rb").read(10)


def _trace(pid: int) -> str:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.ptrace(PTRACE_ATTACH, pid, None, None):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    libc.ptrace(PTRACE_DETACH, pid, None, None)
    return "traced"


async def _refused(*attempts: Awaitable[Any]) -> str:
    """Why each is refused, by an answer or an error. Raises nothing where all are; else what was not."""
    told = []
    for attempt in attempts:
        try:
            outcome = await attempt
        except Exception as error:
            told.append(type(error).__name__)
            continue
        [outcome] = outcome if isinstance(outcome, list) else [outcome]
        if not isinstance(outcome, Refused):
            return f"DONE: {outcome!r}"
        told.append(outcome.reason.value)
    return f"refused: {told}"


def _say(told: dict[str, str]) -> None:
    sys.stdout.write(json.dumps(told) + "\n")
    sys.stdout.flush()


async def main() -> None:
    connection = cluster.connect(Settings(address="local"))
    _say({"address": connection.address, "dashboard": connection.dashboard})
    told = json.loads(await asyncio.to_thread(sys.stdin.readline))
    spy = cluster.spawn(Spy, name="spy", lasting=False, **{**told, "home": Path(told["home"])})
    _say(await spy.spy.remote())
    await asyncio.to_thread(sys.stdin.read)
    cluster.disconnect(connection)


if __name__ == "__main__":
    asyncio.run(main())
