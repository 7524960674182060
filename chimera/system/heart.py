"""The running node that mends itself: what the watch notices becomes a patch, tried, applied, watched, kept or undone.

    node = HeartNode(HeartSettings(workspace="app", hidden_tests="hidden", home="heart", owners={"lag_*": "shop.till"}))
    node.source = PushSource()
    node.anomaly_engine = AnomalyDetectionEngine()
    node.code_generator = CodeGenerator(open_model("anthropic:..."))
    node.hot_reload = HotReloadManager(clock=SystemClock())
    await node.run()

One patch at a time is on its way to the code: two at once could not be told apart by what they do.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field

from chimera.anomaly.engine import AnomalyDetectionEngine
from chimera.anomaly.sources.source import Source
from chimera.core.clock import Clock, SystemClock
from chimera.core.errors import InputError, MissionError
from chimera.core.types import Frozen, Seconds
from chimera.core.watching import Alert, Reading
from chimera.healing.apply import Applied, apply, recover, roll_back
from chimera.healing.failure import Failure, failure_of
from chimera.healing.generator import CodeGenerator
from chimera.healing.healer import Healer, HealerOptions, PatchResult
from chimera.healing.memory import PatchMemory
from chimera.healing.probation import Outcome, Probation, ProbationOptions
from chimera.healing.sandbox import Sandbox, open_sandbox
from chimera.reload.manager import HotReloadManager
from chimera.system.metacognition import Decision, Event, MetacognitionOptions, MetacognitiveEngine

_log = logging.getLogger(__name__)

MAX_EVENTS = 1_000
MAX_WAITING = 16
"""Patches that wait for the one that is on its way."""

Step = Literal["noticed", "decided", "rejected", "applied", "kept", "rolled_back", "failed"]

Review = Callable[[Decision, PatchResult], Awaitable[bool]]
"""A person, or whoever else has to agree, before a patch is applied."""


class HeartEvent(Frozen):
    """One step of the node. `at_s` is wall-clock seconds since the epoch; `patch` is the id of the patch."""

    at_s: float
    step: Step
    subject: str
    detail: str = ""
    patch: str = ""


class HeartSettings(Frozen):
    """What a node heals, and how. `owners` say which module is to blame for a metric: glob -> dotted name.

    `workspace` is the folder that the modules are imported from; `hidden_tests` are tests that no generator sees.
    `home` keeps the log of changes, the memory and `heart.jsonl`, a line for each step, each on disk before the next.
    """

    workspace: Path
    hidden_tests: Path
    home: Path
    owners: dict[str, str]
    deciding: MetacognitionOptions = MetacognitionOptions()
    healing: HealerOptions = HealerOptions()
    probation: ProbationOptions = ProbationOptions()
    probation_s: Seconds = 600.0
    """A probation that has seen too few readings by then ends as useless."""
    further: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """Module -> files of the workspace that a model is shown besides the module's own."""


class HeartNode:
    """Holds the parts and runs by itself. Set the parts before `run`; `sandbox` is the first that works, if not set.

    With `review` nothing is applied that it does not agree to.
    """

    def __init__(self, settings: HeartSettings, *, review: Review | None = None, clock: Clock | None = None) -> None:
        self.source: Source | None = None
        self.anomaly_engine: AnomalyDetectionEngine | None = None
        self.code_generator: CodeGenerator | None = None
        self.hot_reload: HotReloadManager | None = None
        self.sandbox: Sandbox | None = None
        self.events: deque[HeartEvent] = deque(maxlen=MAX_EVENTS)
        self._settings, self._workspace, self._home = settings, settings.workspace, settings.home
        self._review = review
        self._clock = clock or SystemClock()
        self._mind = MetacognitiveEngine(settings.owners, clock=self._clock, options=settings.deciding)
        self._healer: Healer | None = None
        self._waiting: asyncio.Queue[tuple[Decision, Failure, Alert | None]] = asyncio.Queue(MAX_WAITING)
        self._probation: tuple[str, Probation, asyncio.Future[Outcome]] | None = None
        self._ended = False

    async def run(self) -> None:
        """Watch and heal until the source ends and what was begun is done. Raises SourceError, SandboxUnavailable.

        What a crash left half applied is undone first. Raises InputError where a part is missing.
        """
        self._healer = await asyncio.to_thread(self._prepared)
        healing = asyncio.create_task(self._heal_in_turn())
        source, engine = self.source, self.anomaly_engine
        assert source is not None and engine is not None
        try:
            async with source:
                async for batch in source.batches():
                    alerts = await engine.push(batch)
                    self._follow(batch)
                    for alert in alerts:
                        self._notice(alert, alert)
                    if healing.done():
                        break
            self._ended = True
            if self._probation is not None and not self._probation[2].done():
                self._probation[2].set_result("useless")  # no more readings will come
            await _either(self._waiting.join(), healing)
        finally:
            healing.cancel()
            await asyncio.wait((healing,))
            if self._healer.memory is not None:
                self._healer.memory.close()
        if not healing.cancelled() and (error := healing.exception()):
            raise error

    def report(self, failure: Failure) -> Decision:
        """A failure that no metric told: a traceback, a test, what a person says."""
        return self._notice(failure, None)

    def _prepared(self) -> Healer:
        """The parts, put together. Blocks: it probes the sandbox."""
        parts = ("source", "anomaly_engine", "code_generator", "hot_reload")
        if missing := [part for part in parts if getattr(self, part) is None]:
            raise InputError(f"a node needs its parts before it runs: set {', '.join(missing)}")
        assert self.code_generator is not None
        self._home.mkdir(parents=True, exist_ok=True)
        if undone := recover(self._workspace, log=self._home / "changes.db"):
            _log.warning("%d changes of %s were half done, and are undone", undone, self._workspace)
        return Healer(
            self.code_generator,
            workspace=self._workspace,
            hidden_tests=self._settings.hidden_tests,
            sandbox=self.sandbox or open_sandbox(),
            memory=PatchMemory(self._home / "patches.db", clock=self._clock),
            options=self._settings.healing,
            clock=self._clock,
        )

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
                self._waiting.put_nowait((decision, failure, alert))
            except asyncio.QueueFull:
                self._mind.settled(decision, kept=False)
                self._tell("failed", decision.subject, f"{MAX_WAITING} patches wait already")
        return decision

    async def _heal_in_turn(self) -> None:
        while True:
            decision, failure, alert = await self._waiting.get()
            kept = False
            try:
                kept = await self._heal(decision, failure, alert)
            except Exception as error:  # whatever it is, the node goes on beating
                _log.warning("healing %s failed", decision.subject, exc_info=True)
                self._tell("failed", decision.subject, f"{type(error).__name__}: {error}")
            finally:
                self._mind.settled(decision, kept=kept)
                self._waiting.task_done()

    async def _heal(self, decision: Decision, failure: Failure, alert: Alert | None) -> bool:
        """One patch, from the failure to the end of its probation. Whether it was kept."""
        assert self._healer is not None
        paths = [self._file_of(failure.module), *self._settings.further.get(failure.module, ())]
        result = await self._healer.heal(failure, paths)
        if result.chosen is None:
            why = result.tried[-1].verdict.reason if result.tried else "there was none"
            self._tell("rejected", decision.subject, f"{len(result.tried)} patches, the last: {why}")
            return False
        patch = result.chosen.patch
        if self._review is not None and not await self._review(decision, result):
            self._tell("rejected", decision.subject, "the review does not agree", patch.id)
            return False
        applied = await self._apply(result)
        self._tell("applied", decision.subject, patch.summary, patch.id)
        outcome = await self._watched(alert)
        if outcome == "kept":
            self._tell("kept", decision.subject, "", patch.id)
            return True
        await self._undo(applied)
        self._tell("rolled_back", decision.subject, f"its metric: {outcome}", patch.id)
        if self._healer.memory is not None:
            self._healer.memory.remember(result.signature, patch, accepted=False, reason=f"rolled back: {outcome}")
        return False

    async def _apply(self, result: PatchResult) -> Applied:
        """The files changed and the modules loaded anew, or everything as before. Raises what those two raise."""
        assert self.hot_reload is not None
        changes = {path: text.encode() for path, text in result.changes.items()}
        applied = await asyncio.to_thread(apply, self._workspace, changes, log=self._home / "changes.db")
        loaded: list[str] = []
        try:
            for module in _modules(result.changes):
                await self.hot_reload.reload(module, self._workspace / self._file_of(module))
                loaded.append(module)
        except BaseException:
            for module in reversed(loaded):
                await self.hot_reload.roll_back(module, lossy=True)
            await asyncio.to_thread(roll_back, applied)
            raise
        return applied

    async def _undo(self, applied: Applied) -> None:
        """The version before runs again at once; its files follow."""
        assert self.hot_reload is not None
        for module in reversed(_modules(applied.paths)):
            await self.hot_reload.roll_back(module, lossy=True)
        await asyncio.to_thread(roll_back, applied)

    async def _watched(self, alert: Alert | None) -> Outcome:
        """What the metric says of the patch. One that no metric told of is kept: its tests have spoken."""
        if alert is None:
            return "kept"
        if self._ended:
            return "useless"
        probation = Probation.of(alert, self._readings(alert.metric), options=self._settings.probation)
        decided: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._probation = (alert.metric, probation, decided)
        try:
            async with asyncio.timeout(self._settings.probation_s):
                return await decided
        except TimeoutError:
            return "useless"
        finally:
            self._probation = None

    def _follow(self, batch: Sequence[Reading]) -> None:
        """Show the patch on probation the readings of its metric."""
        if self._probation is None:
            return
        metric, probation, decided = self._probation
        for reading in batch:
            if reading.metric == metric and not decided.done() and (outcome := probation.take(reading.value)):
                decided.set_result(outcome)

    def _readings(self, metric: str) -> list[tuple[float, float]]:
        assert self.anomaly_engine is not None
        times, values = self.anomaly_engine.history(metric)
        return list(zip(times.tolist(), values.tolist(), strict=True))

    def _file_of(self, module: str) -> str:
        """The file of a module, relative to the workspace. Raises MissionError where there is none."""
        stem = module.replace(".", "/")
        for path in (f"{stem}.py", f"{stem}/__init__.py"):
            if (self._workspace / path).is_file():
                return path
        raise MissionError(f"{module!r} is no module of {self._workspace}: name another owner for the metric")

    def _tell(self, step: Step, subject: str, detail: str = "", patch: str = "") -> None:
        event = HeartEvent(at_s=self._clock.now(), step=step, subject=subject, detail=detail[:2_000], patch=patch)
        self.events.append(event)
        self._home.mkdir(parents=True, exist_ok=True)
        with open(self._home / "heart.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(event.model_dump()) + "\n")
            file.flush()
            os.fsync(file.fileno())


def _modules(paths: Mapping[str, str] | Sequence[str]) -> list[str]:
    """The dotted names of the Python files among `paths`."""
    names = [path.removesuffix(".py").replace("/", ".") for path in sorted(paths) if path.endswith(".py")]
    return [name.removesuffix(".__init__") for name in names]


async def _either(work: Awaitable[None], other: asyncio.Task[None]) -> None:
    """Until `work` is done, or `other` is, which never should be."""
    task = asyncio.ensure_future(work)
    await asyncio.wait((task, other), return_when=asyncio.FIRST_COMPLETED)
    task.cancel()
