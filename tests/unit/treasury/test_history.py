"""What the history learns from the ledger's rows, and that it forgets within its bounds."""

from __future__ import annotations

import math
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chimera.treasury import history as module
from chimera.treasury.history import HALF_LIFE_US, SLOT_US, Flow, History, Lately, Pace, Usual
from chimera.treasury.rows import AnyRow
from chimera.treasury.types import (
    DAY_US,
    NANO,
    Account,
    AccountKind,
    Approval,
    CfoDecision,
    PaymentRequest,
    Transfer,
    TransferKind,
)

HOUR = DAY_US // 24
START = 1_790_000_000_000_000
NEVER = 2**53


class Told:
    """A history, and rows to tell it."""

    def __init__(self) -> None:
        self.history = History()
        self.at = START
        for name, kind in (("cash", "fund"), ("mission", "fund"), ("acme", "outside"), ("model", "metered")):
            self.take(Account(id=name, kind=AccountKind(kind)))

    def take(self, row: AnyRow) -> None:
        self.history.take(row, self.at)

    def ask(self, name: str, amount: int = NANO, **fields: object) -> PaymentRequest:
        told = {"debit": "cash", "credit": "acme", "category": "any", "requester": "a", "expires_at": NEVER, **fields}
        request = PaymentRequest(id=name, amount=amount, **told)
        self.take(request)
        return request

    def pay(self, name: str, amount: int = NANO, **fields: object) -> PaymentRequest:
        request = self.ask(name, amount, **fields)
        self.move(name, amount)
        return request

    def move(self, name: str, amount: int, kind: str = "posted") -> None:
        self.take(Transfer(id=f"{kind}-{name}", kind=TransferKind(kind), request_id=name, amount=amount))

    def say(self, name: str, verdict: str, approver: str = "") -> None:
        said = {"request_id": name, "request_digest": "0" * 64, "at": 0, "verdict": verdict}
        if approver:
            self.take(Approval(approver=approver, expires_at=self.at + HOUR, **said))
        else:
            self.take(CfoDecision(risk=0.0, **said))

    def beside(self, request: PaymentRequest) -> int:
        return self.history.beside(self.history.asked(request, self.at))


def test_which_way_money_goes() -> None:
    told = Told()
    flows = [("cash", "acme"), ("cash", "mission"), ("cash", "model"), ("acme", "cash"), ("nobody", "stranger")]
    found = [told.history.flow(told.ask(f"{a}-{b}", debit=a, credit=b)) for a, b in flows]
    assert found == [Flow.SPEND, Flow.INTERNAL, Flow.METERED, Flow.INCOME, Flow.SPEND]


def test_habits_are_learnt_from_what_was_carried_out_and_once() -> None:
    told = Told()
    request = told.ask("one", 8 * NANO)
    asked = told.history.asked(request, told.at)
    assert told.history.payees.habits_of(asked).count == 0, "asking teaches nothing"
    told.move("one", 8 * NANO, "pending")
    told.move("one", 8 * NANO, "post")
    told.move("unknown", NANO)
    habits = told.history.payees.habits_of(asked)
    assert (habits.count, habits.begun, habits.last_at) == (1, told.at, told.at)
    assert habits.amounts.mean == pytest.approx(math.log(8 * NANO))


def test_one_payment_out_of_line_moves_the_usual_little() -> None:
    usual = Usual()
    for _ in range(100):
        usual.learn(1.0)
    usual.learn(40.0)
    assert usual.mean < 1.05
    for _ in range(300):
        usual.learn(2.0)
    assert usual.mean == pytest.approx(2.0, abs=0.05), "growth is followed"


@given(st.lists(st.tuples(st.integers(0, 10 * HOUR), st.integers(1, 100)), max_size=60))
def test_what_was_asked_for_within_a_time_is_never_counted_too_low(steps: list[tuple[int, int]]) -> None:
    pace, at, every = Pace(), START, []
    for later, amount in steps:
        at += later
        pace.add(at, amount)
        every.append((at, amount))
        for length in (HOUR, DAY_US):
            within = [each for when, each in every if when > at - length]
            longer = [each for when, each in every if when > at - length - 2 * SLOT_US]
            count, total = pace.within(at, length)
            assert len(within) <= count <= len(longer)
            assert sum(within) <= total <= sum(longer)
    assert len(pace.slots) <= module.SLOTS


def test_a_usual_day_leaves_out_the_last_one() -> None:
    pace, at = Pace(), START
    for _ in range(60):
        at += DAY_US
        for _ in range(4):
            pace.add(at, 10)
    for _ in range(100):
        pace.add(at, 10)
    count, amount = pace.daily(at)
    assert 3.0 < count < 4.5 and 30 < amount < 45
    assert pace.daily(at + 10 * HALF_LIFE_US)[0] < 0.1


def test_what_nobody_approved_is_added_up_as_the_ledger_does() -> None:
    told = Told()
    told.pay("one", 30, mission="m")
    told.pay("two", 5, credit="model", mission="m")
    told.pay("three", 7, credit="mission", mission="m")
    told.ask("four", 1_000, mission="m")
    told.say("four", "approved", approver="ann")
    told.move("four", 1_000)
    probe = told.ask("probe", 1, credit="globex", mission="m")
    assert told.beside(probe) == 37, "neither what is metered nor what a person approved"
    assert told.beside(told.ask("other", 1)) == 30, "to acme"
    assert told.beside(told.ask("elsewhere", 1, credit="globex")) == 0
    late = told.ask("late", 500, mission="m")
    told.say("late", "approved", approver="ann")
    told.at += HOUR
    told.move("late", 500, "pending")
    assert told.beside(probe) == 537, "the approval has expired"
    told.move("late", 100, "post")
    assert told.beside(probe) == 137, "the rest was let go"
    assert told.beside(late) == 37, "less itself"
    told.at += DAY_US + SLOT_US
    told.ask("later", 1)
    assert told.beside(probe) == 0


def test_what_was_refused_or_let_go_is_no_payment_that_came_before() -> None:
    told = Told()
    for name in ("kept", "refused", "void", "disliked", "asked-again"):
        told.ask(name)
    told.say("refused", "refused")
    told.say("disliked", "refused", approver="ann")
    told.say("asked-again", "refused")
    told.say("asked-again", "ask")
    told.move("void", NANO, "pending")
    told.move("void", 0, "void")
    probe = told.history.asked(told.ask("probe"), told.at)
    assert [each.id for each in told.history.payees.before(probe)] == ["asked-again", "kept"]
    first = told.history.asked(told.ask("kept"), told.at)
    assert told.history.payees.before(first) == [], "only what came before it"
    assert told.history.refused[("a", "USD")].within(told.at, HOUR)[0] == 3


def test_time_is_the_ledgers_and_does_not_go_back() -> None:
    told = Told()
    filed = told.ask("filed")
    told.at -= 3 * DAY_US
    told.ask("back")
    assert told.history.asked(filed, at=0).at == START
    assert told.history.asked(filed, at=NEVER).at == START
    stranger = filed.model_copy(update={"id": "other"})
    assert told.history.asked(stranger, at=0).at == START
    assert told.history.asked(stranger, at=START + 5).at == START + 5


def test_whoever_was_not_heard_of_for_longest_is_forgotten() -> None:
    lately = Lately(lambda: [0], limit=2)
    for name in ("a", "b", "a", "c"):
        lately.use((name, "USD"))[0] += 1
    assert dict(lately) == {("a", "USD"): [2], ("c", "USD"): [1]}


def test_everything_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, limit in (("REQUESTS", 50), ("ACCOUNTS", 40)):
        monkeypatch.setattr(module, name, limit)
    told = Told()
    for number in range(3_000):
        told.take(Account(id=f"p{number}", kind=AccountKind.OUTSIDE))
        told.pay(f"r{number}", credit=f"p{number}", requester=f"a{number}", mission=f"m{number}", category=f"c{number}")
    history = told.history
    assert len(history._asked) == 50 and len(history._kinds) == 40
    for subjects in (history.payees, history.requesters, history.missions, history.categories):
        for kept in (subjects.habits, subjects.recent, subjects.pace, subjects.unapproved):
            assert len(kept) <= module.SUBJECTS
    for number in range(200):
        told.pay(f"s{number}", category=f"d{number}")
    assert len(history.payees.recent[("acme", "USD")]) == module.RECENT
    assert len(history.payees.habits[("acme", "USD")].categories) == module.PARTNERS


def test_the_same_rows_make_the_same_history() -> None:
    def state(seed: int) -> str:
        told, rng = Told(), Random(seed)
        for number in range(200):
            told.at += rng.randrange(HOUR)
            told.pay(f"r{number}", rng.randrange(1, 10**12), requester=f"a{number % 3}")
        return repr([told.history.payees.habits, told.history.requesters.pace])

    assert state(1) == state(1) != state(2)
