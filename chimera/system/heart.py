"""The running node that mends itself: what the watch notices becomes a patch, tried, applied, watched, kept or undone.

    node = HeartNode(HeartSettings(workspace="app", hidden_tests="hidden", home="heart", owners={"lag_*": "shop.till"}))
    node.source = PushSource()
    node.anomaly_engine = AnomalyDetectionEngine()
    node.code_generator = CodeGenerator(open_model("anthropic:..."))
    node.hot_reload = HotReloadManager(clock=SystemClock())
    await node.run()

One patch at a time is on its way to the code: two at once could not be told apart by what they do. However the node
ends, no patch stays of which nobody has seen that it helps.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import deque
from collections.abc import Awaitable, Sequence
from contextlib import closing
from dataclasses import dataclass

from chimera.anomaly.engine import AnomalyDetectionEngine
from chimera.anomaly.sources.source import Source
from chimera.core.clock import Clock, SystemClock
from chimera.core.errors import InputError, Overloaded, PatchConflict
from chimera.core.watching import Alert, Reading
from chimera.healing.apply import recover
from chimera.healing.failure import Failure, failure_of
from chimera.healing.generator import CodeGenerator
from chimera.healing.healer import Healer, PatchResult
from chimera.healing.memory import PatchMemory
from chimera.healing.probation import Outcome, Probation
from chimera.healing.sandbox import Sandbox, open_sandbox
from chimera.healing.workspace import snapshot
from chimera.reload.ending import to_the_end
from chimera.reload.manager import HotReloadManager
from chimera.system.heart_log import HeartEvent, HeartLog, Step, plain
from chimera.system.heart_settings import HeartSettings, Review
from chimera.system.loading import InProcess, InSwarm, SwarmClient
from chimera.system.mending import Mending, module_file
from chimera.system.metacognition import Decision, Event, MetacognitiveEngine
from chimera.system.proposals import Asked, Proposal

__all__ = ["HeartEvent", "HeartNode", "HeartSettings", "Review", "Step"]

_log = logging.getLogger(__name__)

MAX_EVENTS = 1_000
MAX_WAITING = 16
"""Patches that wait for the one that is on its way."""


@dataclass(frozen=True, slots=True)
class _Work:
    """`agreed` is the patch, if there is one already."""

    decision: Decision
    failure: Failure
    alert: Alert | None
    agreed: Proposal | None = None


class HeartNode:
    """Holds the parts and runs by itself. Set the parts before `run`; `sandbox` is the first that works, if not set.

    `hot_reload` is a `HotReloadManager` for code of this process, or a `SwarmCoordinator` for the code of its agents.
    What needs a person's agreement (`HeartSettings.review_below`) is shown to `review`. Without one, or if it does not
    answer, the patch is held back, as the step "asked", until `agree` or `refuse`. All methods are for one event loop.
    """

    def __init__(self, settings: HeartSettings, *, review: Review | None = None, clock: Clock | None = None) -> None:
        self.source: Source | None = None
        self.anomaly_engine: AnomalyDetectionEngine | None = None
        self.code_generator: CodeGenerator | None = None
        self.hot_reload: HotReloadManager | SwarmClient | None = None
        self.sandbox: Sandbox | None = None
        self.events: deque[HeartEvent] = deque(maxlen=MAX_EVENTS)
        self._settings = settings
        self._workspace, self._home = settings.workspace.absolute(), settings.home.absolute()
        self._review = review
        self._clock = clock or SystemClock()
        self._mind = MetacognitiveEngine(settings.owners, clock=self._clock, options=settings.deciding)
        self._log = HeartLog(self._home, settings.name, settings.journal_url)
        self._asked = Asked(self._home / "reviews")
        self._agreed: set[str] = set()
        self._healer: Healer | None = None
        self._mending: Mending | None = None
        self._waiting: asyncio.Queue[_Work] = asyncio.Queue(MAX_WAITING)
        self._probation: tuple[str, float, Probation, asyncio.Future[Outcome]] | None = None
        self._ended = False

    async def run(self) -> None:
        """Watch and heal until the source ends and what was begun is done. Raises SourceError, SandboxUnavailable.

        What a crash left half applied, or applied and not yet proved, is undone first. However it ends, a patch that is
        on probation is taken back. Raises InputError where a part is missing, StorageError without its journal.
        """
        self._healer = await asyncio.to_thread(self._prepared)
        source, engine = self.source, self.anomaly_engine
        assert source is not None and engine is not None
        healing: asyncio.Task[None] | None = None
        try:
            await self._log.open()
            await to_the_end(self._take_back_what_is_left())
            healing = asyncio.create_task(self._heal_in_turn())
            async with source:
                async for batch in source.batches():
                    alerts = await engine.push(batch)
                    self._follow(batch)
                    for alert in alerts:
                        self._notice_safely(alert)
                    await self._log.flush_if_it_can()
                    if healing.done():
                        break
            self._ended = True
            if self._probation is not None and not self._probation[3].done():
                self._probation[3].set_result("useless")  # no more readings will come
            await _either(self._waiting.join(), healing)
        finally:
            await to_the_end(self._end(healing, self._healer))
        if not healing.cancelled() and (error := healing.exception()):
            raise error

    async def _end(self, healing: asyncio.Task[None] | None, healer: Healer) -> None:
        while healing is not None and not healing.done():
            healing.cancel()  # again, if something on its way caught it
            await asyncio.wait((healing,), timeout=1.0)
        await self._log.close()
        if healer.memory is not None:
            healer.memory.close()

    def report(self, failure: Failure) -> Decision:
        """A failure that no metric told: a traceback, a test, what a person says."""
        return self._notice(failure, None)

    def asked(self) -> list[str]:
        """The ids of the patches that wait for a person."""
        return self._asked.ids()

    def agree(self, patch_id: str) -> None:
        """A patch that was held back is applied, when it is its turn, and watched. The node has to run for that.

        If the files have changed since, it is not, and the step "failed" says so. Raises InputError where none of that
        id waits, Overloaded where too many are on their way.
        """
        proposal = self._asked.read(patch_id)
        if patch_id in self._agreed:
            raise InputError(f"patch {patch_id} has been agreed to already, and waits for its turn")
        try:
            self._waiting.put_nowait(_Work(proposal.decision, proposal.failure, proposal.alert, proposal))
        except asyncio.QueueFull:
            raise Overloaded(f"{MAX_WAITING} patches wait already: agree later", 60.0) from None
        self._agreed.add(patch_id)
        self._mind.resume(proposal.decision)
        self._tell("agreed", proposal.decision.subject, proposal.patch.summary, patch_id)

    def refuse(self, patch_id: str) -> None:
        """A patch that was held back is forgotten, and remembered as rejected. Raises InputError where none waits."""
        proposal = self._asked.read(patch_id)
        if patch_id in self._agreed:
            raise InputError(f"patch {patch_id} has been agreed to already, and waits for its turn")
        self._asked.drop(patch_id)
        self._remember_rejected(proposal, "a person refused it")
        self._tell("rejected", proposal.decision.subject, "a person refused it", patch_id)

    def _prepared(self) -> Healer:
        """The parts, put together. Blocks: it probes the sandbox."""
        parts = ("source", "anomaly_engine", "code_generator", "hot_reload")
        if missing := [part for part in parts if getattr(self, part) is None]:
            raise InputError(f"a node needs its parts before it runs: set {', '.join(missing)}")
        assert self.code_generator is not None and self.hot_reload is not None
        self._home.mkdir(parents=True, exist_ok=True)
        if undone := recover(self._workspace, log=self._home / "changes.db"):
            _log.warning("%d changes of %s were half done, and are undone", undone, self._workspace)
        manager = self.hot_reload
        loading = InProcess(manager) if isinstance(manager, HotReloadManager) else InSwarm(manager)
        self._mending = Mending(self._workspace, self._home, loading)
        return Healer(
            self.code_generator,
            workspace=self._workspace,
            hidden_tests=self._settings.hidden_tests,
            sandbox=self.sandbox or open_sandbox(),
            memory=PatchMemory(self._home / "patches.db", clock=self._clock),
            options=self._settings.healing,
            clock=self._clock,
        )

    async def _take_back_what_is_left(self) -> None:
        """What a process that was killed had on probation. Raises InputError where its note cannot be read."""
        assert self._mending is not None
        if (proposal := await asyncio.to_thread(self._mending.left)) is not None:
            await self._take_back(proposal, "the node was killed before its probation was over")

    def _notice_safely(self, alert: Alert) -> None:
        try:
            self._notice(alert, alert)
        except Exception as error:  # whatever it is, the node goes on watching
            _log.warning("%s of %s came to nothing", alert.event, alert.metric, exc_info=True)
            self._tell("failed", alert.metric, f"{type(error).__name__}: {error}")

    def _notice(self, event: Event, alert: Alert | None) -> Decision:
        module = self._mind.owner_of(event)
        failure = event if isinstance(event, Failure) else None
        if alert is not None and module is not None:
            failure = failure_of(alert, module, self._readings(alert.metric))
        rate = self._healer.success_rate(failure) if self._healer and failure else None
        decision = self._mind.consider(event, success_rate=rate)
        what = event.kind if isinstance(event, Failure) else f"{event.event} of {event.metric}"
        self._tell("noticed", decision.subject, what)
        self._tell("decided", decision.subject, f"{decision.action}: {decision.reason}")
        if decision.action == "patch":
            assert failure is not None, "what has no module is never patched"
            try:
                self._waiting.put_nowait(_Work(decision, failure, alert))
            except asyncio.QueueFull:
                self._mind.settled(decision, kept=False)
                self._tell("failed", decision.subject, f"{MAX_WAITING} patches wait already")
        return decision

    async def _heal_in_turn(self) -> None:
        while True:
            work = await self._waiting.get()
            kept = False
            try:
                kept = await self._heal(work)
            except Exception as error:  # whatever it is, the node goes on beating
                _log.warning("healing %s failed", work.decision.subject, exc_info=True)
                patch = work.agreed.patch.id if work.agreed else ""
                self._tell("failed", work.decision.subject, f"{type(error).__name__}: {error}", patch)
            finally:
                self._mind.settled(work.decision, kept=kept)
                self._waiting.task_done()
            await self._log.flush_if_it_can()

    async def _heal(self, work: _Work) -> bool:
        """One patch, from the failure to the end of its probation. Whether it was kept."""
        if work.alert is not None and self._ended:
            self._tell(
                "failed", work.decision.subject, "the source has ended: nothing would tell whether a patch helps"
            )
            return False
        if work.agreed is None:
            proposal = await self._proposed(work)
            return proposal is not None and await self._try(proposal)
        patch_id = work.agreed.patch.id
        try:
            return await self._try(work.agreed)
        finally:
            self._agreed.discard(patch_id)

    async def _proposed(self, work: _Work) -> Proposal | None:
        """A patch that may be applied, or None; why not has been told."""
        assert self._healer is not None
        decision, failure = work.decision, work.failure
        own = module_file(self._workspace, failure.module)
        texts = (await asyncio.to_thread(snapshot, self._workspace)).texts
        result = await self._healer.heal(failure, [own, *self._settings.further.get(failure.module, ())])
        if result.chosen is None:
            why = result.tried[-1].verdict.reason if result.tried else "there was none"
            self._tell("rejected", decision.subject, f"{len(result.tried)} patches, the last: {why}")
            return None
        proposal = Proposal(
            decision=decision,
            failure=failure,
            alert=work.alert,
            signature=result.signature,
            patch=result.chosen.patch,
            verdict=result.chosen.verdict,
            confidence=result.confidence,
            before={path: texts.get(path) for path in result.changes},
            changes=result.changes,
        )
        return proposal if await self._may_be_applied(proposal, result) else None

    async def _may_be_applied(self, proposal: Proposal, result: PatchResult) -> bool:
        below, subject, patch_id = self._settings.review_below, proposal.decision.subject, proposal.patch.id
        if proposal.confidence >= below if below is not None else self._review is None:
            return True
        why = f"its confidence is {proposal.confidence:.2f}"
        if self._review is not None:
            answering = asyncio.ensure_future(self._review(proposal.decision, result))
            try:
                await asyncio.wait((answering,), timeout=self._settings.review_s)
            finally:
                answering.cancel()
            if answering.done() and not answering.cancelled():
                if not (agrees := answering.result()):
                    self._tell("rejected", subject, "the review does not agree", patch_id)
                return bool(agrees)
            why = "the review gave no answer"
        self._asked.keep(proposal)  # and told of in one, so that nobody agrees in between
        self._tell("asked", subject, f"{why}: agree to it or refuse it. {proposal.patch.summary}", patch_id)
        return False

    async def _try(self, proposal: Proposal) -> bool:
        """The patch applied, and watched. However this ends, it is there only if it was kept."""
        assert self._mending is not None
        subject, patch_id = proposal.decision.subject, proposal.patch.id
        await self._log.flush()
        try:
            await to_the_end(self._mending.apply(proposal))
            self._asked.drop(patch_id)
            self._tell("applied", subject, proposal.patch.summary, patch_id)
            outcome = await self._watched(proposal)
            if outcome == "kept":
                await to_the_end(self._keep(proposal))
                return True
        except asyncio.CancelledError:
            await to_the_end(self._take_back(proposal, "the node was ended", to_blame=False))
            raise
        except BaseException as error:
            await to_the_end(self._take_back(proposal, f"{type(error).__name__}: {error}", to_blame=False))
            raise
        await to_the_end(self._take_back(proposal, f"its metric: {outcome}"))
        return False

    async def _keep(self, proposal: Proposal) -> None:
        assert self._mending is not None
        await self._mending.keep()
        self._tell("kept", proposal.decision.subject, "", proposal.patch.id)

    async def _take_back(self, proposal: Proposal, why: str, *, to_blame: bool = True) -> None:
        """Out of the process and the files, if it is there. Told, and remembered if the patch is to blame."""
        assert self._mending is not None
        subject, patch_id = proposal.decision.subject, proposal.patch.id
        try:
            if not await self._mending.take_back(proposal):
                return
        except PatchConflict as error:
            await self._mending.keep()
            self._tell("failed", subject, f"it stays, although {why}: {error}", patch_id)
            return
        self._tell("rolled_back", subject, why, patch_id)
        if to_blame:
            await asyncio.to_thread(self._remember_rejected, proposal, f"rolled back: {why}")

    def _remember_rejected(self, proposal: Proposal, why: str) -> None:
        with closing(PatchMemory(self._home / "patches.db", clock=self._clock)) as memory:
            memory.remember(proposal.signature, proposal.patch, accepted=False, reason=why)

    async def _watched(self, proposal: Proposal) -> Outcome:
        """What the metric says of the patch. One that no metric told of is kept: its tests have spoken."""
        alert = proposal.alert
        if alert is None:
            return "kept"
        if self._ended:
            return "useless"
        readings = sorted({**dict(proposal.failure.readings), **dict(self._readings(alert.metric))}.items())
        probation = Probation.of(alert, readings, options=self._settings.probation)
        decided: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._probation = (alert.metric, readings[-1][0] if readings else -math.inf, probation, decided)
        try:
            async with asyncio.timeout(self._settings.probation_s):
                return await decided
        except TimeoutError:
            return "useless"
        finally:
            self._probation = None

    def _follow(self, batch: Sequence[Reading]) -> None:
        """Show the patch on probation the readings of its metric that are later than those before it."""
        if self._probation is None:
            return
        metric, after, probation, decided = self._probation
        for reading in batch:
            if reading.metric != metric or reading.timestamp <= after or not math.isfinite(reading.value):
                continue
            if not decided.done() and (outcome := probation.take(reading.value)):
                decided.set_result(outcome)

    def _readings(self, metric: str) -> list[tuple[float, float]]:
        """Those that the engine remembers and that are numbers; none of a metric that it has not seen."""
        assert self.anomaly_engine is not None
        try:
            times, values = self.anomaly_engine.history(metric)
        except InputError:
            return []
        known = zip(times.tolist(), values.tolist(), strict=True)
        return [(at, value) for at, value in known if math.isfinite(at) and math.isfinite(value)]

    def _tell(self, step: Step, subject: str, detail: str = "", patch: str = "") -> None:
        at_s = self._clock.now()
        event = HeartEvent(at_s=at_s, step=step, subject=plain(subject), detail=plain(detail), patch=patch)
        self.events.append(event)
        self._log.tell(event)


async def _either(work: Awaitable[None], other: asyncio.Task[None]) -> None:
    """Until `work` is done, or `other` is, which never should be."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait((task, other), return_when=asyncio.FIRST_COMPLETED)
    finally:
        task.cancel()
