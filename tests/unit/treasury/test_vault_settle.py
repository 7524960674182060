"""The rule by which the CFO's key signs, for every proposal, opinion and approval: who asks makes it only stricter."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from chimera.treasury.docket import Case
from chimera.treasury.keys import approve
from chimera.treasury.signer import STRICTNESS, Proposal, Verdict
from chimera.treasury.types import Approval, CfoDecision, PaymentRequest, RefusalReason, Refused, Transfer, TransferKind
from chimera.treasury.vault.decide import Opinion, settle

REQUEST = PaymentRequest(
    id="r1", debit="cash", credit="acme", amount=100, category="any", requester="worker-1", expires_at=1_000
)
VERDICTS = st.sampled_from(STRICTNESS)
MOVED = Transfer(id="t1", kind=TransferKind.PENDING, request_id="r1", amount=100)


def decided(verdict: Verdict) -> CfoDecision:
    told = {"request_id": "r1", "request_digest": REQUEST.digest(), "at": 0, "signature": "00" * 64}
    return CfoDecision.model_validate({**told, "verdict": verdict, "risk": 0})


@st.composite
def approvals(draw: st.DrawFn) -> list[Approval]:
    people = draw(st.lists(st.sampled_from(["ann", "bob", "eve", "worker-1"]), unique=True))
    return [
        approve(REQUEST, approver=who, at=0, expires_at=draw(st.integers(0, 1_000)), refuse=draw(st.booleans()))
        for who in people
    ]


def trusted(word: Approval) -> bool:
    return word.approver != "eve"


@given(
    proposed=VERDICTS,
    opinion=st.builds(Opinion, verdict=VERDICTS, risk=st.floats(0, 1), asks_above=st.sampled_from([None, 99, 100])),
    words=approvals(),
    stands=st.none() | VERDICTS.map(decided),
    moved=st.booleans(),
    at=st.integers(0, 1_100),
    same=st.booleans(),
)
def test_a_decision_is_never_looser_than_what_is_known(
    proposed: Verdict,
    opinion: Opinion,
    words: list[Approval],
    stands: CfoDecision | None,
    moved: bool,
    at: int,
    same: bool,
) -> None:
    case = Case(REQUEST, stands, {word.approver: word for word in words}, MOVED if moved else None)
    told = settle(case, made(proposed, same), judge=lambda *_: opinion, trusted=trusted, at=at)
    if isinstance(told, Refused):
        assert not same or moved or at >= REQUEST.expires_at
        return
    assert same, "a decision is of the request that is in the ledger"
    if told is stands:
        assert told.verdict == "ask" or STRICTNESS.index(told.verdict) >= STRICTNESS.index(proposed)
        return
    assert not told.signature and told.request_digest == REQUEST.digest() and told.risk >= opinion.risk
    assert not moved and at < REQUEST.expires_at
    assert STRICTNESS.index(told.verdict) >= STRICTNESS.index(proposed)
    assert told.verdict != "approved" or stands is None or stands.verdict == "ask"
    heard = [word for word in words if trusted(word)]
    good = [w for w in heard if w.verdict == "approved" and w.expires_at > at and w.approver != REQUEST.requester]
    if opinion.verdict == "refused" or any(word.verdict == "refused" for word in heard):
        assert told.verdict == "refused"
    elif told.verdict == "approved" and not good:
        assert opinion.verdict == "approved" and opinion.asks_above != 99


def made(verdict: Verdict, same: bool = True) -> Proposal:
    digest = REQUEST.digest() if same else REQUEST.model_copy(update={"amount": 101}).digest()
    return Proposal(request_id="r1", request_digest=digest, verdict=verdict, risk=0.0)


def test_an_approval_counts_that_is_trusted_and_not_the_requesters_own() -> None:
    def verdict(who: str, expires_at: int = 9, refuse: bool = False) -> str:
        word = approve(REQUEST, approver=who, at=0, expires_at=expires_at, refuse=refuse)
        opinion = Opinion("approved", 0.0, asks_above=99)
        told = settle(
            Case(REQUEST, approvals={who: word}), made("approved"), judge=lambda *_: opinion, trusted=trusted, at=5
        )
        assert isinstance(told, CfoDecision)
        return told.verdict

    assert verdict("ann") == "approved" and verdict("ann", refuse=True) == "refused"
    assert verdict("eve") == verdict("eve", refuse=True) == verdict("worker-1") == verdict("ann", expires_at=5) == "ask"


def test_why_nothing_is_decided() -> None:
    def reason(case: Case | None, proposal: Proposal, at: int = 0) -> RefusalReason:
        told = settle(case, proposal, judge=lambda *_: Opinion("approved", 0.0), trusted=trusted, at=at)
        assert isinstance(told, Refused)
        return told.reason

    assert reason(None, made("approved")) is RefusalReason.UNKNOWN
    assert reason(Case(REQUEST), made("approved", same=False)) is RefusalReason.CONFLICT
    assert reason(Case(REQUEST), made("approved"), at=1_000) is RefusalReason.EXPIRED
    assert reason(Case(REQUEST, transfer=MOVED), made("approved")) is RefusalReason.CONFLICT
