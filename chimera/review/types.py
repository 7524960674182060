"""What is asked, what becomes of it, and what refuses it: the data of the review queue."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field, JsonValue

from chimera.core.hashing import canonical_json, digest
from chimera.core.types import Frozen, Name, Share

MAX_PAYLOAD_BYTES = 256_000
"""Of canonical JSON, in a proposal and in each edit of it."""

MAX_EDITS = 16
"""Of one item."""

MAX_EVENTS = 200
"""Of one item, after which it can be decided but no more claimed or passed on."""

MAX_LEASE_S = 86_400.0
MAX_WAIT_S = 366 * 86_400.0

Confidence = Annotated[float, Field(strict=True, ge=0.0, le=1.0, allow_inf_nan=False)]
"""From 0 to 1. Strict: True is no certainty, and "1" is no number."""

Usd = Annotated[float, Field(strict=True, ge=0.0, allow_inf_nan=False)]

Duration = Annotated[float, Field(gt=0.0, le=MAX_WAIT_S, allow_inf_nan=False)]
"""Seconds, of which people need more than a day at times."""

Text = Annotated[str, Field(min_length=1, max_length=2_000)]
"""What a person writes to others: a reason."""


class Proposal(Frozen):
    """Something that an agent wants to do, or to say, and how sure it is.

    `key` names it: the same key is the same proposal, however often it is asked. `asker` and `agents` (who made it)
    never decide on it. `usd` is the money that it moves; `audience` says whether those whom it is published to have
    been published to before. Where that is not told although the kind needs it, a person is asked. `subject` is what
    the skill is called that it was made with, for the agents' reputation.
    """

    key: Annotated[str, Field(min_length=1, max_length=256)]
    kind: Name
    summary: Annotated[str, Field(min_length=1, max_length=500)]
    payload: JsonValue
    confidence: Confidence
    asker: Name
    agents: Annotated[tuple[Name, ...], Field(max_length=64)] = ()
    subject: Annotated[str, Field(max_length=128)] = ""
    mission: Annotated[str, Field(max_length=128)] = ""
    usd: Usd | None = None
    audience: Literal["known", "new"] | None = None

    def same_act(self, other: Proposal) -> bool:
        """Whether both would do the same: how sure, and how it is summed up, may have changed meanwhile."""
        mine, theirs = ((p.kind, canonical_json(p.payload), p.usd, p.audience) for p in (self, other))
        return mine == theirs


def item_id(queue: str, key: str) -> str:
    """The id of the item that asks about `key`: 32 hex digits."""
    return digest([queue, key])


class Route(StrEnum):
    """Where a proposal goes, the least strict first."""

    AUTOMATIC = "automatic"
    """It goes on."""
    MONITORED = "monitored"
    """It goes on, and people are told."""
    PERSON = "person"
    """It waits for a person."""


class Ground(StrEnum):
    """Why a proposal takes its route."""

    CONFIDENCE = "confidence"
    CRITICAL = "critical"
    UNKNOWN_KIND = "unknown_kind"


class Routing(Frozen):
    """What the policy makes of a proposal, fixed when it is asked: a later policy does not change what waits.

    `check_share` is the chance with which one that goes on is shown to a person all the same. `approvals` different
    people have to agree, of `group` ("" is everybody). It is passed on to `escalate_to` after `escalate_after_s`.
    """

    route: Route
    ground: Ground
    why: str
    check_share: Share = 0.0
    approvals: Annotated[int, Field(ge=1, le=2)] = 1
    group: Name | Literal[""] = ""
    expires_after_s: Duration
    escalate_after_s: Duration | None = None
    escalate_to: Name | Literal[""] = ""
    editable: bool = True


class State(StrEnum):
    """Where an item stands. All but the first are ends."""

    WAITING = "waiting"
    APPROVED = "approved"
    EDITED = "edited"
    """Approved as a person has changed it."""
    REJECTED = "rejected"
    EXPIRED = "expired"
    """Nobody decided in time, which is a refusal."""
    WITHDRAWN = "withdrawn"

    @property
    def ended(self) -> bool:
        return self is not State.WAITING


Verdict = Literal["approved", "edited", "rejected"]
"""What people decide."""


class Claim(Frozen):
    """Who has taken an item for a while. After `until_s` (seconds since the epoch) anybody may."""

    by: Name
    until_s: float

    def holds(self, now: float) -> bool:
        return now < self.until_s


class Edit(Frozen):
    """A version of the payload, by a person."""

    by: Name
    at_s: float
    payload: JsonValue


class Ending(Frozen):
    """Who ended it, when (seconds since the epoch), and why. `by` is empty where a limit or the policy did."""

    by: str
    at_s: float
    reason: str = ""


class Item(Frozen):
    """A proposal on its way through review. Made by `chimera.review.state.evolve` from events, and by nothing else.

    `check` marks one that has gone on already and is looked at afterwards, to learn how often that is right. `edits`
    are all versions after the proposed one; `approvers` have agreed to the last. `seqs` are its events' in the stream.
    """

    id: str
    proposal: Proposal
    routing: Routing
    check: bool = False
    asked_at_s: float
    expires_at_s: float
    escalates_at_s: float | None = None
    group: Name | Literal[""] = ""
    state: State = State.WAITING
    claim: Claim | None = None
    edits: tuple[Edit, ...] = ()
    approvers: tuple[Name, ...] = ()
    ending: Ending | None = None
    seqs: tuple[int, ...] = ()

    @property
    def version(self) -> int:
        """0 is what was proposed, 1 the first edit."""
        return len(self.edits)

    @property
    def payload(self) -> JsonValue:
        """As it stands now: what is approved is this."""
        return self.edits[-1].payload if self.edits else self.proposal.payload

    @property
    def may_go_on(self) -> bool:
        """Whether the asker may do it. What went on at once stays so, whatever a check says afterwards."""
        return self.routing.route is not Route.PERSON or self.state in (State.APPROVED, State.EDITED)


class Refusal(StrEnum):
    """Why a command was not carried out."""

    NOT_A_REVIEWER = "not_a_reviewer"
    OWN = "own"
    CLAIMED = "claimed"
    ENDED = "ended"
    EXPIRED = "expired"
    CHANGED = "changed"
    NOT_EDITABLE = "not_editable"
    OTHER_KEY = "other_key"
    NO_GROUP = "no_group"
    FULL = "full"


class Refused(Frozen):
    """An expected no, and nothing was changed. `message` says what to do."""

    reason: Refusal
    message: str
