"""How the review queue looks in a terminal."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from datetime import UTC, datetime

import yaml

from chimera.cli import render
from chimera.cli.arena.command import ago, one_line, table
from chimera.review.calibrate import Calibration, Proposed
from chimera.review.notices import Notice
from chimera.review.policy import ReviewPolicy
from chimera.review.types import Item, Refused, State

ID_CHARS = 12
"""Of an id, in a list: as good as unique."""

STYLES = {State.APPROVED: "green", State.EDITED: "green", State.WAITING: "yellow", State.WITHDRAWN: "dim"}


def items(found: Sequence[Item], *, as_json: bool) -> None:
    """One line each."""
    if as_json:
        for each in found:
            render.line(render.to_line(_document(each)))
        return
    if not found:
        render.note("nothing waits for a person")
        return
    now = time.time()
    heads = ("item", "kind", "confidence", "group", "claimed by", "approved by", "since", "left", "summary")
    table(heads, [_row(each, now) for each in found])


def item(found: Item, *, as_json: bool, whole: bool = False) -> None:
    """What has become of one; `whole`: with what is proposed, and what people said."""
    if as_json:
        render.line(render.to_line(_document(found)))
        return
    proposal = found.proposal
    check = " (a check: it has gone on already)" if found.check else ""
    state = (found.state.value, STYLES.get(found.state, "red"))
    render.say(state, f"  {found.id}: {one_line(proposal.summary)}", (check, "dim"))
    render.say((f"{found.routing.route.value}: {one_line(found.routing.why)}", "dim"))
    if found.ending is not None and found.ending.reason and found.ending.by:
        render.say((f"{found.ending.by}: ", "dim"), one_line(found.ending.reason))
    if found.state is State.WAITING and found.approvers:
        render.note(f"approved by {', '.join(found.approvers)}; one more has to")
    if not whole:
        return
    told = {
        "kind": proposal.kind,
        "confidence": f"{proposal.confidence:g}",
        "asked by": proposal.asker,
        "made by": ", ".join(proposal.agents),
        "group": found.group,
        "claimed by": f"{found.claim.by} until {moment(found.claim.until_s)}" if found.claim else "",
        "asked": moment(found.asked_at_s),
        "expires": moment(found.expires_at_s) if found.state is State.WAITING else "",
        "ended": moment(found.ending.at_s) if found.ending else "",
        "ended by": found.ending.by if found.ending else "",
    }
    for name, value in told.items():
        if value:
            render.say((f"{name}: ", "dim"), one_line(value))
    _version("proposed", proposal.payload)
    for number, edit in enumerate(found.edits, 1):
        _version(f"version {number}, by {edit.by}", edit.payload)


def refused(answer: Refused, *, as_json: bool) -> None:
    """Why not."""
    if as_json:
        render.line(render.to_line({"refused": answer.reason.value, "message": answer.message}))
    else:
        render.say(("refused", "red"), f"  {one_line(answer.message)}")


def notice(found: Notice) -> None:
    """One line."""
    by = f" by {found.by}" if found.by else ""
    what = found.type.removeprefix("review.")
    render.say((moment(found.at_s), "dim"), f"  {what}{by}  {found.item[:ID_CHARS]}  {one_line(found.summary)}")


def calibration(made: Calibration, *, as_json: bool) -> None:
    """The reliability table, and what is proposed."""
    if as_json:
        render.line(render.to_line(made.model_dump(mode="json")))
        return
    render.say((f"{made.labelled} of {made.count} proposals have been decided by people", "bold"))
    if made.ece is not None and made.brier is not None:
        render.say(f"calibration error {made.ece:.3f}, Brier score {made.brier:.3f} (0 is best for both)")
    rows = []
    for each in made.bins:
        share = "" if each.approved is None else f"{each.approved:.1%}"
        band = "" if each.interval is None else f"{each.interval[0]:.1%} to {each.interval[1]:.1%}"
        mean = "" if each.confidence is None else f"{each.confidence:.1%}"
        rows.append((f"{each.low:.1f} to {each.high:.1f}", str(each.count), str(each.labelled), mean, share, band))
    table(("confidence", "proposals", "decided", "mean", "agreed to", "at 95 %"), rows)
    _proposed("automatic_above", made.automatic)
    _proposed("person_below", made.person)


def policy(found: ReviewPolicy, *, as_json: bool) -> None:
    """All of it."""
    document = found.model_dump(mode="json")
    if as_json:
        render.line(render.to_line(document))
    else:
        render.line(yaml.safe_dump(document, sort_keys=False).rstrip())


def moment(at_s: float) -> str:
    """A time, UTC."""
    return datetime.fromtimestamp(min(max(at_s, 0.0), 253_402_300_799.0), UTC).strftime("%Y-%m-%d %H:%M:%S")


def _document(found: Item) -> dict[str, object]:
    return {**found.model_dump(mode="json"), "may_go_on": found.may_go_on, "version": found.version}


def _row(each: Item, now: float) -> tuple[str, ...]:
    claimed = each.claim.by if each.claim and each.claim.holds(now) else ""
    return (
        each.id[:ID_CHARS],
        each.proposal.kind + (" (check)" if each.check else ""),
        f"{each.proposal.confidence:.2f}",
        each.group,
        claimed,
        ", ".join(each.approvers),
        ago(now - each.asked_at_s),
        ago(each.expires_at_s - now),
        each.proposal.summary,
    )


def _version(name: str, payload: object) -> None:
    render.say((f"{name}:", "dim"))
    text = payload if isinstance(payload, str) else json.dumps(payload, ensure_ascii=False, indent=2)
    for line in text.splitlines():
        render.say("    ", line.expandtabs())


def _proposed(name: str, made: Proposed) -> None:
    value = "none" if made.threshold is None else f"{made.threshold:g}"
    style = "green" if made.threshold is not None else "yellow"
    render.say((f"{name}: {value}", style), f"  for at most {made.wanted:.1%} errors: {made.why}")
