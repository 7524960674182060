"""What can be asked of the queue. Each is about one item; times are the clock's of whoever carries it out."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, JsonValue

from chimera.core.types import Frozen, Name
from chimera.review.types import Proposal, Text

ItemId = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]


class Ask(Frozen):
    """Have a proposal reviewed. `dice`, from 0 to 1: one that goes on is checked where that is below its share."""

    item: ItemId
    proposal: Proposal
    dice: Annotated[float, Field(ge=0.0, le=1.0)]


class Claim(Frozen):
    """Take an item for a while, or keep it for longer: others leave it alone."""

    item: ItemId
    by: Name


class Release(Frozen):
    """Give a claim back."""

    item: ItemId
    by: Name


class Approve(Frozen):
    """Agree to a version of it. None is the one there is, if nobody else has changed it."""

    item: ItemId
    by: Name
    version: Annotated[int, Field(ge=0)] | None = None


class Reject(Frozen):
    """Refuse it, for good."""

    item: ItemId
    by: Name
    reason: Text


class EditAndApprove(Frozen):
    """Agree to it as changed. The caller has checked that `payload` can stand for the one before."""

    item: ItemId
    by: Name
    payload: JsonValue
    reason: Annotated[str, Field(max_length=2_000)] = ""


class Escalate(Frozen):
    """Pass it on to another group."""

    item: ItemId
    by: Name
    to: Name
    reason: Text


class Withdraw(Frozen):
    """Take back what one has asked."""

    item: ItemId
    by: Name
    reason: Annotated[str, Field(max_length=2_000)] = ""


class Tick(Frozen):
    """Let time do what is due: escalate, or expire."""

    item: ItemId


Command = Ask | Claim | Release | Approve | Reject | EditAndApprove | Escalate | Withdraw | Tick
