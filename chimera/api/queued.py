"""What the API tells of items that wait for people, and what people say of them.

A payload is somebody else's text. It is told as JSON, and once more as text to read and to edit: a browser would round
its large numbers, and characters that cannot be seen, or that turn others around, stand there by their numbers.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import ConfigDict, Field, JsonValue

from chimera.core.types import Frozen, Name
from chimera.review.types import MAX_EDITS, Ending, Ground, Item, Route, State, Text

MAX_GROUPS = 1_000
"""Kinds and groups that are counted apart."""

_HIDDEN = re.compile("[^\n\x20-\x7e]")


class Holder(Frozen):
    """Who has claimed an item, and until when (seconds since the epoch)."""

    by: str
    until_s: float


class QueueItem(Frozen):
    """An item without its payload. Times are seconds since the epoch.

    `decides`: the caller may say yes or no to it, now or once whoever holds it is done. `check`: it has gone on
    already, and is looked at afterwards. `version` 0 is what was proposed.
    """

    id: str
    seq: int
    kind: str
    summary: str
    confidence: float
    asker: str
    agents: tuple[str, ...]
    subject: str
    mission: str
    usd: float | None
    audience: str | None
    route: Route
    ground: Ground
    why: str
    check: bool
    state: State
    group: str
    asked_at_s: float
    expires_at_s: float
    approvals: int
    approvers: tuple[str, ...]
    version: int
    editable: bool
    holder: Holder | None
    ending: Ending | None
    decides: bool

    @classmethod
    def of(cls, item: Item, *, now: float, decides: bool) -> QueueItem:
        """As it is `now` (seconds since the epoch): a claim that has run out is none."""
        return cls(**_fields(item, now, decides))


class Version(Frozen):
    """Who has changed the payload, and when. What stood in between is in the journal."""

    by: str
    at_s: float


class QueueItemWhole(QueueItem):
    """All of an item. `text` is the payload as people read it, `proposed` that of version 0 where it was changed."""

    payload: JsonValue
    text: str
    proposed: str | None
    edits: Annotated[list[Version], Field(max_length=MAX_EDITS)]

    @classmethod
    def of(cls, item: Item, *, now: float, decides: bool) -> QueueItemWhole:
        return cls(
            **_fields(item, now, decides),
            payload=item.payload,
            text=readable(item.payload),
            proposed=readable(item.proposal.payload) if item.edits else None,
            edits=[Version(by=edit.by, at_s=edit.at_s) for edit in item.edits],
        )


class QueueStats(Frozen):
    """What waits: how many, since when the first one does, and of which kinds and groups ("" is everybody)."""

    waiting: int
    claimed: int
    oldest_s: float | None
    kinds: dict[str, int]
    groups: dict[str, int]

    @classmethod
    def of(cls, items: Sequence[Item], *, now: float) -> QueueStats:
        kinds, groups = (Counter(told) for told in ((i.proposal.kind for i in items), (i.group for i in items)))
        return cls(
            waiting=len(items),
            claimed=sum(_holder(item, now) is not None for item in items),
            oldest_s=min((item.asked_at_s for item in items), default=None),
            kinds=dict(kinds.most_common(MAX_GROUPS)),
            groups=dict(groups.most_common(MAX_GROUPS)),
        )


class ApproveItem(Frozen):
    """`version` is the one that was looked at: where somebody has changed it since, nothing is approved."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"version": 0}]})

    version: Annotated[int, Field(ge=0, le=MAX_EDITS)]


class RejectItem(Frozen):
    model_config = ConfigDict(json_schema_extra={"examples": [{"reason": "The second figure is wrong."}]})

    reason: Text


class EditItem(Frozen):
    """`payload` takes the place of the one at `version`, and is approved by whoever sends it."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"version": 0, "payload": {"text": "Dear Ada, ..."}, "reason": "Friendlier."}]}
    )

    version: Annotated[int, Field(ge=0, le=MAX_EDITS)]
    payload: JsonValue
    reason: Annotated[str, Field(max_length=2_000)] = ""


class EscalateItem(Frozen):
    """`to` is a group of the review policy."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"to": "leads", "reason": "I am not sure."}]})

    to: Name
    reason: Text


def readable(payload: JsonValue) -> str:
    """A payload as indented JSON in which everything can be seen."""
    return _HIDDEN.sub(_seen, json.dumps(payload, ensure_ascii=False, indent=1))


def _seen(found: re.Match[str]) -> str:
    letter = found[0]
    return json.dumps(letter)[1:-1] if unicodedata.category(letter) in ("Cc", "Cf", "Cs", "Zl", "Zp") else letter


def _holder(item: Item, now: float) -> Holder | None:
    claim = item.claim
    return Holder(by=claim.by, until_s=claim.until_s) if claim is not None and claim.holds(now) else None


def _fields(item: Item, now: float, decides: bool) -> dict[str, Any]:
    asked = item.proposal
    return {
        **asked.model_dump(exclude={"key", "payload"}),
        "id": item.id,
        "seq": item.seqs[0],
        "route": item.routing.route,
        "ground": item.routing.ground,
        "why": item.routing.why,
        "check": item.check,
        "state": item.state,
        "group": item.group,
        "asked_at_s": item.asked_at_s,
        "expires_at_s": item.expires_at_s,
        "approvals": item.routing.approvals,
        "approvers": item.approvers,
        "version": item.version,
        "editable": item.routing.editable and not item.check,
        "holder": _holder(item, now),
        "ending": item.ending,
        "decides": decides,
    }
