"""Amounts, what is signed, and what is no such thing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from chimera.core.errors import InputError
from chimera.treasury.chain import GENESIS, RawRow, broken, link
from chimera.treasury.types import Approval, CfoDecision, Factor, PaymentRequest, nano, shown

REQUEST = PaymentRequest(
    id="r1", debit="cash", credit="acme", amount=nano("12.50"), category="tools", requester="worker-1", expires_at=9
)
DECISION = CfoDecision(
    request_id="r1", request_digest=REQUEST.digest(), at=1, verdict="approved", risk=0.25, factors=()
)


@pytest.mark.parametrize(
    ("text", "amount"), [("12.50", 12_500_000_000), ("0.000000001", 1), (3, 3_000_000_000), ("-1", -1_000_000_000)]
)
def test_amounts_are_billionths(text: str | int, amount: int) -> None:
    assert nano(text) == amount


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1,5",
        "0.0000000001",
        "nan",
        "inf",
        "1e999999",
        "1000000001",
        "1.0000000000000000000000000001",
        "twelve",
        0.1,
        None,
    ],
)
def test_what_is_no_amount_is_refused(text: object) -> None:
    with pytest.raises(InputError, match="is no amount"):
        nano(text)  # type: ignore[arg-type]


@given(st.integers(-(10**18), 10**18))
def test_an_amount_that_is_shown_is_that_amount(amount: int) -> None:
    assert nano(shown(amount).removesuffix(" USD").replace(",", "")) == amount


@pytest.mark.parametrize(
    "change",
    [
        {"amount": 1},
        {"credit": "mallory"},
        {"debit": "other"},
        {"currency": "EUR"},
        {"mission": "m"},
        {"expires_at": 10},
        {"requester": "worker-2"},
        {"category": "games"},
        {"reason": "because"},
        {"id": "r2"},
    ],
)
def test_each_field_of_a_request_is_in_its_digest(change: dict[str, object]) -> None:
    assert REQUEST.model_copy(update=change).digest() != REQUEST.digest()


@pytest.mark.parametrize(
    "change",
    [
        {"risk": 0.5},
        {"verdict": "refused"},
        {"request_id": "r2"},
        {"request_digest": "0" * 64},
        {"at": 2},
        {"key_id": "k"},
        {"factors": (Factor(name="new_payee", value=1.0, weight=0.2),)},
    ],
)
def test_each_field_of_a_decision_is_signed(change: dict[str, object]) -> None:
    assert DECISION.model_copy(update=change).payload() != DECISION.payload()
    assert DECISION.model_copy(update={"signature": "0" * 128}).payload() == DECISION.payload()


def test_a_decision_is_no_approval() -> None:
    word = {"request_id": "r1", "request_digest": REQUEST.digest(), "at": 1}
    approval = Approval(**word, approver="ada", verdict="approved", expires_at=9)
    assert b'"chimera":"Approval"' in approval.payload() and b'"chimera":"CfoDecision"' in DECISION.payload()


@pytest.mark.parametrize(
    "fields",
    [
        {"amount": 0},
        {"amount": -5},
        {"amount": 1.0},
        {"amount": True},
        {"amount": "5"},
        {"amount": 10**18 + 1},
        {"id": "a\nb"},
        {"id": "a\n"},
        {"reason": "a\nb"},
        {"reason": "a\u2028b"},
        {"currency": "usd"},
        {"credit": ""},
        {"extra": 1},
    ],
)
def test_a_request_that_is_none_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        PaymentRequest.model_validate({**REQUEST.model_dump(), **fields})


def chained(*titles: str) -> list[RawRow]:
    rows, prev = list[RawRow](), GENESIS
    for seq, title in enumerate(titles, 1):
        columns: dict[str, str | int] = {"id": f"a{seq}", "kind": "fund", "currency": "USD", "title": title, "at": seq}
        prev = link(prev, seq, "account", columns)
        rows.append((seq, "account", columns, prev))
    return rows


def test_a_chain_is_whole_from_any_row_on() -> None:
    rows = chained("one", "two", "three")
    assert broken(rows) is None
    assert broken(rows[1:], after=(1, rows[0][3])) is None


@given(st.integers(0, 3), st.sampled_from(["change", "remove", "swap", "rehash", "insert", "time"]))
def test_a_chain_that_was_touched_is_broken(which: int, how: str) -> None:
    rows = chained("one", "two", "three", "four", "five")
    seq, table, columns, found = rows[which]
    match how:
        case "change":
            rows[which] = (seq, table, {**columns, "title": "other"}, found)
        case "remove":
            del rows[which]
        case "swap":
            rows[which], rows[which + 1] = rows[which + 1], rows[which]
        case "rehash":
            changed = {**columns, "title": "other"}
            rows[which] = (seq, table, changed, link(rows[which - 1][3] if which else GENESIS, seq, table, changed))
        case "insert":
            rows.insert(which, rows[which])
        case "time":
            rows[which] = (seq, table, {**columns, "at": 99}, found)
    assert broken(rows) is not None
