"""The state machine of one item (pure): `decide` turns a command into facts or a refusal, `evolve` a fact into state.

Deciding reads the policy; evolving reads nothing but the fact, so that a queue read back from its journal is the queue
that was written, whatever the policy says by then (the decider pattern: J. Chassaing, "Functional Event Sourcing
Decider", 2021).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from chimera.core.errors import StorageError
from chimera.core.events import EventKind
from chimera.review import commands as c
from chimera.review.policy import ReviewPolicy, route
from chimera.review.types import (
    MAX_EDITS,
    MAX_EVENTS,
    Claim,
    Edit,
    Ending,
    Item,
    Proposal,
    Refusal,
    Refused,
    Route,
    Routing,
    State,
)


@dataclass(frozen=True, slots=True)
class Fact:
    """What happened to an item, before it has a place in the stream."""

    kind: EventKind
    data: dict[str, Any]


Facts = tuple[Fact, ...]

_NOTHING: Facts = ()
_AGREED = (State.APPROVED, State.EDITED)


def decide(item: Item | None, command: c.Command, *, now: float, policy: ReviewPolicy) -> Facts | Refused:
    """What happens when somebody wants that: nothing where it has happened already. `now` is seconds since the epoch.

    Raises ValueError for anything but an Ask where there is no item.
    """
    if isinstance(command, c.Ask):
        return _ask(item, command, now, policy)
    if item is None:
        raise ValueError(f"there is no item {command.item}")
    match command:
        case c.Tick():
            return _tick(item, now)
        case c.Withdraw():
            return _withdraw(item, command)
        case c.Release():
            held = item.claim is not None and item.claim.by == command.by
            return (Fact(EventKind.REVIEW_RELEASED, {"by": command.by}),) if held else _NOTHING
    if (refused := _may_not(item, command, now, policy)) is not None:
        return refused
    match command:
        case c.Claim():
            return (Fact(EventKind.REVIEW_CLAIMED, {"by": command.by, "until_s": now + policy.lease_s}),)
        case c.Escalate():
            return _escalate(item, command, policy)
        case c.Approve():
            return _approve(item, command)
        case c.Reject():
            return (_decided(item, State.REJECTED, command.by, command.reason),)
        case c.EditAndApprove():
            return _edit(item, command)


def evolve(item: Item | None, kind: EventKind, data: dict[str, Any], *, at_s: float, seq: int, id: str) -> Item:
    """The item after a fact that is in the stream as `seq`, of the time `at_s`. Raises StorageError if it cannot be."""
    try:
        if kind is EventKind.REVIEW_ASKED:
            if item is not None:
                raise ValueError("it was asked before")
            return _asked(data, at_s, seq, id)
        if item is None:
            raise ValueError("it was never asked")
        if item.state.ended:
            raise ValueError(f"it had ended: {item.state}")
        return item.model_copy(update={**_change(item, kind, data, at_s), "seqs": (*item.seqs, seq)})
    except (ValidationError, ValueError, KeyError, TypeError) as error:
        raise StorageError(f"review item {id}: event {seq} ({kind}) cannot be: {error}") from error


def _asked(data: dict[str, Any], at_s: float, seq: int, id: str) -> Item:
    routing = Routing.model_validate(data["routing"])
    check = bool(data["check"])
    goes_on = routing.route is not Route.PERSON and not check
    waits = routing.escalate_after_s
    return Item(
        id=id,
        proposal=Proposal.model_validate(data["proposal"]),
        routing=routing,
        check=check,
        asked_at_s=at_s,
        expires_at_s=at_s + routing.expires_after_s,
        escalates_at_s=None if waits is None else at_s + waits,
        group=routing.group,
        state=State.APPROVED if goes_on else State.WAITING,
        ending=Ending(by="", at_s=at_s, reason=routing.why) if goes_on else None,
        seqs=(seq,),
    )


def _change(item: Item, kind: EventKind, data: dict[str, Any], at_s: float) -> dict[str, Any]:
    match kind:
        case EventKind.REVIEW_CLAIMED:
            return {"claim": Claim(by=data["by"], until_s=data["until_s"])}
        case EventKind.REVIEW_RELEASED:
            return {"claim": None}
        case EventKind.REVIEW_EDITED:
            edit = Edit(by=data["by"], at_s=at_s, payload=data["payload"])
            return {"edits": (*item.edits, edit), "approvers": (data["by"],), "claim": None}
        case EventKind.REVIEW_VOTED:
            return {"approvers": (*item.approvers, data["by"]), "claim": None}
        case EventKind.REVIEW_ESCALATED:
            return {"group": data["to"], "claim": None, "escalates_at_s": None}
        case EventKind.REVIEW_DECIDED:
            state = State(data["verdict"])
            approvers = (*item.approvers, data["by"]) if state in _AGREED else item.approvers
            return {"approvers": tuple(dict.fromkeys(approvers)), **_end(state, data["by"], at_s, data["reason"])}
        case EventKind.REVIEW_EXPIRED:
            return _end(State.EXPIRED, "", at_s, data["reason"])
        case EventKind.REVIEW_WITHDRAWN:
            return _end(State.WITHDRAWN, data["by"], at_s, data["reason"])
        case _:
            raise ValueError("it is no event of a review")


def _end(state: State, by: str, at_s: float, reason: str) -> dict[str, Any]:
    return {"state": state, "claim": None, "ending": Ending(by=by, at_s=at_s, reason=reason)}


def _ask(item: Item | None, command: c.Ask, now: float, policy: ReviewPolicy) -> Facts | Refused:
    if item is not None:
        if item.proposal.same_act(command.proposal):
            return _NOTHING
        told = f"{command.proposal.key} is the key of another proposal already: give each its own"
        return Refused(reason=Refusal.OTHER_KEY, message=told)
    routing = route(command.proposal, policy)
    check = routing.route is not Route.PERSON and command.dice < routing.check_share
    data = {
        "proposal": command.proposal.model_dump(mode="json"),
        "routing": routing.model_dump(mode="json"),
        "check": check,
    }
    return (Fact(EventKind.REVIEW_ASKED, data),)


def _may_not(item: Item, command: c.Command, now: float, policy: ReviewPolicy) -> Facts | Refused | None:
    """What keeps a person from touching the item; no facts where it is as they want it already, None where nothing."""
    by: str = getattr(command, "by", "")
    if item.state.ended:
        return _afterwards(item, command, by)
    if not policy.decides(by, item.group):
        who = ", ".join(policy.members(item.group)[:10]) or "nobody"
        group = f" of {item.group}" if item.group else ""
        return Refused(reason=Refusal.NOT_A_REVIEWER, message=f"{by} is no reviewer{group}: the policy names {who}")
    own = {name.casefold() for name in (item.proposal.asker, *item.proposal.agents)}
    if by.casefold() in own:
        return Refused(reason=Refusal.OWN, message=f"{by} has asked for it or made it: somebody else decides")
    if now >= item.expires_at_s:
        return Refused(reason=Refusal.EXPIRED, message="nobody decided in time: it counts as refused; ask anew")
    if item.claim is not None and item.claim.by != by and item.claim.holds(now):
        left = item.claim.until_s - now
        return Refused(reason=Refusal.CLAIMED, message=f"{item.claim.by} has claimed it, for {left:.0f} s more")
    if isinstance(command, c.Claim | c.Escalate) and len(item.seqs) >= MAX_EVENTS:
        return Refused(reason=Refusal.FULL, message="it has been claimed and passed on too often: decide it now")
    return None


def _afterwards(item: Item, command: c.Command, by: str) -> Facts | Refused:
    """Saying what one has said is fine; anything else comes too late."""
    said = item.ending.by if item.ending else ""
    match command:
        case c.Approve():
            same = item.state in _AGREED and by in item.approvers and command.version in (None, item.version)
        case c.Reject():
            same = item.state is State.REJECTED and by == said
        case c.EditAndApprove():
            same = item.state is State.EDITED and item.edits[-1].by == by and item.payload == command.payload
        case _:
            same = False
    if same:
        return _NOTHING
    who = f" by {said}" if said else ""
    return Refused(reason=Refusal.ENDED, message=f"it has been {item.state}{who} already: that stands")


def _approve(item: Item, command: c.Approve) -> Facts | Refused:
    changed_by_other = bool(item.edits) and item.edits[-1].by != command.by
    if command.version != item.version and (command.version is not None or changed_by_other):
        told = f"it has been changed: look at it again, and approve version {item.version}"
        return Refused(reason=Refusal.CHANGED, message=told)
    if command.by in item.approvers:
        return _NOTHING
    return _agreed(item, command.by, edited=bool(item.edits), reason="")


def _edit(item: Item, command: c.EditAndApprove) -> Facts | Refused:
    if not item.routing.editable or item.check:
        what = "it went on as it was, and is only checked" if item.check else f"{item.proposal.kind} is not editable"
        return Refused(reason=Refusal.NOT_EDITABLE, message=f"{what}: approve or reject it")
    if item.edits and item.edits[-1].by == command.by and item.payload == command.payload:
        return _NOTHING
    if item.version >= MAX_EDITS:
        return Refused(reason=Refusal.FULL, message=f"it has been edited {MAX_EDITS} times: approve or reject it")
    if command.payload == item.payload:
        return Refused(reason=Refusal.CHANGED, message="nothing in it has changed: approve it instead")
    edited = Fact(EventKind.REVIEW_EDITED, {"by": command.by, "payload": command.payload})
    fresh = item.model_copy(update={"approvers": ()})  # others agreed to another text
    rest = _agreed(fresh, command.by, edited=True, reason=command.reason)
    return (edited, *(fact for fact in rest if fact.kind is EventKind.REVIEW_DECIDED))


def _agreed(item: Item, by: str, *, edited: bool, reason: str) -> Facts:
    """One more agrees: with enough of them it is decided."""
    if len({name.casefold() for name in (*item.approvers, by)}) < item.routing.approvals:
        return (Fact(EventKind.REVIEW_VOTED, {"by": by, "version": item.version}),)
    return (_decided(item, State.EDITED if edited else State.APPROVED, by, reason),)


def _decided(item: Item, verdict: State, by: str, reason: str) -> Fact:
    return Fact(EventKind.REVIEW_DECIDED, {"verdict": verdict.value, "by": by, "reason": reason, "about": about(item)})


def _escalate(item: Item, command: c.Escalate, policy: ReviewPolicy) -> Facts | Refused:
    if command.to == item.group:
        return _NOTHING
    if not policy.members(command.to):
        return Refused(
            reason=Refusal.NO_GROUP, message=f"nobody is in the group {command.to}: see the policy's reviewers"
        )
    data = {"by": command.by, "to": command.to, "reason": command.reason, "about": about(item)}
    return (Fact(EventKind.REVIEW_ESCALATED, data),)


def _withdraw(item: Item, command: c.Withdraw) -> Facts | Refused:
    if command.by != item.proposal.asker:
        return Refused(reason=Refusal.OWN, message=f"{item.proposal.asker} has asked, and alone can withdraw it")
    if item.state is State.WITHDRAWN:
        return _NOTHING
    if item.state.ended:
        return Refused(reason=Refusal.ENDED, message=f"it has been {item.state} already: that stands")
    if item.check:
        return Refused(reason=Refusal.ENDED, message="it went on already: there is nothing to take back")
    return (Fact(EventKind.REVIEW_WITHDRAWN, {"by": command.by, "reason": command.reason, "about": about(item)}),)


def _tick(item: Item, now: float) -> Facts:
    if item.state.ended:
        return _NOTHING
    if now >= item.expires_at_s:
        data = {"reason": "nobody decided in time", "about": about(item)}
        return (Fact(EventKind.REVIEW_EXPIRED, data),)
    if item.escalates_at_s is not None and now >= item.escalates_at_s:
        reason = "nobody decided so far"
        data = {"by": "", "to": item.routing.escalate_to, "reason": reason, "about": about(item)}
        return (Fact(EventKind.REVIEW_ESCALATED, data),)
    return _NOTHING


def about(item: Item) -> dict[str, Any]:
    """What whoever reads one event of it, and no other, needs to know: no payload."""
    proposal = item.proposal
    return {
        "key": proposal.key,
        "kind": proposal.kind,
        "summary": proposal.summary,
        "confidence": proposal.confidence,
        "agents": list(proposal.agents),
        "subject": proposal.subject,
        "mission": proposal.mission,
        "route": item.routing.route.value,
        "group": item.group,
        "check": item.check,
    }
