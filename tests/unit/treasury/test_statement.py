"""A statement says what the rules in `book` make of the same rows, adds up, and hands a spreadsheet nothing to run."""

from __future__ import annotations

import csv
import io
from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chimera.core.errors import InputError, LedgerError
from chimera.treasury import statement as statements
from chimera.treasury.book import Book
from chimera.treasury.chain import GENESIS, RawRow, link
from chimera.treasury.rows import AnyRow, columns
from chimera.treasury.statement import StatementFold, statement
from chimera.treasury.statement_lines import (
    CSV_COLUMNS,
    OTHERS,
    MissionOutcome,
    PostedTransfer,
    Statement,
    csv_head,
    csv_line,
    harmless,
    month_bounds,
    totals,
)
from chimera.treasury.types import DAY_US, NANO, Account, AccountKind, Cap, PaymentRequest, Transfer, Window
from tests.ledger_house import NEVER, approval, decision, transfer

SINCE, UNTIL = month_bounds("2026-11")
ACCOUNTS = (
    *(Account(id=name, kind=AccountKind.FUND) for name in ("cash", "mission-a")),
    *(Account(id=name, kind=AccountKind.OUTSIDE) for name in ("bank", "acme", "globex")),
)


class Story:
    """Rows as a ledger has them, and the book that read along: the oracle."""

    def __init__(self, at: int = SINCE - 40 * DAY_US) -> None:
        self.at = at
        self.rows: list[RawRow] = []
        self.book = Book()
        self.most: dict[Cap, int] = {}
        self.last = GENESIS
        self.numbers = count(1)
        for account in ACCOUNTS:
            self.add(account)

    def add(self, *rows: AnyRow) -> None:
        for row in rows:
            table, told = columns(row)
            told = {"at": self.at, **told}
            self.last = link(self.last, len(self.rows) + 1, table, told)
            self.rows.append((len(self.rows) + 1, table, told, self.last))
            self.book.add(row, self.at)
            self.look(self.at)

    def pass_time(self, us: int) -> None:
        """The book looks at every day's beginning, as use is highest there or at a row."""
        while (day := (self.at // DAY_US + 1) * DAY_US) <= self.at + us:
            us -= day - self.at
            self.at = day
            self.look(day)
        self.at += us

    def look(self, at: int) -> None:
        if SINCE <= at < UNTIL:
            for cap in self.book.caps.values():
                self.most[cap] = max(self.most.get(cap, 0), self.book.used(cap, at))

    def ask(self, amount: int, **fields: object) -> PaymentRequest:
        told = {"debit": "cash", "credit": "acme", "category": "any", "requester": "w1", "expires_at": NEVER, **fields}
        return PaymentRequest(**{"id": f"r{next(self.numbers)}", "amount": amount, **told})

    def pay(self, amount: int, *words: str, kind: str = "posted", ends_in: int = 0, **fields: object) -> PaymentRequest:
        request = self.ask(amount, **fields)
        self.add(request, decision(request), *(approval(request, who) for who in words))
        self.add(transfer(request, kind, expires_at=self.at + ends_in if ends_in else 0))
        return request

    def told(self, at: int = UNTIL, **fields: object) -> Statement:
        return statement(self.rows, month="2026-11", at=at, **fields)


def filled() -> Story:
    story = Story()
    story.add(*(Cap(window=window, limit=100 * NANO) for window in (Window.LAST_DAY, Window.MONTH)))
    story.pay(1_000 * NANO, debit="bank", credit="cash")
    story.pay(7 * NANO)
    story.pass_time(SINCE - story.at + DAY_US + 5)
    return story


def test_a_month_has_what_was_before_it_and_what_moved_in_it() -> None:
    story = filled()
    story.pay(50 * NANO, "ann", "bob", mission="m1", category="models", requester="w2", reason="one month")
    story.pay(20 * NANO, credit="mission-a")
    story.pay(3 * NANO, credit="bank", debit="mission-a", category="fees")
    pending = story.pay(30 * NANO, kind="pending")
    story.add(transfer(pending, "post", 10 * NANO))
    story.pay(9 * NANO, kind="pending", ends_in=10)
    told = story.told()
    lines = {line.account: line for line in told.accounts}
    cash = lines["cash"]
    assert (cash.opening, cash.moved_in, cash.moved_out) == (993 * NANO, 0, 80 * NANO)
    assert (cash.closing, cash.pending_out) == (913 * NANO, 0)
    assert lines["acme"].opening == 7 * NANO and lines["acme"].closing == 67 * NANO
    assert {total.name: total.amount for total in told.by_category} == {
        "models": 50 * NANO,
        "any": 10 * NANO,
        "fees": 3 * NANO,
    }
    assert {total.name: total.amount for total in told.by_payee} == {"acme": 60 * NANO, "bank": 3 * NANO}
    assert [(total.name, total.amount, total.transfers) for total in told.by_mission] == [("m1", 50 * NANO, 1)]
    assert {total.name: total.amount for total in told.by_requester} == {"w2": 50 * NANO, "w1": 13 * NANO}
    assert [day.by_category for day in told.days] == [{"models": 50 * NANO, "any": 10 * NANO, "fees": 3 * NANO}]
    assert [day.day for day in told.days] == ["2026-11-02"]
    assert told.transfer_count == len(told.transfers) == 4
    first = told.transfers[0]
    assert (first.approvers, first.risk, first.reason, first.payee) == (("ann", "bob"), 0.1, "one month", "acme")


def test_what_is_told_of_a_month_that_goes_on_ends_at_that_moment() -> None:
    story = filled()
    story.pay(5 * NANO)
    moment = story.at
    story.pass_time(1)
    story.pay(6 * NANO)
    assert story.told(at=moment).transfer_count == 1
    assert story.told(at=moment).until == moment + 1
    assert story.told(at=moment + 1).transfer_count == 2
    assert len(story.told(at=moment).caps[0].by_day) == 2


def test_refusals_are_counted_with_who_refused() -> None:
    story = filled()
    one, other = story.ask(NANO), story.ask(2 * NANO)
    story.add(one, decision(one, "refused"), other, decision(other, "ask"), approval(other, "ann", verdict="refused"))
    told = story.told()
    assert [(line.request_id, line.by, line.risk) for line in told.refusals] == [
        (one.id, "cfo", 0.1),
        (other.id, "ann", None),
    ]
    assert told.refusal_count == 2


def test_what_a_mission_cost_a_task_and_what_it_brought() -> None:
    story = filled()
    story.pay(40 * NANO, mission="m1")
    story.pay(8 * NANO, mission="m2")
    outcomes = {
        "m1": MissionOutcome(tasks_done=8, value=60 * NANO),
        "m2": MissionOutcome(tasks_done=0),
        "m3": MissionOutcome(tasks_done=4, value=NANO),
    }
    found = {each.mission: each for each in story.told(outcomes=outcomes).missions}
    assert (found["m1"].cost_per_task, found["m1"].roi) == (5 * NANO, 0.5)
    assert (found["m2"].cost, found["m2"].cost_per_task, found["m2"].roi) == (8 * NANO, None, None)
    assert (found["m3"].cost, found["m3"].cost_per_task, found["m3"].roi) == (0, 0, None)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["pay", "hold", "hold-a-while", "post", "void", "cap", "other"]),
        st.integers(1, 50),
        st.one_of(st.integers(0, 1_000), st.integers(0, 9 * DAY_US), st.sampled_from([DAY_US, 7 * DAY_US])),
    ),
    max_size=30,
)
CAPS = [Cap(account=name, window=window, limit=100) for window in Window for name in ("*", "cash")]


@given(STEPS)
@settings(max_examples=150)
def test_it_says_what_the_book_says(steps: list[tuple[str, int, int]]) -> None:
    story = Story(at=SINCE - 8 * DAY_US)
    story.add(CAPS[0])
    story.pay(10**6, debit="bank", credit="cash")
    for step, size, us in steps:
        story.pass_time(us)
        story.book.sweep(story.at)
        pending = next(iter(story.book.open.values()), None)
        match step:
            case "pay" | "hold":
                story.pay(size, kind="posted" if step == "pay" else "pending")
            case "hold-a-while":
                story.pay(size, kind="pending", ends_in=size * DAY_US // 7)
            case "post" | "void" if pending is not None:
                story.add(transfer(pending.request, step, None if step == "void" else max(1, pending.amount - size)))
            case "cap":
                story.add(CAPS[size % len(CAPS)])
            case "other":
                story.pay(size, credit="mission-a")
        if story.at >= UNTIL:
            return  # the book has gone on
    told = story.told()
    story.pass_time(UNTIL - 1 - story.at)
    for line in told.accounts:
        assert line.closing == story.book.totals[line.account].posted
        assert line.opening + line.moved_in - line.moved_out == line.closing
    assert sum(line.closing for line in told.accounts) == 0
    for cap_line in told.caps:
        assert cap_line.now == story.book.used(cap_line.cap, UNTIL - 1)
        assert cap_line.highest == max(cap_line.by_day)
        assert cap_line.highest == story.most.get(cap_line.cap, 0)
    story.book.sweep(UNTIL - 1)
    held = {line.account: line.pending_out for line in told.accounts}
    assert held == {name: story.book.totals[name].pending_out for name in held}


def test_old_spends_are_forgotten_and_the_sums_stay_right(monkeypatch: pytest.MonkeyPatch) -> None:
    from chimera.treasury import statement_caps

    monkeypatch.setattr(statement_caps, "TRIM_FROM", 8)
    story = Story(at=SINCE - 400 * DAY_US)
    caps = [Cap(window=window, limit=100) for window in Window]
    story.add(*caps)
    story.pay(10**6, debit="bank", credit="cash")
    held = story.pay(50, kind="pending")
    for _ in range(300):
        story.pass_time(DAY_US + DAY_US // 3)
        story.pay(3, kind="pending", ends_in=DAY_US // 2)
        story.pay(5)
    story.add(transfer(held, "void"))
    told = story.told()
    story.pass_time(UNTIL - 1 - story.at)
    assert {line.cap: (line.now, line.highest) for line in told.caps} == {
        cap: (story.book.used(cap, UNTIL - 1), story.most[cap]) for cap in caps
    }
    fold = StatementFold(month="2026-11", at=UNTIL)
    for row in story.rows:
        fold.take(row)
    assert all(len(spends.times) < 100 for spends in fold._caps._spends.values())


def test_requests_that_were_carried_out_take_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statements, "TIDY_FROM", 10)
    story = filled()
    fold = StatementFold(month="2026-11", at=UNTIL)
    for _ in range(200):
        story.pay(1)
    for row in story.rows:
        fold.take(row)
    assert not fold._asked and len(fold._ends) <= 11


def test_ends_come_in_their_order_after_old_ones_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statements, "TIDY_FROM", 0)
    story = filled()
    for days in (9, 3, 6, 1, 8, 2, 7, 4):
        story.pay(days * NANO, kind="pending", ends_in=days * DAY_US)
        story.pay(1)
        story.pay(1)
    purses = {line.account: line for line in story.told(at=story.at + 5 * DAY_US).accounts}
    assert purses["cash"].pending_out == (9 + 6 + 8 + 7) * NANO


def test_what_ends_at_midnight_is_not_of_the_day_that_begins() -> None:
    story = filled()
    story.pay(NANO, kind="pending", ends_in=DAY_US - story.at % DAY_US)
    (of_month,) = (line for line in story.told(at=story.at + DAY_US).caps if line.cap.window is Window.MONTH)
    assert of_month.by_day == (0, NANO, 0)


def test_an_approval_that_had_expired_is_not_named() -> None:
    story = filled()
    request = story.ask(NANO)
    story.add(request, decision(request), approval(request, "eve", expires_at=story.at + 1), approval(request, "ann"))
    story.pass_time(1)
    story.add(transfer(request))
    assert story.told().transfers[0].approvers == ("ann",)


def without_zero() -> Story:
    story = Story()
    story.add(Account(id="paris", kind=AccountKind.OUTSIDE, currency="EUR"))
    story.pay(NANO, debit="bank", credit="paris")
    return story


def lacking() -> Story:
    story = filled()
    del story.rows[4]
    return story


def ended_twice() -> Story:
    story = filled()
    request = story.pay(NANO)
    seq, table, told, found = story.rows[-1]
    story.rows.append((seq + 1, table, {**told, "id": "again", "kind": "post"}, found))
    assert request.id == told["request_id"]
    return story


def too_much() -> Story:
    story = filled()
    request = story.pay(NANO, kind="pending")
    seq, table, told, found = story.rows[-1]
    told = {**told, "id": "more", "kind": "post", "amount": request.amount + 1}
    story.rows.append((seq + 1, table, told, found))
    return story


@pytest.mark.parametrize(
    ("story", "said"),
    [
        (without_zero(), "not to zero"),
        (lacking(), "row 5 is missing"),
        (ended_twice(), "audit it"),
        (too_much(), "more than was asked"),
    ],
)
def test_rows_that_do_not_add_up_make_no_statement(story: Story, said: str) -> None:
    with pytest.raises(LedgerError, match=said):
        story.told()


@pytest.mark.parametrize("month", ["2026", "2026-13", "11-2026", "2026-1", "2026-11-01", "", "1969-12", "9999-12"])
def test_what_is_no_month_is_refused(month: str) -> None:
    with pytest.raises(InputError, match=r"month|1970"):
        statement([], month=month, at=UNTIL)


def test_a_month_to_come_has_no_statement() -> None:
    with pytest.raises(InputError, match="has not begun"):
        statement([], month="2026-11", at=SINCE - 1)
    assert statement([], month="2026-11", at=SINCE).transfers == ()


def test_too_many_transfers_are_refused_and_may_be_streamed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statements, "MAX_LISTED", 2)
    story = filled()
    for _ in range(3):
        story.pay(NANO)
    with pytest.raises(InputError, match="CSV"):
        story.told()


def test_small_names_are_summed_together(monkeypatch: pytest.MonkeyPatch) -> None:
    sums = {(f"n{i}", "USD"): (10_000 - i, 1) for i in range(1_005)}
    found = totals(sums)
    assert [total.name for total in found[:2]] == ["n0", "n1"] and len(found) == 1_001
    assert (found[-1].name, found[-1].transfers) == (OTHERS, 5)
    assert sum(total.amount for total in found) == sum(amount for amount, _ in sums.values())


CELLS = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", " =1", "\uff1d1", "=cmd|' /C calc'!A0"]


@pytest.mark.parametrize("cell", CELLS)
def test_no_cell_is_a_formula(cell: str) -> None:
    assert harmless(cell) == f"'{cell}"
    assert harmless(f"x{cell}") == f"x{cell}"


@given(
    st.text(st.characters(exclude_categories=["Cc", "Zl", "Zp", "Cs"]), max_size=60), st.sampled_from(["-m", "[1]", ""])
)
@settings(max_examples=50)
def test_csv_is_read_back_as_it_was(reason: str, mission: str) -> None:
    story = filled()
    story.pay(12_345_678_901, "ann", mission=mission, reason=f'{reason},"quoted"')
    (posted,) = story.told().transfers
    text = csv_head() + csv_line(posted)
    assert text.endswith("\r\n")
    head, cells = csv.reader(io.StringIO(text, newline=""))
    told = dict(zip(head, cells, strict=True))
    assert tuple(head) == CSV_COLUMNS
    assert told["amount"] == "12.345678901" and told["approvers"] == "ann" and told["risk"] == "0.1000"
    assert told["reason"].removeprefix("'") == posted.reason.removeprefix("'")
    assert told["mission"].removeprefix("'") == mission
    assert not any(cell.lstrip(" ").startswith(("=", "+", "-", "@")) for cell in cells)
    assert told["time_utc"] == "2026-11-02T00:00:00.000005+00:00"


def test_json_is_read_back_as_it_was() -> None:
    story = filled()
    story.pay(NANO, "ann", mission="m1")
    told = story.told(outcomes={"m1": MissionOutcome(tasks_done=3, value=5 * NANO)})
    assert Statement.model_validate_json(told.model_dump_json()) == told
    assert isinstance(told.transfers[0], PostedTransfer) and isinstance(transfer(story.ask(1)), Transfer)
