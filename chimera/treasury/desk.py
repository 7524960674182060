"""The CFO at work: files what is asked for, judges it, has it signed, moves the money, and sees it through.

Everything it knows it has from the ledger's rows, and everything it does is a row with an id of its own: one that was
killed is followed by another that reads the rows and goes on, and what it does again changes nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Protocol

from chimera.core.clock import Clock
from chimera.core.errors import ChimeraError, InputError, LedgerUnavailable, Overloaded
from chimera.treasury.docket import Case, Docket
from chimera.treasury.history import History
from chimera.treasury.ledger import MAX_BATCH, Ledger, Row
from chimera.treasury.payment import Payment, PaymentState, entry_id, on_rail, payment
from chimera.treasury.policy import Policy, judge
from chimera.treasury.risk import assess
from chimera.treasury.rows import parse
from chimera.treasury.signer import MAX_PROPOSALS, Proposal, Signer, Verdict
from chimera.treasury.types import (
    Account,
    AccountKind,
    Factor,
    Outcome,
    PaymentRequest,
    RefusalReason,
    Refused,
    Rules,
    Transfer,
    TransferKind,
)

log = logging.getLogger(__name__)

LOOK_S = 0.25
"""How often the ledger is read where nobody has said that there is news."""
PAUSE_S = 1.0
"""After the ledger was out of reach."""
FEW_ROWS = 100
"""Fewer at once than this are the end of what there is: of large rows not all fit into one answer."""
MAX_FILING = 10_000
"""Payments that wait to be filed."""
MAX_CASES = 50_000
"""Requests in hand; further ones are refused."""
DECIDE_S = 60.0
"""How long one who pays waits for the CFO's word."""

Reputation = Callable[[str], float | None]
"""An agent's, from 0 to 1; None where nothing is known of it."""


class Rail(Protocol):
    """What carries money out of the house: a blockchain, say. The ledger sets it aside first."""

    def carries(self, request: PaymentRequest) -> bool:
        """Whether this payment goes this way."""
        ...

    async def carry(self, request: PaymentRequest) -> None:
        """See it through, until its transfer is posted or void. Asked again after a crash, it goes on where it was."""
        ...


class Desk:
    """`ledger` is the application's, `signer` holds the key. `run` works until it is cancelled."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        signer: Signer,
        clock: Clock,
        policy: Policy | None = None,
        rails: Sequence[Rail] = (),
        reputation: Reputation = lambda agent: None,
    ) -> None:
        self._ledger = ledger
        self._signer = signer
        self._clock = clock
        self._policy = policy or Policy()
        self.rails = list(rails)
        self._reputation = reputation
        self._history = History()
        self._docket = Docket()
        self._read = 0
        self._reading = asyncio.Lock()
        self._news = asyncio.Event()
        self._filing: list[tuple[PaymentRequest, asyncio.Future[Outcome]]] = []
        self._waiting: dict[str, set[asyncio.Future[None]]] = {}
        self._carrying: dict[str, asyncio.Task[None]] = {}

    async def pay(self, request: PaymentRequest) -> Payment:
        """File a request, and wait until the CFO has decided: what has become of it.

        Where a person has to approve, that is `waiting`; `settled` waits on. The same request again is the same
        payment. Raises InputError for one that cannot be filed or decided, Overloaded, LedgerError, and
        LedgerUnavailable, also for one that is filed and has no decision within a minute: it may still get one.
        """
        loop = asyncio.get_running_loop()
        until_s = loop.time() + DECIDE_S
        if len(self._filing) >= MAX_FILING:
            raise Overloaded(f"{MAX_FILING} payments wait to be filed", LOOK_S)
        filed: asyncio.Future[Outcome] = loop.create_future()
        decided = self._expect(request.id)
        self._filing.append((request, filed))
        self._news.set()
        try:
            outcome = await filed
            if isinstance(outcome, Refused):
                raise InputError(f"{request.id} cannot be filed: {outcome.detail}")
            while (found := await self.payment(request.id)).state in (PaymentState.FILED, PaymentState.AGREED):
                case = self._docket.cases.get(request.id)
                if case is not None and case.undecided:
                    raise InputError(f"{request.id} is filed, and cannot be decided: {case.undecided}")
                if loop.time() > until_s:
                    raise LedgerUnavailable(f"{request.id} is filed, and not decided yet: ask for it again")
                await asyncio.wait([decided], timeout=LOOK_S)
                if decided.done():
                    decided = self._expect(request.id)
            return found
        finally:
            self._forget(request.id, decided)

    async def payment(self, request_id: str) -> Payment:
        """What has become of a request. Raises InputError where there is none."""
        request = await self._ledger.request(request_id)
        if request is None:
            raise InputError(f"there is no request {request_id}")
        words = await self._ledger.decisions(request_id)
        transfers = await self._ledger.transfers(request_id)
        return payment(request, words, transfers, at=self._now())

    async def settled(self, request_id: str, timeout_s: float) -> Payment:
        """As `payment`, waiting up to so long for its end."""
        loop = asyncio.get_running_loop()
        until_s = loop.time() + timeout_s
        while True:
            found = await self.payment(request_id)
            left_s = until_s - loop.time()
            if found.ended or left_s <= 0:
                return found
            news = self._expect(request_id)
            await asyncio.wait([news], timeout=min(left_s, LOOK_S))
            self._forget(request_id, news)

    async def settle(self, request_id: str, amount: int) -> Outcome:
        """Post what was really used of a reservation, and let go of the rest. Again, it is the same."""
        kind = TransferKind.POST if amount else TransferKind.VOID
        transfer = Transfer(id=entry_id(request_id, "end"), kind=kind, request_id=request_id, amount=amount)
        [outcome] = await self._ledger.write([transfer])
        self._news.set()
        return outcome

    async def reserved(self, prefix: str) -> list[PaymentRequest]:
        """The requests whose id begins so, and for which money is set aside now."""
        await self._follow()
        return [case.request for case in self._docket.reserved() if case.request.id.startswith(prefix)]

    async def in_hand(self) -> list[Payment]:
        """Every payment that has not come to an end, in the order in which they were asked for."""
        await self._follow()
        at = self._now()
        self._docket.sweep(at)
        return [case.payment(at) for case in self._docket.cases.values()]

    async def accounts(self, after: str, limit: int) -> list[Account]:
        """Accounts, our funds first and then by id, from the first after `after` on; at most `limit`."""
        await self._follow()
        known = self._docket.accounts
        begins = _order(known[after]) if after in known else (False, "")
        return sorted((each for each in known.values() if _order(each) > begins), key=_order)[:limit]

    def nudge(self) -> None:
        """There are news in the ledger: look now."""
        self._news.set()

    async def run(self) -> None:
        """Work until cancelled. What the ledger does not answer is tried again."""
        try:
            while True:
                try:
                    await self.step()
                except LedgerUnavailable as error:
                    log.warning("the ledger is out of reach, and is asked again: %s", error)
                    await asyncio.sleep(PAUSE_S)
                except Exception:  # whatever it is, the payments of others go on
                    log.exception("the CFO's desk")
                    await asyncio.sleep(PAUSE_S)
                with suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_S):
                        await self._news.wait()
                self._news.clear()
        finally:
            for task in self._carrying.values():
                task.cancel()
            await asyncio.gather(*self._carrying.values(), return_exceptions=True)

    async def step(self) -> None:
        """Once through all that is to be done."""
        await self._file()
        await self._follow()
        while await self._decide():
            await self._follow()
        await self._move()
        await self._follow()
        self._docket.sweep(self._now())
        self._carry()

    async def _file(self) -> None:
        while self._filing:
            batch, self._filing = self._filing[:MAX_BATCH], self._filing[MAX_BATCH:]
            try:
                outcomes = await self._ledger.write([request for request, _ in batch])
            except Exception as error:
                for _, filed in batch:
                    if not filed.done():
                        filed.set_exception(error)
                raise
            for (_, filed), outcome in zip(batch, outcomes, strict=True):
                if not filed.done():
                    filed.set_result(outcome)

    async def _follow(self) -> None:
        """Read what is new in the ledger, each row once."""
        async with self._reading:
            await self._read_on()

    async def _read_on(self) -> None:
        while True:
            rows = await self._ledger.rows(self._read, MAX_BATCH)
            for seq, table, told, _ in rows:
                row = parse(table, told)
                self._history.take(row, int(told["at"]))
                self._docket.take(row)
                self._read = seq
                self._tell(str(told.get("request_id", "")))
            if len(rows) < FEW_ROWS:
                return

    async def _decide(self) -> bool:
        """Have a batch of requests decided; False where there is none."""
        at = self._now()
        proposals: list[Proposal] = []
        for request in self._docket.undecided(at):
            if len(proposals) == MAX_PROPOSALS:
                break
            proposals.append(self._judge(request, at))
        if not proposals:
            return False
        outcomes = await self._signer.decide(proposals)
        failed = [outcome for outcome in outcomes if isinstance(outcome, Refused)]
        for outcome in failed:
            log.warning("%s was not decided: %s", outcome.id, outcome.detail)
            if case := self._docket.cases.get(outcome.id):
                case.tried = case.words  # until more is said of it
                if outcome.reason is RefusalReason.FORBIDDEN:  # of no rules: others may have been decided elsewhere
                    case.undecided = outcome.detail
                    self._tell(outcome.id)
        return len(failed) < len(proposals)

    def _judge(self, request: PaymentRequest, at: int) -> Proposal:
        reputation = self._reputation(request.requester)
        found = assess(request, self._history, at=at, reputation=reputation)
        rules = self._docket.rules.get(request.currency, Rules(currency=request.currency))
        verdict: Verdict = judge(request, found, rules=rules, policy=self._policy)
        factors = found.factors
        if len(self._docket.cases) > MAX_CASES:
            verdict, factors = "refused", (_because("desk", f"{MAX_CASES} requests are in hand: file it again later"),)
        return _proposal(request, verdict, found.risk, factors)

    async def _move(self) -> None:
        """Set money aside, or post it, for all that is agreed."""
        cases = list(self._docket.agreed(self._now()))
        for begin in range(0, len(cases), MAX_BATCH):
            batch = cases[begin : begin + MAX_BATCH]
            rows: list[Row] = [self._transfer(case) for case in batch]
            outcomes = await self._ledger.write(rows)
            await self._refused(
                [(case, told) for case, told in zip(batch, outcomes, strict=True) if isinstance(told, Refused)]
            )

    def _transfer(self, case: Case) -> Transfer:
        request = case.request
        held = self._docket.metered(request)
        kind = TransferKind.PENDING if held or on_rail(request.credit) else TransferKind.POSTED
        return Transfer(
            id=entry_id(request.id, "begin"),
            kind=kind,
            request_id=request.id,
            amount=request.amount,
            expires_at=request.expires_at if held else 0,
        )

    async def _refused(self, refused: Sequence[tuple[Case, Refused]]) -> None:
        """The ledger would not have them. That is made the CFO's last word, so that nothing is paid much later.

        Where it wants a person, a person is asked; where one of two has approved, the other is waited for.
        """
        proposals = []
        for case, told in refused:
            case.tried = case.words
            wants_person = told.reason is RefusalReason.UNAPPROVED
            asked = case.decision is not None and case.decision.verdict == "ask"
            if told.reason is RefusalReason.CONFLICT or (wants_person and asked):
                continue
            risk = case.decision.risk if case.decision else 0.0
            because = _because(f"ledger.{told.reason}", told.detail)
            proposals.append(_proposal(case.request, "ask" if wants_person else "refused", risk, (because,)))
        for begin in range(0, len(proposals), MAX_PROPOSALS):
            await self._signer.decide(proposals[begin : begin + MAX_PROPOSALS])

    def _rail(self, request: PaymentRequest) -> Rail | None:
        return next((rail for rail in self.rails if rail.carries(request)), None)

    def _carry(self) -> None:
        """Let every reservation that a rail carries be carried, once at a time."""
        for case in self._docket.reserved():
            rail = self._rail(case.request)
            if rail is not None and case.request.id not in self._carrying:
                task = asyncio.create_task(self._see_through(rail, case.request))
                self._carrying[case.request.id] = task

    async def _see_through(self, rail: Rail, request: PaymentRequest) -> None:
        try:
            await rail.carry(request)
        except ChimeraError as error:
            log.warning("%s is not paid yet: %s", request.id, error)
            await asyncio.sleep(PAUSE_S)
        finally:
            self._carrying.pop(request.id, None)
            self._news.set()

    def _expect(self, request_id: str) -> asyncio.Future[None]:
        news: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(request_id, set()).add(news)
        return news

    def _forget(self, request_id: str, news: asyncio.Future[None]) -> None:
        if waiting := self._waiting.get(request_id):
            waiting.discard(news)
            if not waiting:
                del self._waiting[request_id]

    def _tell(self, request_id: str) -> None:
        for news in self._waiting.pop(request_id, ()):
            if not news.done():
                news.set_result(None)

    def _now(self) -> int:
        return int(self._clock.now() * 1_000_000)


def _order(account: Account) -> tuple[bool, str]:
    return account.kind is not AccountKind.FUND, account.id


def _because(name: str, why: str) -> Factor:
    return Factor(name=name, value=1.0, weight=1.0, why=why[:1_000])


def _proposal(request: PaymentRequest, verdict: Verdict, risk: float, factors: tuple[Factor, ...]) -> Proposal:
    return Proposal(request_id=request.id, request_digest=request.digest(), verdict=verdict, risk=risk, factors=factors)
