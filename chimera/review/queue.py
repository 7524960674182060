"""The durable queue: what waits for people, in one stream of the journal, written by any number of processes.

Whoever decides something appends it as the stream's next event. The journal refuses a place that is taken, so of two
who decide at once one is told, reads what came in between, and decides again, on the state there is by then: nothing is
lost and nothing is decided twice, with no lock and no leader (optimistic concurrency control: Kung and Robinson, 1981).
Commands that come meanwhile share the next append, so ten thousand of them take some forty.
"""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from pydantic import JsonValue, TypeAdapter, ValidationError

from chimera.core.clock import Clock
from chimera.core.errors import InputError, NotThere, Overloaded, StorageError
from chimera.core.events import Event
from chimera.core.types import Name
from chimera.review import commands as c
from chimera.review.book import MAX_ITEMS, Book, apply_event, fold
from chimera.review.payloads import EditCheck, check_json, same_shape
from chimera.review.policy import ReviewPolicy
from chimera.review.state import Fact, decide
from chimera.review.types import Item, Proposal, Refusal, Refused, item_id
from chimera.storage.journal import SWARM_PREFIX, Journal

MAX_COMMANDS = 20_000
"""That may wait for their append, in one process."""
BATCH = 256
"""Commands in one append: of the largest payloads 64 MB."""
PAGE = 500
"""Events in one read, for the same reason."""
MAX_TRIES = 200
"""Appends that other processes may get ahead of, one after another, before a command is given back."""
PAUSE_S = 0.002
"""The most that is waited after the first of them; it doubles up to 64 times that."""

Answer: TypeAlias = Item | Refused

_NAME = TypeAdapter(Name)


@dataclass(eq=False, slots=True)
class _Asked:
    """A command on its way, and whoever waits for what comes of it."""

    command: c.Command
    answer: asyncio.Future[Answer] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    def tell(self, answer: Answer | Exception) -> None:
        if self.answer.done():
            return  # whoever asked has gone
        if isinstance(answer, Exception):
            self.answer.set_exception(answer)
        else:
            self.answer.set_result(answer)


_Answered: TypeAlias = tuple[_Asked, Answer | Exception]


class ReviewQueue:
    """The queue `name` in a journal. Use it from one event loop; any number of processes may have it open.

    Commands return the item as it is afterwards, or `Refused`; both are durable facts of the journal as of then. They
    raise InputError for what cannot be a command, NotThere for an id that no item has, Overloaded where too much waits,
    and StorageError where the journal fails: then it may have been stored or not, and doing the same again is safe.

    `generator` draws the checks; give one that nobody can foresee. `edit_checks` say by kind whether an edited payload
    will do; the default asks for the same JSON type, and the same fields in an object.
    """

    def __init__(
        self,
        *,
        journal: Journal,
        policy: ReviewPolicy,
        clock: Clock,
        generator: random.Random,
        name: str = "main",
        edit_checks: Mapping[str, EditCheck] | None = None,
    ) -> None:
        self.name = _name(name)
        self.policy = policy
        self.stream = f"{SWARM_PREFIX}review-{self.name}"
        self._journal = journal
        self._clock = clock
        self._generator = generator
        self._edit_checks = dict(edit_checks or {})
        self._writer = f"review-{secrets.token_hex(8)}"  # whose an event is: nobody else's looks the same
        self._book = Book()
        self._turn = asyncio.Lock()
        self._commands: list[_Asked] = []
        self._working: asyncio.Task[None] | None = None

    async def ask(self, proposal: Proposal) -> Answer:
        """Have a proposal reviewed; the same key again is the same item. `may_go_on` says whether it waits."""
        check_json(proposal.model_dump(mode="json"), "the proposal")
        asked = c.Ask(item=item_id(self.name, proposal.key), proposal=proposal, dice=self._generator.random())
        return await self._do(asked)

    async def claim(self, item: str, by: str) -> Answer:
        """Take it for `policy.lease_s`, or keep it for so much longer. Of several who want it one gets it."""
        return await self._do(_made(c.Claim, item=item, by=by))

    async def release(self, item: str, by: str) -> Answer:
        """Give it back. Where it is not claimed by them, nothing happens."""
        return await self._do(_made(c.Release, item=item, by=by))

    async def approve(self, item: str, by: str, version: int | None = None) -> Answer:
        """Agree to it, at the version that was looked at; None will do where nobody else has changed it."""
        return await self._do(_made(c.Approve, item=item, by=by, version=version))

    async def reject(self, item: str, by: str, reason: str) -> Answer:
        """Refuse it for good, and say why."""
        return await self._do(_made(c.Reject, item=item, by=by, reason=reason.strip()))

    async def edit(self, item: str, by: str, payload: JsonValue, reason: str = "") -> Answer:
        """Agree to it as changed. Both versions are kept. Raises InputError for a payload that cannot stand for it."""
        check_json(payload, "the edited payload")
        found = await self.item(item)
        self._edit_checks.get(found.proposal.kind, same_shape)(found.proposal, payload)
        return await self._do(_made(c.EditAndApprove, item=item, by=by, payload=payload, reason=reason.strip()))

    async def escalate(self, item: str, by: str, to: str, reason: str) -> Answer:
        """Pass it on to another group, which alone decides from then on."""
        return await self._do(_made(c.Escalate, item=item, by=by, to=to, reason=reason.strip()))

    async def withdraw(self, item: str, by: str, reason: str = "") -> Answer:
        """Take back what one has asked."""
        return await self._do(_made(c.Withdraw, item=item, by=by, reason=reason.strip()))

    async def tick(self) -> int:
        """Let time do what is due, escalations and expiries; how many. Any process may, as often as it likes."""
        now = self._clock.now()
        due = [
            item.id
            for item in await self.waiting()
            if now >= item.expires_at_s or (item.escalates_at_s is not None and now >= item.escalates_at_s)
        ][: MAX_COMMANDS // 2]
        await asyncio.gather(*(self._do(c.Tick(item=item)) for item in due))
        return len(due)

    async def item(self, item: str) -> Item:
        """All of one, ended ones too. Raises NotThere."""
        async with self._turn:
            await self._catch_up()
            found = await self._find(item)
        if found is None:
            raise NotThere(
                f"no item {item!a:.80} is in the review queue {self.name}: `chimera review list` has its ids"
            )
        return found

    async def by_key(self, key: str) -> Item:
        """The item that asks about `key`. Raises NotThere."""
        return await self.item(item_id(self.name, key))

    async def waiting(self, *, reviewer: str = "") -> list[Item]:
        """What waits, the oldest first; of a reviewer, what they may decide."""
        async with self._turn:
            await self._catch_up()
            found = list(self._book.waiting.values())
        if reviewer:
            found = [item for item in found if self._is_for(reviewer, item)]
        return sorted(found, key=lambda item: (item.asked_at_s, item.seqs[0]))

    async def ids(self, beginning: str) -> list[str]:
        """The ids that begin so."""
        async with self._turn:
            await self._catch_up()
            return [each for each in self._book.ids() if each.startswith(beginning)]

    async def events(self, after: int = 0, limit: int = PAGE) -> list[Event]:
        """The stream after its event `after`, `limit` events at most: what happened, for whoever has to be told."""
        return await self._journal.read(self.stream, after=after, limit=min(limit, PAGE))

    async def end(self) -> int:
        """The stream's last event as of now: what comes after it is new."""
        async with self._turn:
            await self._catch_up()
            return self._book.seq

    async def close(self) -> None:
        """Wait for the commands on their way. The journal stays open: it is the caller's."""
        while self._working is not None and not self._working.done():
            await asyncio.wait([self._working])

    def _is_for(self, reviewer: str, item: Item) -> bool:
        own = {name.casefold() for name in (item.proposal.asker, *item.proposal.agents)}
        return self.policy.decides(reviewer, item.group) and reviewer.casefold() not in own

    async def _do(self, command: c.Command) -> Answer:
        if len(self._commands) >= MAX_COMMANDS:
            raise Overloaded(f"{MAX_COMMANDS} commands already wait for the review queue {self.name}", 0.5)
        asked = _Asked(command)
        self._commands.append(asked)
        if self._working is None or self._working.done():
            self._working = asyncio.create_task(self._work())
        return await asked.answer

    async def _work(self) -> None:
        while self._commands:
            batch, self._commands = self._commands[:BATCH], self._commands[BATCH:]
            try:
                async with self._turn:
                    await self._store([asked for asked in batch if not asked.answer.done()])
            except Exception as error:
                for asked in batch:
                    asked.tell(error)
            finally:  # also when the loop ends under it: nobody may wait for ever
                for asked in batch:
                    asked.answer.cancel()

    async def _store(self, batch: Sequence[_Asked]) -> None:
        """Decide a batch and append what comes of it, again and again while others get ahead."""
        for tries in range(MAX_TRIES):
            await self._catch_up()
            answers, events = await self._decide(batch)
            if not events or await self._append(events):
                for event in events:
                    self._book.apply(event)
                for asked, answer in answers:
                    asked.tell(answer)
                return
            await asyncio.sleep(self._generator.uniform(0.0, PAUSE_S * 2 ** min(tries, 6)))
        raise Overloaded(f"others keep writing the review queue {self.name}: try again", 1.0)

    async def _decide(self, batch: Sequence[_Asked]) -> tuple[list[_Answered], list[Event]]:
        """What each of them comes to, after those before it."""
        now = self._clock.now()
        items: dict[str, Item | None] = {}
        answers, events, begun = list[_Answered](), list[Event](), 0
        for asked in batch:
            command = asked.command
            if command.item not in items:
                items[command.item] = await self._find(command.item)
            item = items[command.item]
            if item is None and not isinstance(command, c.Ask):
                answers.append((asked, self._none(command.item)))
                continue
            outcome = decide(item, command, now=now, policy=self.policy)
            if isinstance(outcome, Refused):
                answers.append((asked, outcome))
                continue
            first = self._book.seq + len(events) + 1
            told = [self._event(command.item, fact, now, seq) for seq, fact in enumerate(outcome, first)]
            after = item
            for event in told:
                after = apply_event(after, event)
            assert after is not None
            if item is None and (refused := self._full(begun, after)) is not None:
                answers.append((asked, refused))
                continue
            begun += item is None
            items[command.item] = after
            events += told
            answers.append((asked, after))
        return answers, events

    def _full(self, begun: int, new: Item) -> Refused | None:
        """Why one more has no room. What goes on by itself waits for nobody, and so has."""
        if not new.state.ended and len(self._book.waiting) + begun >= self.policy.max_waiting:
            told = f"{self.policy.max_waiting} items wait already (max_waiting): decide some first"
            return Refused(reason=Refusal.FULL, message=told)
        if len(self._book) + begun >= MAX_ITEMS:
            told = f"the queue {self.name} has had {MAX_ITEMS} items, which is all it takes: begin another"
            return Refused(reason=Refusal.FULL, message=told)
        return None

    def _none(self, item: str) -> NotThere:
        return NotThere(f"no item {item!a:.80} is in the review queue {self.name}: `chimera review list` has the ids")

    def _event(self, item: str, fact: Fact, now: float, seq: int) -> Event:
        return Event(
            mission_id=self.stream,
            seq=seq,
            kind=fact.kind,
            at_s=now,
            task_id=item,
            swarm=self._writer,
            data=fact.data,
        )

    async def _append(self, events: list[Event]) -> bool:
        """Whether they are stored; false where others were faster. Raises StorageError where neither can be told."""
        try:
            await self._journal.append(events)
        except StorageError:
            there = await self._journal.read(self.stream, after=self._book.seq, limit=1)
            if not there:
                raise
            return there[0].swarm == self._writer  # ours alone, and all or none: an answer was lost on its way
        return True

    async def _catch_up(self) -> None:
        """Take in what others have appended."""
        while events := await self._journal.read(self.stream, after=self._book.seq, limit=PAGE):
            for event in events:
                self._book.apply(event)
            if len(events) < PAGE:
                return

    async def _find(self, item: str) -> Item | None:
        """One that waits, from memory; one that has ended, from the journal."""
        if (found := self._book.waiting.get(item)) is not None:
            return found
        if (seqs := self._book.ended(item)) is None:
            return None
        events: list[Event] = []
        for seq in seqs:
            events += await self._journal.read(self.stream, after=seq - 1, limit=1)
        return fold(events)


def _made(kind: Callable[..., c.Command], **fields: JsonValue) -> c.Command:
    try:
        made = kind(**fields)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        raise InputError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    check_json({name: value for name, value in fields.items() if name != "payload"}, "what was said")
    return made


def _name(name: str) -> str:
    try:
        return _NAME.validate_python(name)
    except ValidationError:
        raise InputError(f"{name!a:.80} is no name for a review queue: letters, digits and . _ - : / will do") from None
