"""The missions of one coordinator: each brain is told what happened, its records are written, then its wishes done."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from chimera.actors.crew import Crew
from chimera.actors.questions import Questions
from chimera.actors.scribe import Scribe
from chimera.actors.sessions import Results, pack_result, read_result
from chimera.actors.tracing import Tracer
from chimera.core.clock import Clock
from chimera.core.errors import ChimeraError, InputError, StorageError
from chimera.core.events import Event, EventKind
from chimera.core.types import MissionState, Spend, TaskResult
from chimera.storage.journal import MAX_READ, Journal
from chimera.swarm.attempt import Attempt, Report
from chimera.swarm.brain import MissionBrain
from chimera.swarm.budget import total
from chimera.swarm.decomposition import TaskDecomposer
from chimera.swarm.instructions import (
    Appraise,
    Ask,
    Cancel,
    Cancelled,
    Dispatch,
    Finish,
    Happening,
    Instruction,
    Record,
    Reported,
    Resumed,
    Started,
    Tick,
    WakeAt,
)
from chimera.swarm.replay import rebuild
from chimera.swarm.tally import Tally
from chimera.swarm.trace import without_content

log = logging.getLogger(__name__)

MAX_EVENTS = 100
"""Events in one answer: a reply may be a megabyte."""


@dataclass(slots=True)
class _Mission:
    brain: MissionBrain | None
    session: str = ""
    started: float = 0.0
    last_seq: int = 0
    news: asyncio.Event | None = None
    packed: bytes | None = None
    alarm: asyncio.TimerHandle | None = None
    events: list[Event] | None = None


class Missions:
    """Runs the brains. `crew` is set by the coordinator before the first mission."""

    crew: Crew

    def __init__(
        self,
        *,
        swarm: str,
        journal: Journal,
        scribe: Scribe,
        clock: Clock,
        tally: Tally,
        decomposer: TaskDecomposer,
        tracer: Tracer | None,
        ended: Callable[[str, bytes], None],
        questions: Questions,
        paid: Callable[[str, float], None] = lambda mission_id, usd: None,
    ) -> None:
        self._swarm = swarm
        self._journal = journal
        self._scribe = scribe
        self._clock = clock
        self._tally = tally
        self._decomposer = decomposer
        self._tracer = tracer
        self._ended = ended
        self._paid = paid
        self._questions = questions
        self._waiting: set[str] = set()
        self._missions: dict[str, _Mission] = {}
        self._results = Results()
        self._look_ups: set[asyncio.Task[None]] = set()
        self._closed = False

    def __contains__(self, mission_id: str) -> bool:
        return mission_id in self._missions or mission_id in self._results

    @property
    def running(self) -> int:
        """How many missions have not ended, but for those that only wait for a person."""
        return len(self._missions) - len(self._waiting)

    @property
    def held(self) -> int:
        """How many missions do nothing but wait for a person."""
        return len(self._waiting)

    @property
    def reserved(self) -> Spend:
        """What attempts in progress may still spend, over all missions that have a budget."""
        return total(each.brain.reserved for each in self._missions.values() if each.brain and each.brain.limited)

    def start(self, brain: MissionBrain, session: str) -> None:
        """Admit a mission."""
        now = self._clock.monotonic()
        self._missions[brain.mission_id] = self._new(brain, session, now)
        self._tally.admitted()
        self.tell(brain.mission_id, Started())

    def tell(self, mission_id: str, happening: Happening) -> None:
        """Let a mission's brain know; what it wants is done as soon as what it records is durable."""
        mission = self._missions.get(mission_id)
        if mission is None or mission.brain is None or self._closed:
            return
        now = self._clock.monotonic()
        try:
            steps = mission.brain.handle(happening, now, self._clock.now())
        except Exception as error:  # whatever it is, the client must hear of it
            log.exception("mission %s", mission_id)
            self._fail(mission_id, mission, error)
            return
        self._carry_out(mission_id, mission, steps)

    async def heard(self, reports: Sequence[Report], durable: Callable[[], None]) -> None:
        """Reports of one manager. `durable` is called once all that comes of them is in the journal."""
        for report in reports:
            self.tell(report.mission_id, Reported(report))
        self._scribe.put([], durable, lambda error: None)
        await self._scribe.room()

    def again(self, attempt_ids: set[str]) -> list[Attempt]:
        """These attempts, of those that are still wanted."""
        now = self._clock.monotonic()
        wanted = []
        for mission in self._missions.values():
            if mission.brain and not attempt_ids.isdisjoint(mission.brain.open_attempts):
                wanted += [attempt for attempt in mission.brain.outstanding(now) if attempt.id in attempt_ids]
        return wanted

    async def attend(self, mission_id: str, session: str) -> bytes | None:
        """`session` will be told of this mission's end; if it has ended, its packed result is returned.

        Raises InputError for one that is not known here, StorageError.
        """
        if mission := self._missions.get(mission_id):
            mission.session = session
            return None
        return self._results.get(mission_id) or pack_result(await self._from_journal(mission_id))

    async def result(self, mission_id: str, wait_s: float) -> TaskResult | None:
        """The result, waiting up to `wait_s` for it; None when it is not there yet."""
        mission = self._missions.get(mission_id)
        if mission is None:
            packed = self._results.get(mission_id)
            return read_result(packed) if packed else await self._from_journal(mission_id)
        until = self._clock.monotonic() + wait_s
        while mission.packed is None and (left := until - self._clock.monotonic()) > 0:
            await self._news(mission, left)
        return read_result(mission.packed) if mission.packed else None

    async def events(self, mission_id: str, after: int, wait_s: float) -> list[Event]:
        """The next events after `after`, waiting up to `wait_s` for the first. Empty: nothing new, or all is told.

        Raises InputError when there is no such mission.
        """
        mission = self._missions.get(mission_id)
        if mission is not None and mission.last_seq <= after:
            await self._news(mission, wait_s)
        if self._closed:
            return []
        events = await self._journal.read(mission_id, after=after, limit=MAX_EVENTS)
        if not events and not after and mission_id not in self._missions:
            raise InputError(f"no mission {mission_id!r} in this journal")
        return events

    async def read(self, mission_id: str) -> list[Event]:
        """Every event of a mission. Raises InputError when there is none of that name."""
        events: list[Event] = []
        while True:
            more = await self._journal.read(mission_id, after=len(events))
            events += more
            if len(more) < MAX_READ:
                break
        if not events:
            raise InputError(f"no mission {mission_id!r} in this journal")
        return events

    async def recover(self, mission_id: str, *, taken_over: bool = False) -> TaskResult | None:
        """Go on with a mission from its journal. Attempts in progress are sent again: agents that have one ignore it.

        With `taken_over` it was another swarm's, and its deadline begins anew. The result, if it had ended.
        Raises StorageError for a journal that cannot be followed, InputError when there is none.
        """
        events = await self.read(mission_id)
        if mission_id in self:  # by now: another may have asked for it meanwhile
            return await self.result(mission_id, 0.0)
        now, wall = self._clock.monotonic(), self._clock.now()
        brain, rest = rebuild(events, decomposer=self._decomposer, now=now, wall=wall)
        if brain.ended and (done := next((s.result for s in rest if isinstance(s, Finish)), None)) and len(rest) == 1:
            return done
        mission = self._missions[mission_id] = self._new(brain, "", now)
        mission.last_seq = events[-1].seq
        if mission.events is not None:
            mission.events.extend(map(without_content, events))
        self._tally.resumed()
        self._carry_out(mission_id, mission, rest)
        if taken_over:
            self.tell(mission_id, Resumed(self._swarm))
        self.tell(mission_id, Tick())
        if mission.brain is not None:
            self._wake(mission_id, mission, min(brain.wake_at, now + 86_400.0))
            open_now = brain.outstanding(self._clock.monotonic())
            self._scribe.put([], lambda: self._dispatch(open_now), lambda error: None)
            for held in mission.brain.held:  # at once: who lists what waits must miss none
                self._questions.ask(held)
        return None

    def brain(self, mission_id: str) -> MissionBrain | None:
        """The brain of a mission that has not ended here."""
        mission = self._missions.get(mission_id)
        return mission.brain if mission else None

    async def written(self, mission_id: str, seq: int) -> bool:
        """Whether a mission's event `seq`, which is on its way to the journal, has become durable."""
        mission = self._missions.get(mission_id)
        await self._scribe.written()
        return mission is not None and mission.last_seq >= seq

    async def close(self) -> None:
        """Let nothing more happen, and send the traces that wait."""
        self._closed = True
        for mission in self._missions.values():
            if mission.alarm:
                mission.alarm.cancel()
        if self._tracer:
            await asyncio.to_thread(self._tracer.close)

    def cancel(self, mission_id: str, why: str) -> None:
        """End a mission that is running; one that has ended stays as it is."""
        self.tell(mission_id, Cancelled(why))

    def _new(self, brain: MissionBrain, session: str, now: float) -> _Mission:
        return _Mission(brain, session, now, events=[] if self._tracer else None)

    async def _from_journal(self, mission_id: str) -> TaskResult:
        events = await self.read(mission_id)
        if events[-1].kind is not EventKind.MISSION_ENDED:
            raise InputError(f"mission {mission_id!r} is not running here: `chimera missions resume {mission_id}`")
        now, wall = self._clock.monotonic(), self._clock.now()
        _, rest = rebuild(events, decomposer=self._decomposer, now=now, wall=wall)
        for step in rest:
            if isinstance(step, Finish):
                return step.result
        raise StorageError(f"mission {mission_id}: its journal holds an end but no result")

    def _carry_out(self, mission_id: str, mission: _Mission, steps: list[Instruction]) -> None:
        (self._waiting.add if mission.brain and mission.brain.waits else self._waiting.discard)(mission_id)
        events = [step.event for step in steps if isinstance(step, Record)]
        self._scribe.put(
            events,
            lambda: self._perform(mission_id, mission, steps),
            lambda error: self._fail(mission_id, mission, error),
        )

    def _perform(self, mission_id: str, mission: _Mission, steps: list[Instruction]) -> None:
        if mission.packed is not None or self._closed:
            return  # it was ended while this was being written
        attempts: list[Attempt] = []
        for step in steps:
            match step:
                case Record(event):
                    mission.last_seq = event.seq
                    if mission.events is not None:
                        mission.events.append(without_content(event))
                    self._tally.noted(self._clock.monotonic(), event)
                    if event.kind is EventKind.TASK_REVIEWED:
                        self._questions.answered(mission_id, event.task_id)
                case Dispatch(more):
                    attempts.extend(more)
                case Cancel(attempt_ids):
                    gone = set(attempt_ids)
                    attempts = [attempt for attempt in attempts if attempt.id not in gone]
                    for report in self.crew.cancel(attempt_ids):
                        self.tell(report.mission_id, Reported(report))
                case Appraise(appraisals):
                    self.crew.appraise(appraisals)
                case Ask(held):
                    self._questions.ask(held)
                case WakeAt(at_s):
                    self._wake(mission_id, mission, at_s)
                case Finish(result):
                    self._finish(mission_id, mission, result)
        if attempts:
            self._dispatch(attempts)
        _tell_news(mission)

    def _dispatch(self, attempts: Sequence[Attempt]) -> None:
        self._tally.dispatched(len(attempts))
        for refusal in self.crew.dispatch(attempts):
            self.tell(refusal.mission_id, Reported(refusal))

    def _wake(self, mission_id: str, mission: _Mission, at_s: float) -> None:
        if mission.alarm:
            mission.alarm.cancel()
        delay_s = max(0.0, at_s - self._clock.monotonic())
        mission.alarm = asyncio.get_running_loop().call_later(delay_s, self.tell, mission_id, Tick())

    def _fail(self, mission_id: str, mission: _Mission, error: Exception) -> None:
        if self._closed:
            return
        if isinstance(error, StorageError) and not mission.last_seq and mission.brain:
            look_up = asyncio.create_task(self._look_up(mission_id, mission, error))
            self._look_ups.add(look_up)
            look_up.add_done_callback(self._look_ups.discard)
        else:
            self._end_failed(mission_id, mission, error)

    async def _look_up(self, mission_id: str, mission: _Mission, error: Exception) -> None:
        """One whose admission is refused has ended already, if its client asks again because a coordinator died."""
        try:
            self._finish(mission_id, mission, await self._from_journal(mission_id))
        except ChimeraError:
            self._end_failed(mission_id, mission, error)

    def _end_failed(self, mission_id: str, mission: _Mission, error: Exception) -> None:
        kind = type(error).__name__
        message = explanation = str(error) if isinstance(error, ChimeraError) else f"{kind}: {error}"
        if isinstance(error, StorageError):
            explanation += (
                "; as far as the journal holds this mission it has not ended, and goes on from there when its swarm"
                f" is restarted, or by `chimera missions resume {mission_id}`"
            )
        failure = TaskResult(
            mission_id=mission_id,
            state=MissionState.FAILED,
            explanation=explanation,
            error={"kind": kind, "message": message, "reason": ""},
        )
        if mission.brain:
            self.crew.cancel(mission.brain.open_attempts)
        self._finish(mission_id, mission, failure)

    def _finish(self, mission_id: str, mission: _Mission, result: TaskResult) -> None:
        if mission.packed is not None:
            return
        mission.packed = pack_result(result)
        if mission.brain:  # what attempts that are still being ended have spent is not known
            self._paid(mission_id, mission.brain.spent.usd + mission.brain.reserved.usd)
        mission.brain = None
        now = self._clock.monotonic()
        self._tally.mission_ended(now, result.state, now - mission.started)
        if mission.alarm:
            mission.alarm.cancel()
        if self._tracer and mission.events:
            self._tracer.send(mission.events)
            mission.events = None
        self._missions.pop(mission_id, None)
        self._waiting.discard(mission_id)
        self._questions.ended(mission_id)
        self._results.put(mission_id, mission.packed)
        self._ended(mission.session, mission.packed)
        _tell_news(mission)

    async def _news(self, mission: _Mission, wait_s: float) -> None:
        if mission.news is None:
            mission.news = asyncio.Event()
        try:
            async with asyncio.timeout(wait_s):
                await mission.news.wait()
        except TimeoutError:
            return


def _tell_news(mission: _Mission) -> None:
    if mission.news is not None:
        mission.news.set()
        mission.news = None
