"""What the CFO's key is put to: a decision of a request that is in the ledger, judged by what the ledger's rows say.

`settle` is the rule, and pure; `Decider` reads, signs and writes. Nothing else signs. Whoever asks can make a decision
stricter, by what they propose, and never looser.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from chimera.core.clock import Clock
from chimera.core.errors import InputError
from chimera.treasury.docket import Case
from chimera.treasury.keys import SigningKey, signed
from chimera.treasury.ledger import Ledger
from chimera.treasury.signer import MAX_PROPOSALS, STRICTNESS, Proposal, Verdict
from chimera.treasury.types import (
    Approval,
    CfoDecision,
    Factor,
    Outcome,
    PaymentRequest,
    RefusalReason,
    Refused,
    Rules,
)

MAX_FACTORS = 32
STOPPER = "breaker"
"""Who stops spending here."""

Trusted = Callable[[Approval], bool]
"""Whether it was said by who is said to have said it."""


@dataclass(frozen=True, slots=True)
class Opinion:
    """What the vault makes of a request: `asks_above` is the amount above which a person has to approve; None: none."""

    verdict: Verdict
    risk: float
    factors: tuple[Factor, ...] = ()
    asks_above: int | None = 0


class Records(Protocol):
    """What the ledger's rows come to."""

    @property
    def alarm(self) -> str | None:
        """Why all spending has to stop, as long as it has not been stopped."""
        ...

    async def follow(self) -> int:
        """Read what is new; the time of the last row. Raises LedgerError, LedgerUnavailable."""
        ...

    async def case(self, request_id: str) -> Case | None:
        """A request and what was said of it; None where it is not in the ledger."""
        ...

    def rules(self, currency: str) -> Rules | None: ...

    def judge(self, request: PaymentRequest, at: int) -> Opinion: ...


def stricter(*verdicts: Verdict) -> Verdict:
    """The strictest of them."""
    return max(verdicts, key=STRICTNESS.index)


def verdict_on(
    request: PaymentRequest, approvals: Iterable[Approval], *, proposed: Verdict, opinion: Opinion, at: int
) -> Verdict:
    """What is said of it. `approvals` are those that are trusted.

    A person's approval is an answer to `ask`, for whoever wants it carried out; against a refusal it is none.
    """
    heard = [each for each in approvals if each.request_digest == request.digest()]
    if any(each.verdict == "refused" for each in heard):
        return "refused"
    beyond = opinion.asks_above is not None and request.amount > opinion.asks_above
    own = stricter(opinion.verdict, "ask" if beyond else "approved")
    if own == "ask" and any(each.expires_at > at and each.approver != request.requester for each in heard):
        own = "approved"
    return stricter(own, proposed)


def settle(
    case: Case | None, proposal: Proposal, *, judge: Callable[[PaymentRequest, int], Opinion], trusted: Trusted, at: int
) -> CfoDecision | Refused:
    """The decision to be signed, or the one that stands; or why there is none."""
    if case is None:
        return _refused(proposal, RefusalReason.UNKNOWN, f"there is no request {proposal.request_id}")
    request, stands = case.request, case.decision
    if request.digest() != proposal.request_digest:
        return _refused(proposal, RefusalReason.CONFLICT, "it speaks of another request: the digest differs")
    if stands is not None and stands.verdict != "ask" and stricter(stands.verdict, proposal.verdict) == stands.verdict:
        return stands
    if case.transfer is not None:
        return _refused(proposal, RefusalReason.CONFLICT, "the request has been carried out")
    if request.expires_at <= at:
        return _refused(proposal, RefusalReason.EXPIRED, "the request has expired")
    opinion = judge(request, at)
    verdict = verdict_on(
        request, filter(trusted, case.approvals.values()), proposed=proposal.verdict, opinion=opinion, at=at
    )
    if stands is not None:
        # What was approved is taken back, if it is not carried out; it is not agreed to a second time.
        verdict = verdict if stands.verdict == "ask" else stricter(verdict, proposal.verdict)
        if verdict == stands.verdict:
            return stands
    told = proposal.factors if STRICTNESS.index(proposal.verdict) > STRICTNESS.index(opinion.verdict) else ()
    return CfoDecision(
        request_id=request.id,
        request_digest=proposal.request_digest,
        at=at,
        verdict=verdict,
        risk=max(opinion.risk, proposal.risk),
        factors=(*opinion.factors, *told)[:MAX_FACTORS],
    )


class Decider:
    """Decides with `key`, writing as the CFO's `ledger`. One batch at a time."""

    def __init__(self, *, key: SigningKey, ledger: Ledger, records: Records, trusted: Trusted, clock: Clock) -> None:
        self._key = key
        self._ledger = ledger
        self._records = records
        self._trusted = trusted
        self._clock = clock

    async def decide(self, proposals: Sequence[Proposal]) -> list[Outcome]:
        """As `Signer.decide`. Of two proposals about one request only the first is looked at."""
        if len(proposals) > MAX_PROPOSALS:
            raise InputError(f"{len(proposals)} are too many at once: propose at most {MAX_PROPOSALS}")
        at = await self.watch()
        first: dict[str, tuple[Proposal, CfoDecision | Refused]] = {}
        for each in proposals:
            if each.request_id not in first:
                first[each.request_id] = each, await self._settle(each, at)
        decided = [told for _, told in first.values() if isinstance(told, CfoDecision)]
        written = iter(await self._ledger.write(decided) if decided else [])
        outcomes = {key: told if isinstance(told, Refused) else next(written) for key, (_, told) in first.items()}
        return [
            outcomes[each.request_id]
            if first[each.request_id][0] == each
            else _refused(each, RefusalReason.CONFLICT, "two proposals about it came at once: propose again")
            for each in proposals
        ]

    async def watch(self) -> int:
        """Read what is new in the ledger, and stop all spending where that is called for; the time, in microseconds."""
        at = await self._records.follow()
        if (why := self._records.alarm) is not None:
            await self._ledger.stop(why, STOPPER)
            await self._records.follow()
        return max(round(self._clock.now() * 1_000_000), at)

    async def _settle(self, proposal: Proposal, at: int) -> CfoDecision | Refused:
        case = await self._records.case(proposal.request_id)
        if case is not None and self._records.rules(case.request.currency) is None:
            detail = f"there are no rules for {case.request.currency}"
            return _refused(proposal, RefusalReason.FORBIDDEN, detail)
        told = settle(case, proposal, judge=self._records.judge, trusted=self._trusted, at=at)
        if isinstance(told, CfoDecision) and not told.signature:
            return signed(told, self._key)
        return told


def _refused(proposal: Proposal, reason: RefusalReason, detail: str) -> Refused:
    return Refused(id=proposal.request_id, reason=reason, detail=detail)
