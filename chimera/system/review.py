"""The review queue of an installation: opened from its settings, with its policy, its record and those who are told.

Everything that follows from what happened in a queue (audit entries, notices, reputations) is made from its stream, by
a reader that keeps its place. So it does not matter which process decides, nor which is killed: the next round of any
process that looks after the queue goes on where the last one stopped.
"""

from __future__ import annotations

import asyncio
import getpass
import logging
import os
import random
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from pydantic import JsonValue, ValidationError

from chimera.core.clock import Clock, SystemClock
from chimera.core.config import Settings
from chimera.core.errors import AuditBusy, InputError, MissingExtra, SecurityError, SourceError, StorageError
from chimera.core.events import Event, EventKind
from chimera.review.notices import LogNotifier, Notifier, Place, deliver
from chimera.review.outcomes import Outcome, outcome
from chimera.review.payloads import EditCheck
from chimera.review.policy import ReviewPolicy, WebhookTarget
from chimera.review.policy_file import load_policy
from chimera.review.queue import PAGE, ReviewQueue
from chimera.review.webhook import Webhook, read_secret
from chimera.storage.journal import Journal, open_journal
from chimera.swarm.reputation import Belief

_log = logging.getLogger(__name__)

POLICY_FILE = "review.yaml"
KEY_FILE = "audit.pem"
"""The key of the installation's audit logs, in its folder `security`."""
KEPT_ENTRIES = 100
"""Of the audit log, among which one of this queue's is."""
MAX_SECRET_FILE_BYTES = 1_000
ROUND_S = 2.0

GOOD: Mapping[str, float] = {"approved": 1.0, "edited": 0.5, "rejected": 0.0}
"""How good an attempt was, by what a person made of it."""


def read_policy(settings: Settings, path: Path | None = None) -> ReviewPolicy:
    """The policy in `path`, or in the home's `review.yaml`; without one the built-in thresholds.

    Where it names no reviewer, the OS user who runs this is the only one. Raises InputError.
    """
    path = path or settings.home / POLICY_FILE
    policy = load_policy(path) if path.exists() or path.name != POLICY_FILE else ReviewPolicy()
    if policy.reviewers:
        return policy
    try:
        return ReviewPolicy.model_validate({**dict(policy), "reviewers": {getpass.getuser(): ()}})
    except ValidationError as error:
        raise InputError(f"{path}: name the reviewers: {error.errors()[0]['msg']}") from None


@asynccontextmanager
async def open_desk(
    settings: Settings,
    *,
    policy: ReviewPolicy | None = None,
    name: str = "main",
    edit_checks: Mapping[str, EditCheck] | None = None,
    journal: Journal | None = None,
) -> AsyncIterator[ReviewDesk]:
    """The queue `name` in the installation's journal, or in `journal`. Raises InputError, StorageError."""
    used = open_journal(settings.journal) if journal is None else journal
    clock = SystemClock()
    queue = ReviewQueue(
        journal=used,
        policy=policy or read_policy(settings),
        clock=clock,
        generator=random.SystemRandom(),
        name=name,
        edit_checks=edit_checks,
    )
    try:
        yield ReviewDesk(queue, settings.home, clock=clock)
    finally:
        await queue.close()
        if journal is None:
            await used.close()


class ReviewDesk:
    """A queue, and what follows from what happens in it. `home` is the installation's folder."""

    def __init__(self, queue: ReviewQueue, home: Path, *, clock: Clock) -> None:
        self.queue = queue
        self._home = home
        self._folder = home / "review" / queue.name.replace("/", "_").replace(":", "_")
        self._clock = clock
        self._recording = asyncio.Lock()

    async def record(self) -> int:
        """Write what has happened into the queue's audit log, and return how many entries that were.

        None where another process has the log: that one writes them. Raises AuditError, and MissingExtra without the
        extra that signs.
        """
        async with self._recording:
            work = asyncio.create_task(self._record())
            try:
                return await asyncio.shield(work)
            except asyncio.CancelledError:
                await asyncio.wait([work])  # its thread has the log: who opens it next must not find it taken
                raise
            except AuditBusy:
                return 0

    async def deliver(self, notifiers: Sequence[Notifier]) -> int:
        """Tell each of them what it does not know yet; how many notices. A failure is logged, and tried later."""
        counts = await asyncio.gather(*(self._deliver(each) for each in notifiers))
        return sum(counts)

    async def outcomes(self, told: Callable[[Outcome], None], *, reader: str = "reputation") -> int:
        """Tell `told` what people decided since this `reader` was told last, in any process; how many. At least once:
        one that is told when the process is killed is told again."""
        place, count = self._place(reader), 0
        with place.held() as mine:
            if not mine:
                return 0
            seq = place.read()
            while events := await self.queue.events(seq):
                for event in events:
                    if (found := outcome(event)) is not None:
                        told(found)
                        count += 1
                        place.write(event.seq)
                seq = events[-1].seq
                place.write(seq)
        return count

    async def run(self, notifiers: Sequence[Notifier], *, every_s: float = ROUND_S) -> None:
        """Look after the queue until cancelled. What fails is logged, and tried again in the next round.

        Each notifier has a loop of its own: one that is away keeps nobody else waiting, and no escalation.
        """
        async with asyncio.TaskGroup() as loops:
            loops.create_task(self._look_after(every_s))
            for each in notifiers:
                loops.create_task(self._keep_telling(each, every_s))

    def notifiers(self) -> list[Notifier]:
        """Those that the policy names, and the log. Raises InputError for a secret that cannot be read."""
        return [LogNotifier(), *(self._webhook(target) for target in self.queue.policy.webhooks)]

    def _webhook(self, target: WebhookTarget) -> Webhook:
        return Webhook(
            url=target.url,
            secret=_read_secret(Path(target.secret_file).expanduser()),
            clock=self._clock,
            generator=random.Random(),
            allow_private=target.allow_private,
        )

    def _place(self, reader: str) -> Place:
        return Place(self._folder / "places" / reader)

    async def _look_after(self, every_s: float) -> None:
        while True:
            try:
                await self.queue.tick()
                await self.record()
            except (StorageError, SecurityError, MissingExtra) as error:
                _log.warning("the review queue %s is not in order: %s", self.queue.name, error)
            await asyncio.sleep(every_s)

    async def _keep_telling(self, notifier: Notifier, every_s: float) -> None:
        while True:
            await self._deliver(notifier)
            await asyncio.sleep(every_s)

    async def _deliver(self, notifier: Notifier) -> int:
        try:
            return await deliver(self.queue, notifier, self._place(notifier.name), queue=self.queue.name)
        except (SourceError, StorageError) as error:
            _log.warning("%s; it is told again later", error)
            return 0

    async def _record(self) -> int:
        from chimera.security.audit import AuditLog
        from chimera.security.audit_entry import signing_key

        def opened() -> AuditLog:
            key = signing_key(self._home / "security" / KEY_FILE)
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            return AuditLog(self._folder / "audit", key, clock=self._clock, kept=KEPT_ENTRIES)

        def write(events: Sequence[Event]) -> None:
            for event in events:
                log.append(*_entry(event, self.queue.name))
            log.flush()

        log = await asyncio.to_thread(opened)
        try:
            known = (entry.detail.get("event") for entry in reversed(log.query(limit=KEPT_ENTRIES)))
            seq, count = next((seen for seen in known if isinstance(seen, int)), 0), 0
            while events := await self.queue.events(seq, PAGE):
                await asyncio.to_thread(write, events)
                seq, count = events[-1].seq, count + len(events)
            return count
        finally:
            await asyncio.to_thread(log.close)


def appraise(beliefs: dict[str, Belief], found: Outcome, now: float) -> None:
    """Let a decision count in the `beliefs` about an agent (skill -> belief), as one attempt at its subject."""
    beliefs.setdefault(found.subject, Belief()).appraise(GOOD[found.verdict], now)


def _entry(event: Event, queue: str) -> tuple[str, str, str, str, dict[str, JsonValue]]:
    """Who, what, to what, what came of it, and the rest; no payload."""
    data = event.data
    told = data.get("proposal" if event.kind is EventKind.REVIEW_ASKED else "about")
    about = told if isinstance(told, dict) else {}
    routing = data.get("routing")
    detail: dict[str, JsonValue] = {"event": event.seq, "happened_s": event.at_s, "about": about.get("key")}
    detail |= {name: about[name] for name in ("kind", "confidence", "usd", "audience") if name in about}
    detail |= {name: data[name] for name in ("reason", "to", "version", "check") if name in data}
    came = str(data.get("verdict", "ok"))
    if isinstance(routing, dict):
        came, detail["why"] = str(routing["route"]), routing["why"]
    actor = str(data.get("by") or about.get("asker") or "policy")
    return actor, event.kind.value.replace("_", ".", 1), f"review/{queue}/{event.task_id}", came, detail


def _read_secret(path: Path) -> bytes:
    """What is in a webhook's secret file. Raises InputError, also for a file that others can read."""
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_mode & 0o077:
                raise InputError(f"{path} can be read by others: chmod 600 it")
            return read_secret(file.read(MAX_SECRET_FILE_BYTES).decode("ascii"))
    except OSError as error:
        raise InputError(f"the webhook's secret {path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InputError(f"{path} holds no webhook's secret") from None
