"""Telling people: what happened in a queue, as short notices, each at least once, in order, and never in the way.

Notices are made from the queue's stream, and how far each notifier has come is kept outside of it. So a process that is
killed tells the last one again, and forgets none; and whoever decides waits for no notifier.
"""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, Protocol

from pydantic import ValidationError

from chimera.core.errors import StorageError
from chimera.core.events import Event, EventKind
from chimera.core.types import Frozen
from chimera.review.outcomes import Stream
from chimera.review.types import Confidence, Route
from chimera.security.redaction import clean
from chimera.storage.whole_file import write_whole

_log = logging.getLogger(__name__)

MAX_SUMMARY = 500

NoticeType = Literal[
    "review.waiting",
    "review.monitored",
    "review.check",
    "review.escalated",
    "review.expired",
    "review.approved",
    "review.edited",
    "review.rejected",
    "review.withdrawn",
]


class Notice(Frozen):
    """What people are told: which item, what it is about, and what happened. The payload is not in it.

    `id` is the same whenever it is told: whoever has it already may forget it. `at_s` is seconds since the epoch. The
    summary is an agent's, and what looks like a secret in it is left out.
    """

    id: str
    type: NoticeType
    at_s: float
    queue: str
    item: str
    key: str
    kind: str
    summary: str
    confidence: Confidence
    group: str
    by: str = ""


class Notifier(Protocol):
    """A way to tell people."""

    @property
    def name(self) -> str:
        """What its place in the stream is kept under: letters, digits and dashes, the same after a restart."""

    async def tell(self, notice: Notice) -> None:
        """Return when it has been taken. Raises SourceError if it was not: it comes again later."""


class LogNotifier:
    """Tells the log, which is the default."""

    name = "log"

    async def tell(self, notice: Notice) -> None:
        by = f" by {notice.by}" if notice.by else ""
        what = f"{notice.type}{by}: {notice.kind} {notice.item}, confidence {notice.confidence:.2f}"
        _log.info("%s: %s", what, " ".join(notice.summary.split()))


def notice(event: Event, queue: str) -> Notice | None:
    """What people are told of an event; None for those that are nobody else's business, as a claim."""
    try:
        told = _type(event)
        if told is None:
            return None
        about = event.data["proposal"] if event.kind is EventKind.REVIEW_ASKED else event.data["about"]
        assert isinstance(about, dict)
        return Notice(
            id=f"{queue}-{event.seq}",
            type=told,
            at_s=event.at_s,
            queue=queue,
            item=event.task_id,
            group=str(event.data.get("to") or about.get("group") or _routing(event).get("group") or ""),
            by=str(event.data.get("by") or about.get("asker") or ""),
            key=str(about["key"]),
            kind=str(about["kind"]),
            summary=clean(str(about["summary"]), MAX_SUMMARY),
            confidence=_number(about["confidence"]),
        )
    except (AssertionError, KeyError, ValidationError) as error:
        raise StorageError(f"{event.mission_id}: event {event.seq} cannot be told: {error}") from error


def _number(value: object) -> float:
    assert isinstance(value, int | float)
    return float(value)


def _routing(event: Event) -> dict[str, Any]:
    routing = event.data.get("routing")
    return routing if isinstance(routing, dict) else {}


def _type(event: Event) -> NoticeType | None:
    match event.kind:
        case EventKind.REVIEW_ASKED:
            if event.data["check"]:
                return "review.check"
            waits: dict[str, NoticeType | None] = {
                Route.PERSON: "review.waiting",
                Route.MONITORED: "review.monitored",
                Route.AUTOMATIC: None,
            }
            return waits[_routing(event)["route"]]
        case EventKind.REVIEW_ESCALATED:
            return "review.escalated"
        case EventKind.REVIEW_EXPIRED:
            return "review.expired"
        case EventKind.REVIEW_WITHDRAWN:
            return "review.withdrawn"
        case EventKind.REVIEW_DECIDED:
            verdicts: dict[object, NoticeType] = {
                "approved": "review.approved",
                "edited": "review.edited",
                "rejected": "review.rejected",
            }
            return verdicts[event.data["verdict"]]
        case _:
            return None


class Place:
    """How far a reader of a stream has come, in a file that one process has at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @contextmanager
    def held(self) -> Iterator[bool]:
        """Whether it is this process's turn; another one's reader goes on where this one stops. Raises StorageError."""
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            handle = os.open(self.path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StorageError(f"{self.path} cannot be used: {error.strerror}") from None
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            yield True
        finally:
            os.close(handle)

    def read(self) -> int:
        """The last event that has been dealt with; 0 at first. Raises StorageError for a file that says none."""
        try:
            return int(self.path.read_text("ascii"))
        except FileNotFoundError:
            return 0
        except (OSError, ValueError) as error:
            raise StorageError(f"{self.path} says no number ({error}): delete it, and its reader begins anew") from None

    def write(self, seq: int) -> None:
        """Durable when it returns. Raises StorageError."""
        try:
            write_whole(self.path, str(seq).encode())
        except OSError as error:
            raise StorageError(f"{self.path} cannot be written: {error.strerror}") from None


async def deliver(stream: Stream, notifier: Notifier, place: Place, *, queue: str) -> int:
    """Tell `notifier` all that it does not know yet, and return how many notices that were.

    Raises what it raises, at the first that it does not take: the next call goes on with that one. Nothing is done, and
    0 returned, while another process tells it.
    """
    with place.held() as mine:
        if not mine:
            return 0
        told, seq = 0, place.read()
        while events := await stream.events(seq):
            for event in events:
                if (found := notice(event, queue)) is not None:
                    await notifier.tell(found)
                    place.write(event.seq)
                    told += 1
            seq = events[-1].seq
            place.write(seq)
        return told
