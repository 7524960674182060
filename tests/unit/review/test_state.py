"""One item: whatever people try, in whatever order, it is decided once, by who may, and stays so."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chimera.core.errors import StorageError
from chimera.core.events import EventKind
from chimera.review import commands as c
from chimera.review.policy import ReviewPolicy
from chimera.review.state import decide, evolve
from chimera.review.types import Item, Proposal, Refusal, Refused, State, item_id
from tests.unit.review.made import POLICY, proposal

ID = item_id("main", "k")
WEEK_S = 7 * 86_400.0


class Desk:
    """One item, under a clock that is set by hand."""

    def __init__(self, asked: Proposal | None = None, policy: ReviewPolicy = POLICY, dice: float = 1.0) -> None:
        self.policy, self.now, self.seq = policy, 1000.0, 0
        self.item: Item | None = None
        self.facts: list[tuple[EventKind, dict[str, Any], float]] = []
        self.do(c.Ask(item=ID, proposal=asked or proposal(), dice=dice))

    @property
    def it(self) -> Item:
        assert self.item is not None
        return self.item

    def do(self, command: c.Command) -> Refusal | None:
        outcome = decide(self.item, command, now=self.now, policy=self.policy)
        if isinstance(outcome, Refused):
            return outcome.reason
        for fact in outcome:
            self.seq += 1
            self.item = evolve(self.item, fact.kind, fact.data, at_s=self.now, seq=self.seq, id=ID)
            self.facts.append((fact.kind, fact.data, self.now))
        return None


def claim(by: str) -> c.Claim:
    return c.Claim(item=ID, by=by)


def approve(by: str, version: int | None = None) -> c.Approve:
    return c.Approve(item=ID, by=by, version=version)


def reject(by: str, reason: str = "no") -> c.Reject:
    return c.Reject(item=ID, by=by, reason=reason)


def edit(by: str, text: str) -> c.EditAndApprove:
    return c.EditAndApprove(item=ID, by=by, payload={"text": text})


def test_a_claim_keeps_others_off_until_it_is_over_or_given_back() -> None:
    desk = Desk()
    assert desk.do(claim("ann")) is None
    assert desk.do(claim("bob")) is desk.do(approve("bob")) is desk.do(reject("bob")) is Refusal.CLAIMED
    desk.now += POLICY.lease_s - 1
    assert desk.do(claim("ann")) is None, "who has it may keep it"
    desk.now += POLICY.lease_s - 1
    assert desk.do(claim("bob")) is Refusal.CLAIMED
    desk.do(c.Release(item=ID, by="bob"))
    assert desk.do(claim("bob")) is Refusal.CLAIMED, "only who has it gives it back"
    desk.now += 1
    assert desk.do(claim("bob")) is None, "the lease is over"
    desk.do(c.Release(item=ID, by="bob"))
    assert desk.do(approve("cleo")) is None


def test_the_same_again_is_fine_and_anything_else_comes_too_late() -> None:
    desk = Desk()
    assert desk.do(approve("ann")) is desk.do(approve("ann")) is None
    assert desk.do(reject("ann")) is desk.do(approve("bob")) is desk.do(claim("bob")) is Refusal.ENDED
    assert desk.do(edit("ann", "other")) is Refusal.ENDED
    assert (desk.it.state, len(desk.facts)) == (State.APPROVED, 2)


@pytest.mark.parametrize("who", ["writer", "Writer", "poet"])
def test_nobody_decides_what_they_asked_for_or_made(who: str) -> None:
    policy = POLICY.model_copy(update={"reviewers": {**POLICY.reviewers, who: ("editors",)}})
    desk = Desk(proposal(agents=("poet",)), policy)
    assert desk.do(claim(who)) is desk.do(approve(who)) is desk.do(reject(who)) is Refusal.OWN


def test_only_reviewers_of_its_group_decide() -> None:
    desk = Desk(proposal(kind="contract"))
    assert desk.do(approve("mallory")) is desk.do(approve("cleo")) is Refusal.NOT_A_REVIEWER
    passed = c.Escalate(item=ID, by="bob", to="leads", reason="?")
    assert desk.do(passed) is None
    assert desk.do(approve("bob")) is Refusal.NOT_A_REVIEWER, "it is the leads' now"
    assert desk.do(approve("cleo")) is None
    assert desk.do(c.Escalate(item=ID, by="cleo", to="nobody", reason="?")) is Refusal.NO_GROUP


def test_four_eyes_are_two_people() -> None:
    desk = Desk(proposal(kind="contract"))
    assert desk.do(approve("ann")) is desk.do(approve("ann")) is None
    assert (desk.it.state, len(desk.facts)) == (State.WAITING, 2), "the same person twice is one"
    assert desk.do(approve("bob")) is None
    assert (desk.it.state, desk.it.approvers) == (State.APPROVED, ("ann", "bob"))


def test_an_edit_takes_back_what_others_agreed_to_before() -> None:
    desk = Desk(proposal(kind="contract"))
    desk.do(approve("ann"))
    assert desk.do(edit("bob", "Hi")) is None
    assert (desk.it.state, desk.it.approvers) == (State.WAITING, ("bob",))
    assert desk.do(approve("ann")) is desk.do(approve("ann", 0)) is Refusal.CHANGED, "she has seen another text"
    assert desk.do(approve("ann", 1)) is None
    assert (desk.it.state, desk.it.payload) == (State.EDITED, {"text": "Hi"})
    assert desk.it.proposal.payload == {"text": "Hello"}, "what was proposed is kept"


def test_what_must_not_be_edited_is_not() -> None:
    desk = Desk(proposal(kind="payment", usd=80.0))
    assert desk.do(edit("ann", "more")) is Refusal.NOT_EDITABLE
    assert Desk().do(edit("ann", "Hello")) is Refusal.CHANGED, "nothing was changed"


def test_time_passes_it_on_and_then_refuses_it() -> None:
    policy = POLICY.model_copy(update={"escalate_after_s": 60.0, "escalate_to": "leads"})
    desk = Desk(policy=policy)
    tick = c.Tick(item=ID)
    desk.do(tick)
    assert len(desk.facts) == 1
    desk.now += 60
    desk.do(tick)
    desk.do(tick)
    assert (desk.it.group, len(desk.facts)) == ("leads", 2)
    desk.now += WEEK_S
    assert desk.do(approve("ann")) is Refusal.EXPIRED, "though nobody has written down that it is"
    desk.do(tick)
    assert (desk.it.state, desk.it.may_go_on) == (State.EXPIRED, False)
    assert desk.do(approve("ann")) is Refusal.ENDED


def test_only_who_asked_takes_it_back() -> None:
    desk = Desk()
    assert desk.do(c.Withdraw(item=ID, by="ann")) is Refusal.OWN
    assert desk.do(c.Withdraw(item=ID, by="writer")) is desk.do(c.Withdraw(item=ID, by="writer")) is None
    assert desk.do(approve("ann")) is Refusal.ENDED


def test_a_check_is_looked_at_after_it_went_on() -> None:
    policy = POLICY.model_copy(update={"check_automatic": 0.25})
    assert Desk(proposal(confidence=0.99), policy, dice=0.25).it.state is State.APPROVED
    desk = Desk(proposal(confidence=0.99), policy, dice=0.2499)
    assert (desk.it.state, desk.it.check, desk.it.may_go_on) == (State.WAITING, True, True)
    assert desk.do(edit("ann", "x")) is Refusal.NOT_EDITABLE
    assert desk.do(c.Withdraw(item=ID, by="writer")) is Refusal.ENDED
    assert desk.do(reject("ann")) is None
    assert desk.it.may_go_on, "it has been done"


def test_a_key_names_one_proposal() -> None:
    desk = Desk()
    again = c.Ask(item=ID, proposal=proposal(confidence=0.99, summary="Other words"), dice=0.5)
    assert desk.do(again) is None
    assert (len(desk.facts), desk.it.proposal.confidence) == (1, 0.5)
    assert desk.do(c.Ask(item=ID, proposal=proposal(payload="other"), dice=0.5)) is Refusal.OTHER_KEY


@pytest.mark.parametrize("kind", [EventKind.REVIEW_DECIDED, EventKind.REVIEW_CLAIMED, EventKind.TASK_STARTED])
def test_a_journal_that_cannot_be_is_not_believed(kind: EventKind) -> None:
    with pytest.raises(StorageError, match="never asked"):
        evolve(None, kind, {}, at_s=0.0, seq=1, id=ID)
    desk = Desk()
    with pytest.raises(StorageError):
        evolve(desk.item, kind, {}, at_s=0.0, seq=2, id=ID)
    desk.do(reject("ann"))
    with pytest.raises(StorageError, match="had ended"):
        evolve(desk.item, kind, {"verdict": "approved", "by": "x", "reason": ""}, at_s=0.0, seq=3, id=ID)


PEOPLE = st.sampled_from(["ann", "bob", "cleo", "writer", "mallory"])
GROUPS = st.sampled_from(["leads", "editors"])
COMMANDS = st.one_of(
    st.builds(claim, PEOPLE),
    st.builds(approve, PEOPLE, st.none() | st.integers(0, 2)),
    st.builds(reject, PEOPLE),
    st.builds(edit, PEOPLE, st.sampled_from(["a", "b"])),
    st.builds(lambda by: c.Release(item=ID, by=by), PEOPLE),
    st.builds(lambda by, to: c.Escalate(item=ID, by=by, to=to, reason="?"), PEOPLE, GROUPS),
    st.builds(lambda by: c.Withdraw(item=ID, by=by), PEOPLE),
    st.just(c.Tick(item=ID)),
)


@given(
    st.lists(st.tuples(COMMANDS, st.sampled_from([0.0, 1.0, 1000.0, WEEK_S])), max_size=25),
    st.sampled_from(["answer", "contract", "security_policy"]),
)
def test_whatever_is_tried_it_is_decided_once_by_who_may(steps: list[tuple[c.Command, float]], kind: str) -> None:
    desk = Desk(proposal(kind=kind, confidence=1.0 if kind != "answer" else 0.1))
    for command, pause_s in steps:
        before = desk.it
        desk.do(command)
        if before.state.ended:
            assert desk.it == before
        desk.now += pause_s
    ends = [kind for kind, data, _ in desk.facts if kind in ENDS]
    assert len(ends) == desk.it.state.ended
    if desk.it.may_go_on:
        assert len({*desk.it.approvers}) >= (2 if kind == "contract" else 1)
        assert not {"writer", "mallory"} & {*desk.it.approvers}
    if desk.it.state is State.REJECTED:
        assert desk.it.ending is not None and desk.it.ending.by in POLICY.reviewers
    again: Item | None = None
    for seq, (fact, data, at_s) in enumerate(desk.facts, 1):
        again = evolve(again, fact, data, at_s=at_s, seq=seq, id=ID)
    assert again == desk.item, "what is read back is what was"


ENDS = (EventKind.REVIEW_DECIDED, EventKind.REVIEW_EXPIRED, EventKind.REVIEW_WITHDRAWN)
