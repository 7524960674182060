"""The rules of the ledger, under random requests, words and transfers and a clock that jumps.

What is checked does not use the rules: it sums up all transfers that were let in.
"""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from chimera.treasury.book import Book
from chimera.treasury.periods import begins
from chimera.treasury.types import (
    DAY_US,
    NANO,
    AccountKind,
    Approval,
    Cap,
    CfoDecision,
    PaymentRequest,
    RefusalReason,
    Rules,
    Transfer,
    TransferKind,
    Window,
)

FUNDS, PAYEES, METERED = ("cash", "mission-a"), ("acme", "globex"), "model"
CAPS = (
    Cap(window=Window.LAST_DAY, limit=1_000 * NANO),
    Cap(window=Window.WEEK, limit=1_500 * NANO),
    Cap(account="mission-a", window=Window.LAST_DAY, limit=300 * NANO),
)
NEVER = 2**53


def book() -> Book:
    made = Book()
    for name in FUNDS:
        made.add_account(name, AccountKind.FUND, "USD")
    for name in (*PAYEES, "bank"):
        made.add_account(name, AccountKind.OUTSIDE, "USD")
    made.add_account(METERED, AccountKind.METERED, "USD")
    made.rules["USD"] = Rules()
    for cap in CAPS:
        made.set_cap(cap)
    return made


def asked(number: int, debit: str, credit: str, amount: int, **fields: object) -> PaymentRequest:
    return PaymentRequest(
        id=f"r{number + 10}",
        debit=debit,
        credit=credit,
        amount=amount,
        category="any",
        requester="worker-1",
        expires_at=NEVER,
        **fields,
    )


def word(request: PaymentRequest, verdict: str = "approved") -> CfoDecision:
    return CfoDecision(
        request_id=request.id,
        request_digest=request.digest(),
        at=0,
        key_id="cfo",
        signature="0" * 128,
        verdict=verdict,
        risk=0.1,
    )


def approval(request: PaymentRequest, approver: str, *, signed: bool = False, **fields: object) -> Approval:
    return Approval(
        request_id=request.id,
        request_digest=request.digest(),
        at=0,
        approver=approver,
        verdict=fields.pop("verdict", "approved"),
        expires_at=fields.pop("expires_at", NEVER),
        signature="0" * 128 if signed else "",
    )


def take(made: Book, request: PaymentRequest, at: int, kind: TransferKind, expires_at: int = 0) -> RefusalReason | None:
    transfer = Transfer(
        id=f"t-{request.id}", kind=kind, request_id=request.id, amount=request.amount, expires_at=expires_at
    )
    refusal = made.refuses_transfer(transfer, at)
    if refusal is None:
        made.add_transfer(transfer, at)
    return refusal[0] if refusal else None


BEGUN = {"cash": 1_400 * NANO, "mission-a": 700 * NANO}


def funded(made: Book) -> Book:
    for number, (name, amount) in enumerate(BEGUN.items()):
        request = asked(-number, "bank", name, amount)
        made.add_request(request)
        made.add_word(word(request))
        assert take(made, request, 0, TransferKind.POSTED) is None
    return made


@dataclass
class Let:
    """A transfer that was let in, as whoever checks remembers it."""

    request: PaymentRequest
    at: int
    left: int
    approved: bool
    expires_at: int
    open: bool


AMOUNTS = [20 * NANO, 30 * NANO, 50 * NANO, 50 * NANO + 1, 250 * NANO, 300 * NANO, 300 * NANO + 1, 500 * NANO + 1]
WORDS = ["cfo", "cfo", "cfo", "one", "one", "one", "signed", "two", "two", "ask", "none", "refused", "late"]

STEP = st.tuples(
    st.sampled_from([0, 0, 1, DAY_US // 2, DAY_US, 6 * DAY_US]),
    st.sampled_from(FUNDS),
    st.sampled_from([*PAYEES, METERED, *FUNDS]),
    st.sampled_from(AMOUNTS),
    st.sampled_from(WORDS),
    st.sampled_from(["posted", "pending", "short"]),
    st.sampled_from(["", "m1"]),
    st.tuples(st.integers(0, 9), st.sampled_from(["post", "some", "void", "leave", "leave"])),
)


@settings(max_examples=150)
@given(steps=st.lists(STEP, min_size=15, max_size=50))
def test_nothing_passes_caps_funds_or_limits(steps: list[tuple]) -> None:
    made, at, let = funded(book()), 0, list[Let]()
    for number, (later, debit, credit, amount, words, kind, mission, (which, end)) in enumerate(steps, 1):
        at += later
        expire(let, at)
        request = asked(number, debit, credit, amount, mission=mission)
        if made.refuses_request(request, at) is not None:
            assert debit == credit
            continue
        made.add_request(request)
        people = say(made, request, words, at)
        expires_at = at + DAY_US // 2 if kind == "short" else 0
        how = TransferKind.POSTED if kind == "posted" else TransferKind.PENDING
        if take(made, request, at, how, expires_at) is None:
            check_words(request, words)
            let.append(Let(request, at, request.amount, people > 0, expires_at, kind != "posted"))
            check_small(let, request, people, at)
        finish(made, let, which, end, at)
        check(made, let, at)


def expire(let: list[Let], at: int) -> None:
    for each in let:
        if each.open and 0 < each.expires_at <= at:
            each.open, each.left = False, 0


def say(made: Book, request: PaymentRequest, words: str, at: int) -> int:
    """Have it said; how many people approve."""
    if words != "none":
        made.add_word(word(request, "ask" if words == "ask" else "approved"))
    match words:
        case "one" | "refused":
            made.add_word(approval(request, "ada", verdict="approved" if words == "one" else "refused"))
        case "signed":
            made.add_word(approval(request, "ada", signed=True))
        case "two":
            made.add_word(approval(request, "ada"))
            made.add_word(approval(request, "bob"))
        case "late":
            made.add_word(approval(request, "ada", expires_at=at))
    return {"one": 1, "signed": 1, "two": 2}.get(words, 0)


def check_words(request: PaymentRequest, words: str) -> None:
    assert words not in ("none", "ask", "refused")
    if request.amount > 500 * NANO:
        assert words in ("signed", "two")


def check_small(let: list[Let], request: PaymentRequest, people: int, at: int) -> None:
    """What nobody approved stays below the limit, also in parts."""
    if people or request.credit == METERED:
        return
    small = [each for each in let if not each.approved and each.request.credit != METERED and each.at > at - DAY_US]
    assert sum(each.left for each in small if each.request.credit == request.credit) <= 50 * NANO
    if request.mission:
        assert sum(each.left for each in small if each.request.mission == request.mission) <= 50 * NANO


def finish(made: Book, let: list[Let], which: int, end: str, at: int) -> None:
    waiting = [each for each in let if each.open]
    if not waiting or end == "leave":
        return
    each = waiting[which % len(waiting)]
    amount = {"post": each.left, "some": max(1, each.left // 3), "void": 0}[end]
    kind = TransferKind.VOID if end == "void" else TransferKind.POST
    ends = Transfer(id=f"e-{each.request.id}", kind=kind, request_id=each.request.id, amount=amount)
    assert made.refuses_transfer(ends, at) is None
    made.add_transfer(ends, at)
    assert made.refuses_transfer(ends, at) is not None, "it was ended twice"
    each.open, each.left = False, amount


def check(made: Book, let: list[Let], at: int) -> None:
    assert sum(totals.posted for totals in made.totals.values()) == 0
    for name in FUNDS:
        totals = made.totals[name]
        coming = sum(each.left for each in let if each.request.credit == name and not each.open)
        going = sum(each.left for each in let if each.request.debit == name and not each.open)
        assert totals.posted == BEGUN[name] + coming - going
        assert totals.pending_out == sum(each.left for each in let if each.request.debit == name and each.open)
        assert totals.posted - totals.pending_out >= 0
    for cap in CAPS:
        spends = [each for each in let if each.request.credit not in FUNDS and each.at >= begins(cap.window, at)]
        used = sum(each.left for each in spends if cap.account in ("*", each.request.debit))
        assert made.used(cap, at) == used <= cap.limit


def test_what_is_just_within_a_limit_is_let_in_and_one_billionth_more_is_not() -> None:
    for name, credit, most, reason in (
        ("cash", "mission-a", BEGUN["cash"], RefusalReason.FUNDS),
        ("mission-a", METERED, 300 * NANO, RefusalReason.CAP),
        ("cash", METERED, 1_000 * NANO, RefusalReason.CAP),
        ("cash", "acme", 50 * NANO, RefusalReason.UNAPPROVED),
    ):
        for over, wanted in ((1, reason), (0, None)):
            made = funded(book())
            for number, amount in enumerate((most // 2, most - most // 2 + over), 1):
                request = asked(number, name, credit, amount)
                made.add_request(request)
                made.add_word(word(request))
                if reason is not RefusalReason.UNAPPROVED:
                    made.add_word(approval(request, "ada", signed=True))
                refused = take(made, request, 0, TransferKind.PENDING)
            assert refused is wanted, (name, credit, over)


def test_a_cap_frees_what_is_older_than_its_window_and_not_a_moment_earlier() -> None:
    made = funded(book())
    for number, (at, wanted) in enumerate(
        ((0, None), (1, RefusalReason.CAP), (DAY_US - 1, RefusalReason.CAP), (DAY_US, None)), 1
    ):
        request = asked(number, "mission-a", METERED, 200 * NANO)
        made.add_request(request)
        made.add_word(word(request))
        assert take(made, request, at, TransferKind.POSTED) is wanted


def test_what_was_set_aside_is_free_again_at_the_moment_that_it_expires() -> None:
    for at, wanted in ((9, RefusalReason.FUNDS), (10, None)):
        made = funded(book())
        for number, (then, amount) in enumerate(((0, BEGUN["cash"]), (at, 1)), 1):
            request = asked(number, "cash", "mission-a", amount)
            made.add_request(request)
            made.add_word(word(request))
            made.add_word(approval(request, "ada", signed=True))
            refused = take(made, request, then, TransferKind.PENDING, expires_at=10 if number == 1 else 0)
        assert refused is wanted
