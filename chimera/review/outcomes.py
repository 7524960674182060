"""What people decided, read from the queue's stream: for agents' reputation, and to judge the confidence by."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import NamedTuple, Protocol

from pydantic import ValidationError

from chimera.core.errors import StorageError
from chimera.core.events import Event, EventKind
from chimera.core.types import Frozen, Name
from chimera.review.types import Confidence, Ground, Route, Verdict


class Stream(Protocol):
    """A queue, of which only its events are needed."""

    async def events(self, after: int = 0) -> list[Event]:
        """The next ones after its event `after`; none at the end."""


class Outcome(Frozen):
    """What a person made of what agents proposed. `seq` is its place in the stream, `at_s` seconds since the epoch.

    `check`: it had gone on already, and was looked at afterwards.
    """

    seq: int
    at_s: float
    item: str
    key: str
    kind: Name
    agents: tuple[Name, ...]
    subject: str
    mission: str
    verdict: Verdict
    confidence: Confidence
    by: Name
    reason: str
    check: bool


class Judged(NamedTuple):
    """One proposal whose route its confidence decided. `verdict` is None where nobody has said what it was worth.

    `share` is the chance with which one like it is shown to a person. A plain tuple, because there may be a million.
    """

    confidence: float
    share: float
    verdict: Verdict | None


def outcome(event: Event) -> Outcome | None:
    """What a person decided, if the event is that. Raises StorageError for one that cannot be read."""
    if event.kind is not EventKind.REVIEW_DECIDED:
        return None
    try:
        about = event.data["about"]
        assert isinstance(about, dict)
        said = {name: event.data[name] for name in ("verdict", "by", "reason")}
        told = {name: about[name] for name in Outcome.model_fields if name in about}
        return Outcome.model_validate({"seq": event.seq, "at_s": event.at_s, "item": event.task_id, **said, **told})
    except (AssertionError, KeyError, ValidationError) as error:
        raise StorageError(f"{event.mission_id}: event {event.seq} is no decision that can be read: {error}") from error


async def outcomes(stream: Stream, after: int = 0) -> AsyncIterator[Outcome]:
    """All that people decided after the stream's event `after`, in order, to its end as of now."""
    async for event in _all(stream, after):
        if (found := outcome(event)) is not None:
            yield found


async def judged(stream: Stream) -> list[Judged]:
    """Every proposal that its confidence alone decided on, with what people said of it, if they did.

    What is critical is left out: no threshold applies to it.
    """
    found: dict[str, Judged] = {}
    async for event in _all(stream, 0):
        if event.kind is EventKind.REVIEW_ASKED:
            each = _asked(event)
            if each is not None:
                found[event.task_id] = each
        elif event.kind is EventKind.REVIEW_DECIDED and event.task_id in found:
            made = outcome(event)
            if made is not None:
                found[event.task_id] = found[event.task_id]._replace(verdict=made.verdict)
    return list(found.values())


async def tell(stream: Stream, told: Callable[[Outcome], None], after: int = 0) -> int:
    """Tell every outcome after the event `after`, and return the last event that has been read: go on from there."""
    seq = after
    async for event in _all(stream, after):
        if (found := outcome(event)) is not None:
            told(found)
        seq = event.seq
    return seq


def _asked(event: Event) -> Judged | None:
    try:
        routing, proposal = event.data["routing"], event.data["proposal"]
        assert isinstance(routing, dict) and isinstance(proposal, dict)
        if routing["ground"] != Ground.CONFIDENCE:
            return None
        share = 1.0 if routing["route"] == Route.PERSON else routing["check_share"]
        confidence = proposal["confidence"]
        assert isinstance(share, int | float) and isinstance(confidence, int | float)
        return Judged(float(confidence), float(share), None)
    except (AssertionError, KeyError) as error:
        raise StorageError(f"{event.mission_id}: event {event.seq} is no question that can be read: {error}") from error


async def _all(stream: Stream, after: int) -> AsyncIterator[Event]:
    while events := await stream.events(after):
        for event in events:
            yield event
        after = events[-1].seq
