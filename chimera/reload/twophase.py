"""One version on every actor, or none: the two-phase commit of a reload, as a pure state machine.

Events in, instructions out; it does no I/O and knows no clock. Messages may be lost, repeated and overtaken, actors
and the coordinator may die at any moment. The decision is one record in the journal (presumed abort: Mohan, Lindsay &
Obermarck, Transaction Management in the R* Distributed Database Management System, 1986): before it, everything is
taken back; after it, everybody who is alive, or comes, is told until they run it.

Whoever carries out instructions does so in their order, and a `Record` is durable before anything that follows it.
An actor obeys `Commit` also if it has not prepared that version (it then loads it), and what it has done already it
confirms again. It reports each start of its process as another `life`, in growing numbers.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from chimera.core.errors import InputError, ReloadError
from chimera.reload.messages import (
    Abort,
    Commit,
    Died,
    Drain,
    Drained,
    Event,
    Failed,
    Finish,
    Instruction,
    Joined,
    Prepare,
    Propose,
    Ready,
    Record,
    Restart,
    Running,
    Settled,
    Tick,
    WakeAt,
)


@dataclass(frozen=True)
class Limits:
    """`prepare_s` is for all actors together; what is not answered is asked again every `again_s`.

    After `tries` unanswered commits an actor is restarted.
    """

    prepare_s: float = 30.0
    again_s: float = 0.5
    tries: int = 60
    max_actors: int = 10_000


@dataclass(frozen=True)
class _Member:
    """`leaving` says why it is to be restarted; it has no say any more."""

    life: int
    running: int
    ready: int = 0
    drained: int = 0
    leaving: str = ""
    asked_at: float = float("-inf")
    tries: int = 0


@dataclass(frozen=True)
class _Proposal:
    version: int
    digest: str
    until: float


class TwoPhase:
    """The coordinator's brain for one module. `handle` is all that happens; it takes time with what it changes only."""

    def __init__(self, limits: Limits | None = None) -> None:
        self._limits = limits or Limits()
        self._members: dict[str, _Member] = {}
        self._lacking: set[str] = set()
        """Members that have still to do something."""
        self._leaving: set[str] = set()
        self._ended: dict[str, int] = {}
        """Actor -> the last life that is known to have ended."""
        self._proposal: _Proposal | None = None
        self._highest = 0
        self._settled = 0
        self._wake_at = float("-inf")
        self.committed = 0
        self.digest = ""

    @classmethod
    def recover(cls, records: Iterable[Record], limits: Limits | None = None) -> TwoPhase:
        """A coordinator that was started anew: what was committed holds, what was only proposed is aborted.

        Its actors are to be announced with `Joined`. Raises ReloadError if the records are not of one coordinator.
        """
        brain = cls(limits)
        for record in records:
            if record.kind == "proposed" and record.version > brain._highest:
                brain._highest = record.version
            elif record.kind == "committed" and brain.committed < record.version == brain._highest:
                brain.committed, brain.digest = record.version, record.digest
            else:
                raise ReloadError(f"the journal is out of order at {record}: it is not of one coordinator")
        return brain

    @property
    def deciding(self) -> int:
        """The version that is being prepared; 0 for none."""
        return self._proposal.version if self._proposal else 0

    @property
    def actors(self) -> int:
        return len(self._members)

    @property
    def behind(self) -> tuple[str, ...]:
        """The actors that have still to take up what is committed."""
        return tuple(name for name in sorted(self._lacking) if self._members[name].running != self.committed)

    def handle(self, event: Event, now: float) -> list[Instruction]:
        """What to do next, in this order. What is late, repeated or of a life that has ended changes nothing.

        Raises InputError if there would be more actors than the limit.
        """
        done: list[Instruction] = []
        match event:
            case Propose():
                done = self._propose(event, now)
            case Joined():
                done = self._joined(event)
            case Died():
                self._died(event)
            case Ready() | Failed() | Running() | Drained():
                member = self._members.get(event.actor)
                if member is None or member.life != event.life:
                    return []
                done = self._answered(member, event)
        concerned = [] if isinstance(event, Tick | Propose) else [event.actor]
        before = (self.deciding, self.committed)
        done += self._decide(now)
        everybody = not concerned or before != (self.deciding, self.committed)
        done += self._ask(sorted(self._lacking) if everybody else concerned, now)
        return done + self._settle() + self._wake(now)

    def _propose(self, event: Propose, now: float) -> list[Instruction]:
        if self._proposal is not None:
            return [Finish(0, False, f"version {self._proposal.version} is being prepared: try again when it is done")]
        if len(self._members) == len(self._leaving):
            return [Finish(0, False, "no actor is there to try it")]
        self._highest += 1
        self._proposal = _Proposal(self._highest, event.digest, now + self._limits.prepare_s)
        self._turn()
        return [Record("proposed", self._highest, event.digest)]

    def _joined(self, event: Joined) -> list[Instruction]:
        """It may have prepared what has been aborted since, under a coordinator that is no more."""
        known = self._members.get(event.actor)
        if event.life <= self._ended.get(event.actor, -1) or (known and known.life >= event.life):
            return []
        if known is None and len(self._members) >= self._limits.max_actors:
            raise InputError(f"{self._limits.max_actors} actors have joined: no more are taken")
        wrong = event.running > self.committed
        leaving = f"it runs version {event.running}, and {self.committed} is committed" if wrong else ""
        self._set(event.actor, _Member(event.life, event.running, leaving=leaving))
        left = self._highest if self._highest not in (self.committed, self.deciding) else 0
        return [Abort(event.actor, left)] if left else []

    def _died(self, event: Died) -> None:
        self._ended[event.actor] = max(event.life, self._ended.pop(event.actor, -1))
        if len(self._ended) > self._limits.max_actors:
            del self._ended[next(iter(self._ended))]
        member = self._members.get(event.actor)
        if member is not None and member.life <= event.life:
            self._set(event.actor, None)

    def _answered(self, member: _Member, event: Ready | Failed | Running | Drained) -> list[Instruction]:
        match event:
            case Ready() if event.version == self.deciding:
                member = replace(member, ready=event.version)
            case Running() if member.running < event.version <= self.committed:
                member = replace(member, running=event.version, asked_at=float("-inf"), tries=0)
            case Drained() if event.version == self.committed == member.running:
                member = replace(member, drained=event.version)
            case Failed() if event.version == self.deciding and not member.leaving:
                return self._abort(f"{event.actor}: {event.reason}")
            case Failed() if event.version == self.committed > member.running:
                member = replace(member, leaving=event.reason or "it failed", asked_at=float("-inf"))
            case _:
                return []
        self._set(event.actor, member)
        return []

    def _decide(self, now: float) -> list[Instruction]:
        proposal = self._proposal
        if proposal is None:
            return []
        if len(self._members) == len(self._leaving):
            return self._abort("every actor died")
        late = self._lacking - self._leaving
        if not late:
            self._proposal = None
            self.committed, self.digest = proposal.version, proposal.digest
            self._turn()
            return [Record("committed", proposal.version, proposal.digest), Finish(proposal.version, True)]
        if now >= proposal.until:
            return self._abort(f"no answer within {self._limits.prepare_s:g} s from {', '.join(sorted(late)[:5])}")
        return []

    def _abort(self, reason: str) -> list[Instruction]:
        proposal, self._proposal = self._proposal, None
        assert proposal is not None
        self._turn()
        aborts: list[Instruction] = [Abort(name, proposal.version) for name in sorted(self._members)]
        return [*aborts, Finish(proposal.version, False, reason)]

    def _turn(self) -> None:
        """Everybody lacks something else from here on, and is asked at once."""
        for name, member in list(self._members.items()):
            self._set(name, replace(member, asked_at=float("-inf"), tries=0))

    def _ask(self, names: Iterable[str], now: float) -> list[Instruction]:
        asked: list[Instruction] = []
        for name in names:
            member = self._members.get(name)
            if member is None or now < member.asked_at + self._limits.again_s:
                continue
            if member.running < self.committed and member.tries >= self._limits.tries and not member.leaving:
                member = replace(member, leaving=f"it does not answer to the commit of version {self.committed}")
            instruction = self._lacks(name, member)
            if instruction is not None:
                self._set(name, replace(member, asked_at=now, tries=member.tries + 1))
                asked.append(instruction)
        return asked

    def _lacks(self, name: str, member: _Member) -> Instruction | None:
        """The one thing to ask of it: first what is committed, then what is proposed."""
        if member.leaving:
            return Restart(name, member.leaving)
        if member.running != self.committed:
            return Commit(name, self.committed, self.digest)
        if self._proposal is not None:
            ready = member.ready == self._proposal.version
            return None if ready else Prepare(name, self._proposal.version, self._proposal.digest)
        return None if member.drained == self.committed else Drain(name, self.committed)

    def _set(self, name: str, member: _Member | None) -> None:
        self._lacking.discard(name)
        self._leaving.discard(name)
        if member is None:
            self._members.pop(name, None)
            return
        self._members[name] = member
        if member.leaving:
            self._leaving.add(name)
        if self._lacks(name, member) is not None:
            self._lacking.add(name)

    def _settle(self) -> list[Instruction]:
        if not self._members or self._lacking or self._proposal is not None or self._settled == self.committed:
            return []
        self._settled = self.committed
        return [Settled(self.committed)]

    def _wake(self, now: float) -> list[Instruction]:
        if not self._lacking or now < self._wake_at:
            return []
        self._wake_at = now + self._limits.again_s
        if self._proposal is not None:
            self._wake_at = max(now, min(self._wake_at, self._proposal.until))
        return [WakeAt(self._wake_at)]
