"""Wiring of the treasury: a vault's sockets in, payments out, for the command line, the API and a program.

    async with Treasury(Settings()) as treasury:
        payment = await treasury.pay(debit="cash", credit="acme", amount="12.50", category="hosting", requester="ops")

The CFO actor decides, where one runs in this cluster (`running`). Without one a desk in this process does its work when
something is to be paid: both go by the ledger, so that nothing is lost or done twice between them.
"""

from __future__ import annotations

import asyncio
import secrets
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from decimal import Decimal
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from chimera.core.clock import Clock, SystemClock
from chimera.core.config import Settings
from chimera.core.errors import InputError, LedgerError, NotThere
from chimera.core.types import Frozen
from chimera.system.kept_vault import KeptVault
from chimera.treasury.anchors import HeadAnchor
from chimera.treasury.auditing import LedgerAudit, audit_ledger
from chimera.treasury.desk import Desk
from chimera.treasury.keys import Keyring, SigningKey, public_key, signed
from chimera.treasury.ledger import LedgerRole, Stop
from chimera.treasury.payment import Payment
from chimera.treasury.rows import AnyRow, parse
from chimera.treasury.statement import read_statement
from chimera.treasury.statement_lines import MissionOutcome, Statement
from chimera.treasury.types import (
    Account,
    AccountKind,
    Approval,
    Balance,
    Cap,
    CapUse,
    PaymentRequest,
    Refused,
    Rules,
    nano,
)
from chimera.treasury.vault.client import VaultLedger
from chimera.treasury.vault.config import read_config
from chimera.treasury.vault.home import VaultHome
from chimera.treasury.vault.process import start_vault

if TYPE_CHECKING:
    from chimera.treasury.evm.rail import RailSettings

APPROVAL_S = 86_400.0
"""How long an approval holds."""
REQUEST_S = 7 * 86_400.0
"""How long a request stands unless it says otherwise."""
MAX_RECENT = 1_000
MAX_ACCOUNTS = 500
"""Balances that are read at once."""
WORK = frozenset({"pay", "settled", "nudge"})
"""What asks the desk to act; the rest only looks."""


class AccountView(Frozen):
    """An account and its balance, in billionths of its currency."""

    account: Account
    balance: Balance


class Entry(Frozen):
    """A row of the ledger, `at` in microseconds since the epoch."""

    seq: int
    at: int
    table: str
    row: AnyRow


class Treasury:
    """The treasury of a node, over the sockets below `settings.home`. Of one event loop; close it, or use `async with`.

    Every method raises LedgerUnavailable where no vault answers, Forbidden where this user may not, and LedgerError.
    """

    def __init__(self, settings: Settings, *, clock: Clock | None = None) -> None:
        self.place = VaultHome.at(settings.home)
        self._clock = clock or SystemClock()
        self._ledgers: dict[LedgerRole, VaultLedger] = {}
        self._desk: Desk | None = None
        self._work: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Treasury:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """End the desk in this process, if there is one, and the connections."""
        if self._work is not None:
            self._work.cancel()
            await asyncio.gather(self._work, return_exceptions=True)
        for ledger in self._ledgers.values():
            await ledger.close()

    def ledger(self, role: LedgerRole = LedgerRole.APP) -> VaultLedger:
        """The ledger through the socket of that role."""
        if role not in self._ledgers:
            self._ledgers[role] = VaultLedger(path=self.place.socket(role), role=role)
        return self._ledgers[role]

    # Payments.

    async def pay(
        self,
        *,
        debit: str,
        credit: str,
        amount: str | int | Decimal,
        category: str,
        requester: str,
        currency: str = "USD",
        mission: str = "",
        reason: str = "",
        request_id: str = "",
        expires_in_s: float = REQUEST_S,
    ) -> Payment:
        """Ask for a payment of `amount` whole units ("12.50"), and wait for the CFO's word: what has become of it.

        With the same `request_id` it is the same payment, however often it is asked for. Raises InputError.
        """
        at = self._now()
        known = await self.ledger().request(request_id) if request_id else None
        try:
            request = PaymentRequest(
                id=request_id or f"pay-{secrets.token_hex(8)}",
                debit=debit,
                credit=credit,
                amount=nano(amount),
                currency=currency,
                category=category,
                requester=requester,
                mission=mission,
                reason=reason,
                expires_at=known.expires_at if known else at + int(expires_in_s * 1_000_000),
            )
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            raise InputError(f"{first['loc'][0] if first['loc'] else 'request'}: {first['msg']}") from None
        found: Payment = await self._at_desk("pay", request)
        return found

    async def payment(self, request_id: str) -> Payment:
        """What has become of a request. Raises NotThere."""
        if await self.ledger().request(request_id) is None:
            raise NotThere(f"there is no request {request_id}")
        found: Payment = await self._at_desk("payment", request_id)
        return found

    async def settled(self, request_id: str, timeout_s: float) -> Payment:
        """As `payment`, waiting up to so long for its end."""
        found: Payment = await self._at_desk("settled", request_id, timeout_s)
        return found

    async def in_hand(self) -> list[Payment]:
        """Every payment that has not come to an end."""
        return list(await self._at_desk("in_hand"))

    async def answer(
        self,
        request_id: str,
        approver: str,
        *,
        approve: bool,
        key: SigningKey | None = None,
        holds_s: float = APPROVAL_S,
    ) -> Payment:
        """A person's word on a request, signed with their `key` if they have one: what has become of the payment.

        Raises NotThere, and InputError where the ledger does not take it: why.
        """
        request = await self.ledger().request(request_id)
        if request is None:
            raise NotThere(f"there is no request {request_id}")
        at = self._now()
        word = Approval(
            request_id=request.id,
            request_digest=request.digest(),
            at=at,
            approver=approver,
            verdict="approved" if approve else "refused",
            expires_at=at + int(holds_s * 1_000_000),
        )
        if key is not None:
            word = signed(word, key)
        [outcome] = await self.ledger(LedgerRole.APPROVER).write([word])
        if isinstance(outcome, Refused):
            raise InputError(f"{request_id}: {outcome.detail}")
        await self._at_desk("nudge")
        return await self.settled(request_id, 2.0)

    # What there is.

    async def accounts(self, after: str = "", limit: int = MAX_ACCOUNTS) -> list[AccountView]:
        """Accounts with their balances, funds first, from the first after `after` on; at most `limit`."""
        if not 1 <= limit <= MAX_ACCOUNTS:
            raise InputError(f"limit is from 1 to {MAX_ACCOUNTS}, not {limit}")
        found = await self._at_desk("accounts", after, limit)
        balances = await asyncio.gather(*(self.ledger().balance(each.id) for each in found))
        return [AccountView(account=each, balance=its) for each, its in zip(found, balances, strict=True)]

    async def caps(self) -> list[CapUse]:
        return await self.ledger().caps()

    async def stopped(self) -> Stop | None:
        return await self.ledger().stopped()

    async def recent(self, limit: int = 50) -> list[Entry]:
        """The last rows of the ledger, the newest first."""
        if not 1 <= limit <= MAX_RECENT:
            raise InputError(f"limit is from 1 to {MAX_RECENT}, not {limit}")
        head = await self.ledger().head()
        rows = await self.ledger().rows(max(0, head.seq - limit), limit)
        return [
            Entry(seq=seq, at=int(told["at"]), table=table, row=parse(table, told))
            for seq, table, told, _ in reversed(rows)
        ]

    async def statement(self, month: str, outcomes: Mapping[str, MissionOutcome] | None = None) -> Statement:
        """See `treasury.statement`. Raises InputError for what is no month."""
        return await read_statement(self.ledger(), month=month, at=self._now(), outcomes=outcomes)

    async def verify(self, anchors: tuple[HeadAnchor, ...] = ()) -> LedgerAudit:
        """Every row, signature, balance and cap, worked out again from the raw rows."""
        return await audit_ledger(self.ledger(), verify=(await self.keyring()).verify, anchors=anchors)

    async def keyring(self) -> Keyring:
        """The public keys that the vault goes by."""
        keys = await self.ledger().public_keys()
        return Keyring(
            cfo={name: public_key(key) for name, key in keys.cfo.items()},
            people={
                who: {name: public_key(key) for name, key in theirs.items()} for who, theirs in keys.people.items()
            },
        )

    # What its owner and its people do.

    async def add_account(self, account: Account) -> None:
        """Raises InputError where there is another of that id."""
        role = LedgerRole.OWNER if account.kind is AccountKind.METERED else LedgerRole.APP
        [outcome] = await self.ledger(role).write([account])
        if isinstance(outcome, Refused):
            raise InputError(f"the account {account.id} cannot be made: {outcome.detail}")

    async def set_cap(self, cap: Cap) -> None:
        """Raises InputError where the ledger does not take it."""
        outcome = await self.ledger(LedgerRole.OWNER).set_cap(cap)
        if isinstance(outcome, Refused):
            raise InputError(f"the cap cannot be set: {outcome.detail}")

    async def set_rules(self, rules: Rules) -> None:
        """Raises InputError where the ledger does not take it."""
        outcome = await self.ledger(LedgerRole.OWNER).set_rules(rules)
        if isinstance(outcome, Refused):
            raise InputError(f"the rules cannot be set: {outcome.detail}")

    async def stop(self, why: str, by: str) -> None:
        """Nothing is spent from now on."""
        await self.ledger().stop(why, by)

    async def resume(self, by: str) -> None:
        """Spends are written again."""
        await self.ledger(LedgerRole.APPROVER).resume(by)

    async def _at_desk(self, method: str, *arguments: Any) -> Any:
        if "ray" in sys.modules:  # else this process is in no cluster, and to import it takes a second
            from chimera.actors import cluster
            from chimera.actors.cfo import CFO
            from chimera.actors.ledger import ask

            if (cfo := cluster.find(CFO)) is not None:
                return await ask(cfo, method, *arguments)
        if self._desk is None:
            policy = read_config(self.place.config).policy
            self._desk = Desk(ledger=self.ledger(), signer=self.ledger(), clock=self._clock, policy=policy)
        if self._work is None and method in WORK:
            self._work = asyncio.create_task(self._desk.run())
        answer = getattr(self._desk, method)(*arguments)
        return answer if answer is None else await answer

    def _now(self) -> int:
        return int(self._clock.now() * 1_000_000)


@asynccontextmanager
async def running(
    settings: Settings, *, user: str = "", passphrase_file: Path | None = None
) -> AsyncIterator[dict[str, Any]]:
    """A vault, the ledger actor and the CFO actor on it, for as long as the context lasts: the actors by their names.

    Whichever of the three dies is started again: the actors by Ray, the vault (`vault`) by this process, with which it
    ends. Raises LedgerUnavailable where the vault does not start, LedgerError where a treasury runs in this cluster.
    """
    from chimera.actors import cluster
    from chimera.actors.cfo import CFO, Cfo
    from chimera.actors.ledger import LEDGER, LedgerActor, ask

    config = read_config(VaultHome.at(settings.home).config)
    vault = KeptVault(lambda: start_vault(settings.home, user=user, passphrase_file=passphrase_file, end_with_me=True))
    async with AsyncExitStack() as stack:
        await vault.begin()
        stack.push_async_callback(vault.end)
        connection = cluster.connect(settings)
        stack.callback(cluster.disconnect, connection)
        if cluster.find(CFO) is not None:
            raise LedgerError("a treasury runs in this cluster already: there is one")
        ledger = cluster.spawn(LedgerActor, name=LEDGER, lasting=False, socket=vault.path())
        stack.callback(cluster.kill, ledger)
        cfo = cluster.spawn(
            Cfo,
            name=CFO,
            lasting=False,
            policy=config.policy,
            limits=config.breaker,
            chains=_chains(settings.home / "chains"),
            outboxes=settings.home / "chains" / "outboxes",
        )
        stack.callback(cluster.kill, cfo)
        await ask(cfo, "ready")
        yield {LEDGER: ledger, CFO: cfo, "vault": vault}


def _chains(folder: Path) -> Sequence[RailSettings]:
    """What is paid on, by the files in this folder (docs/treasury-chain.md)."""
    if not folder.is_dir():
        return ()
    from chimera.treasury.evm.rail import read_rails

    return read_rails(folder)
