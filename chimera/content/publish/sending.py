"""From a post that is handed in to one that is out, found again after every crash, and taken down when asked.

What is `sending` in the ledger when a sender starts may be out or not: it is looked for at its platform by its own key
before anything else. Found, it is recorded; not found, it is sent again under the same key. So a crash between sending
and recording sends nothing twice, and one before loses nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from random import Random
from typing import Final

from pydantic import JsonValue

from chimera.content.accounts import Account
from chimera.content.publish.ledger import PostLedger
from chimera.content.publish.publisher import AccountPublisher
from chimera.content.publish.scheduler import DAY_S, next_slot, quiet_until
from chimera.content.publish.types import Claim, Entry, Handed, Post, PostState, Wait, outputs, part_key
from chimera.core.clock import Clock
from chimera.core.errors import (
    Forbidden,
    InputError,
    MissingExtra,
    OutputBlocked,
    Overloaded,
    RateLimited,
    SourceError,
    StorageError,
)
from chimera.security.safety.findings import Finding, Severity
from chimera.security.safety.gateway import Audit, SafetyGateway

MAX_ATTEMPTS: Final = 8
BATCH: Final = 100
FIRST_WAIT_S: Final = 5.0
MAX_WAIT_S: Final = 3_600.0
SETTLE_S: Final = 60.0
"""For which a request of a sender that died may still be on its way to the platform."""

_UNKNOWN = (SourceError, Forbidden, StorageError, TimeoutError, MissingExtra)


@dataclass(frozen=True, slots=True)
class _Looked:
    """What the gateway says of a post: the rules that block it, those that ask for a person, and what to do."""

    blocked: tuple[str, ...] = ()
    held: tuple[str, ...] = ()
    advice: str = ""


class Sender:
    """Takes posts in, sends them when they are due, and takes them down. `tick` is to be called now and then.

    `gateway` reviews with `content_checks` and the ledger's approvals; `publishers` are by account. One process sends
    (`PostLedger.sole_sender`); any may hand in.
    """

    def __init__(
        self,
        *,
        ledger: PostLedger,
        publishers: Mapping[str, AccountPublisher],
        gateway: SafetyGateway,
        audit: Audit,
        clock: Clock,
        rng: Random,
        settle_s: float = SETTLE_S,
    ) -> None:
        self._ledger = ledger
        self._publishers = dict(publishers)
        self._gateway = gateway
        self._audit = audit
        self._clock = clock
        self._rng = rng
        self._settle_s = settle_s

    async def submit(self, post: Post, *, due_s: float = 0.0) -> Handed:
        """Have the post reviewed, and plan it for the first slot from `due_s` on; as it stands if it was in before.

        A post that needs a person stays a draft with the rules that say so; one that is blocked has failed. Raises
        NotThere for an account that is not declared, Overloaded if too much is planned already.
        """
        account = self._ledger.account(post.account)
        entry = self._ledger.add(post)
        if entry.state is not PostState.DRAFT:
            return _handed(entry)
        cap = min(account.caps.per_hour, account.caps.per_day)
        if len(post.parts) > cap:
            return self._refused(entry, ("volume.thread",), f"a thread has at most {cap} parts here")
        looked = await self._looked(post, account)
        if looked.blocked:
            return self._refused(entry, looked.blocked, looked.advice)
        if looked.held:
            self._ledger.hold(entry.key, ",".join(looked.held))
            self._note(entry, "post.submit", "held", rules=looked.held)
            return Handed(key=entry.key, state=PostState.DRAFT, rules=looked.held, message=looked.advice)
        planned = self._ledger.planned(account.name, self._clock.now() - DAY_S)
        at_s = next_slot(account, max(due_s, self._clock.now()), planned, len(post.parts))
        self._note(entry, "post.submit", "scheduled", due_s=at_s)
        self._ledger.schedule(entry.key, at_s)
        return _handed(self._ledger.entry(entry.key))

    async def approve(self, key: str, *, by: str, due_s: float = 0.0) -> Handed:
        """A person lets a held post out in spite of the rules that hold it, and of no others: nobody unblocks."""
        if not by.strip():
            raise InputError("an approval has a name")
        entry = self._ledger.entry(key)
        if not _handed(entry).held:
            return _handed(entry)
        rules = tuple(entry.reason.split(","))
        self._note(entry, "post.approve", "approved", rules=rules, by=by)
        account = self._ledger.account(entry.post.account)
        self._ledger.approve((one.digest for one in outputs(entry.post, account)), by, rules)
        return await self.submit(entry.post, due_s=due_s)

    async def tick(self) -> tuple[Handed, ...]:
        """Look after what a crash or a fault left half done, then send what is due. What came of each post."""
        done: list[Handed] = []
        with self._ledger.sole_sender():
            now_s = self._clock.now()
            begun = self._ledger.entries(PostState.SENDING, until_s=now_s, limit=BATCH)
            done += [await self._deliver(entry, look=True) for entry in begun]
            due = self._ledger.entries(PostState.SCHEDULED, until_s=now_s, limit=BATCH)
            done += [await self._due(entry) for entry in due]
        return tuple(done)

    async def take_down(self, key: str, *, by: str, why: str) -> Handed:
        """Delete the post at its platform, or withdraw it before it goes out. Its record stays; a second time is fine.

        Raises Overloaded for one that is just being sent: what is on its way cannot be found yet.
        """
        with self._ledger.sole_sender():
            entry = self._ledger.entry(key)
            if entry.state is PostState.TAKEN_DOWN:
                return _handed(entry)
            if entry.state is PostState.SENDING and (left_s := entry.not_before_s - self._clock.now()) > 0:
                raise Overloaded("the post is just being sent: try again", left_s)
            publisher = self._publisher(entry)
            references = list(entry.references)
            if entry.claimed_s and not all(references) and entry.state is not PostState.SENT:
                missing = references.index("")
                claim = Claim(key=part_key(key, missing), at_s=entry.claimed_s)
                references[missing] = await publisher.find(claim)
            self._note(entry, "post.take_down", "started", by=by, why=why)
            for reference in reversed([one for one in references if one]):
                await publisher.take_down(reference)
            self._ledger.taken_down(key, f"{by}: {why}"[:500])
            self._note(entry, "post.take_down", "done", by=by)
            return _handed(self._ledger.entry(key))

    async def _due(self, entry: Entry) -> Handed:
        """Claim it and send it, or say until when it waits."""
        account = self._ledger.account(entry.post.account)
        now_s = self._clock.now()
        if (later_s := quiet_until(account, now_s)) > now_s:
            self._ledger.schedule(entry.key, later_s)
            return _handed(self._ledger.entry(entry.key))
        claimed = self._ledger.claim(entry.key, settle_s=self._settle_s)
        if isinstance(claimed, Wait):
            self._note(entry, "post.send", "delayed", rules=(claimed.rule,), due_s=claimed.until_s)
            self._ledger.schedule(entry.key, max(claimed.until_s, now_s))
            return _handed(self._ledger.entry(entry.key)).model_copy(update={"rules": (claimed.rule,)})
        if claimed is None:
            return _handed(self._ledger.entry(entry.key))
        return await self._deliver(claimed, look=claimed.attempts > 1)

    async def _deliver(self, entry: Entry, *, look: bool) -> Handed:
        """Send the parts that are not out. With `look`, the first of them is looked for before it is sent."""
        try:
            publisher = self._publisher(entry)
            for number, output in enumerate(outputs(entry.post, publisher.account)):
                if entry.references[number]:
                    continue
                claim = self._ledger.claimed(output.key, publisher.channel)
                reference = await publisher.find(claim) if look else ""
                if not reference:
                    cleared = await asyncio.to_thread(self._gateway.review, output)
                    reference = await publisher.publish(cleared, audience=output.audience)
                look = False
                self._ledger.part_sent(entry.key, number, reference)
        except OutputBlocked as error:
            looked = _read([error])
            if looked.blocked or any(self._ledger.entry(entry.key).references):
                return self._refused(entry, (*looked.blocked, *looked.held), looked.advice or str(error))
            self._ledger.hold(entry.key, ",".join(looked.held))
            self._note(entry, "post.send", "held", rules=looked.held)
        except InputError as error:
            return self._refused(entry, (), str(error))
        except RateLimited as error:
            self._again(entry, min(error.retry_after_s, DAY_S), str(error))
        except _UNKNOWN as error:
            if entry.attempts >= MAX_ATTEMPTS:
                return self._refused(entry, (), f"after {entry.attempts} attempts: {error}")
            wait_s = min(MAX_WAIT_S, FIRST_WAIT_S * 2.0**entry.attempts) * self._rng.uniform(0.5, 1.0)
            self._again(entry, max(wait_s, self._settle_s), str(error))
        else:
            sent = self._ledger.entry(entry.key)
            self._note(sent, "post.send", "sent", references=sent.references)
        return _handed(self._ledger.entry(entry.key))

    def _again(self, entry: Entry, wait_s: float, why: str) -> None:
        self._note(entry, "post.send", "postponed", why=why[:300])
        self._ledger.postpone(entry.key, self._clock.now() + wait_s, why[:500])

    def _refused(self, entry: Entry, rules: tuple[str, ...], message: str) -> Handed:
        self._note(entry, "post.send" if entry.claimed_s else "post.submit", "refused", rules=rules, why=message[:300])
        self._ledger.fail(entry.key, message[:500])
        return Handed(key=entry.key, state=PostState.FAILED, rules=rules, message=message)

    async def _looked(self, post: Post, account: Account) -> _Looked:
        """What the gateway says of all its parts."""
        errors = []
        for output in outputs(post, account):
            try:
                await asyncio.to_thread(self._gateway.review, output)
            except OutputBlocked as error:
                errors.append(error)
        return _read(errors)

    def _publisher(self, entry: Entry) -> AccountPublisher:
        if entry.post.account not in self._publishers:
            raise InputError(f"no publisher is there for {entry.post.account}")
        return self._publishers[entry.post.account]

    def _note(self, entry: Entry, action: str, outcome: str, **detail: object) -> None:
        told: dict[str, JsonValue] = {"key": entry.key, "item": entry.post.item_id}
        for name, value in detail.items():
            told[name] = list[JsonValue](map(str, value)) if isinstance(value, tuple) else str(value)
        self._audit.append("content", action, entry.post.account, outcome, told)


def _read(errors: Iterable[OutputBlocked]) -> _Looked:
    found = [one for error in errors for one in error.findings if isinstance(one, Finding)]
    by = {
        severity: tuple(sorted({one.rule for one in found if one.severity is severity}))
        for severity in (Severity.BLOCK, Severity.REVIEW)
    }
    advice = next((one.advice for severity in by for one in found if one.severity is severity), "")
    return _Looked(by[Severity.BLOCK], by[Severity.REVIEW], advice)


def _handed(entry: Entry) -> Handed:
    held = entry.state is PostState.DRAFT and entry.reason
    rules = tuple(entry.reason.split(",")) if held else ()
    return Handed(key=entry.key, state=entry.state, due_s=entry.due_s, rules=rules, message=entry.reason)
