"""What a client of our MCP server gets: the swarm, the arena and the watch behind `chimera.mcp.server.Face`.

    face = SwarmFace(swarm, settings=settings, documents=Path("shared"))
    await serve_stdio(face)

A client is a program that somebody else's model steers, so it gets less than a person at the command line: documents
below one folder only, the swarm's own model, and miners that are named here or run no code and open no address.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from pydantic import JsonValue

from chimera.core.clock import Clock, SystemClock
from chimera.core.config import Settings
from chimera.core.errors import ChimeraError, InputError, NotBuilt
from chimera.core.events import Event, EventKind
from chimera.core.types import Budget, Frozen, MissionState, TaskResult
from chimera.core.watching import AnomalyDetected, Reading
from chimera.mcp.asked import AskDuel, MissionStatus, RunMission, WatchMetric
from chimera.mcp.server import Tell
from chimera.swarm.mission import Limits, Mission

if TYPE_CHECKING:
    from chimera.anomaly.forecast.engine import Forecast
    from chimera.system.arena import DuelReport, DuelRequest, Watcher
    from chimera.system.local_watch import Watching

log = logging.getLogger(__name__)

END_S: Final = 30.0
"""Beyond a mission's deadline, for its result to come: one that waits for a person goes on, and its caller is told."""

MAX_ANOMALIES: Final = 100
HARMLESS: Final = re.compile(r"random|minimax|oracle:p=[0-9.]{1,8}")
"""Miners that run no code of strangers, ask no model and open no address."""

Hold = Callable[["DuelRequest", Settings, "Watcher"], Awaitable["DuelReport"]]
"""Holds a duel, as `chimera.system.arena.hold_duel` does."""


class Swarm(Protocol):
    """What is asked of a swarm: `chimera.client.SwarmCoordinator` is one."""

    async def start(self, mission: Mission) -> str: ...

    async def look_up(self, mission_id: str, wait_s: float = 0.0) -> TaskResult | None: ...

    async def cancel(self, mission_id: str) -> TaskResult: ...

    def events(self, mission_id: str) -> AsyncIterator[Event]: ...


class MissionReport(Frozen):
    """A mission as a client sees it. What is None is not known yet; `advice` says what to do about a running one."""

    mission_id: str
    state: MissionState
    value: JsonValue = None
    confidence: float | None = None
    explanation: str | None = None
    error: str | None = None
    elapsed_s: float | None = None
    cost_usd: float | None = None
    advice: str | None = None


class EnvironmentReport(Frozen):
    """A duel in one environment: the contender's counts, and what bounds its win rate among decisive samples."""

    env_id: str
    decision: str
    wins: int
    losses: int
    ties: int
    low: float
    high: float


class DuelAnswer(Frozen):
    """Who won a duel: the contender, or else the champion stays."""

    winner: str
    won: tuple[str, ...]
    needed: int
    environments: tuple[EnvironmentReport, ...]


class AnomalyReport(Frozen):
    """A place where a series is not what it was. `index` counts from 0; it is None for a metric that is watched."""

    kind: str
    score: float
    value: float
    expected: float
    timestamp: float
    index: int | None = None


class ForecastReport(Frozen):
    """What comes next, a value a step, and a band that holds 90 % of it."""

    mean: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


class MetricReport(Frozen):
    """What is seen in a series, or in a metric as of its last reading."""

    values: int
    anomalies: tuple[AnomalyReport, ...] = ()
    more_anomalies: int = 0
    view: dict[str, JsonValue] | None = None
    forecast: ForecastReport | None = None


class SwarmFace:
    """See `chimera.mcp.server.Face`. What is None is not there, and says so when it is asked for."""

    def __init__(
        self,
        swarm: Swarm | None,
        *,
        settings: Settings,
        documents: Path | None = None,
        miners: Collection[str] = (),
        hold: Hold | None = None,
        watch: Watching | None = None,
        clock: Clock | None = None,
    ) -> None:
        """`documents` is the folder below which missions may read; `miners` may duel besides those that are harmless.

        `hold` is `chimera.system.arena.hold_duel`, which needs Ray.
        """
        self._swarm = swarm
        self._settings = settings
        self._documents = documents
        self._miners = frozenset(miners)
        self._hold = hold
        self._watch = watch
        self._clock = clock or SystemClock()
        self._cancelling: set[asyncio.Task[None]] = set()

    async def run_mission(self, asked: RunMission, tell: Tell) -> MissionReport:
        swarm = self._there()
        mission_id = await swarm.start(self._mission(asked))
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(asked.deadline_s + END_S):
                    await _follow(swarm.events(mission_id), tell)
        except asyncio.CancelledError:
            self._cancel(swarm, mission_id)
            raise
        return _report(mission_id, await swarm.look_up(mission_id))

    async def mission_status(self, asked: MissionStatus) -> MissionReport:
        return _report(asked.mission_id, await self._there().look_up(asked.mission_id, asked.wait_s))

    async def ask_duel(self, asked: AskDuel, tell: Tell) -> DuelAnswer:
        if self._hold is None:
            raise NotBuilt("no duels are held here: start the server with an arena")
        for miner in (asked.champion, asked.contender):
            if not HARMLESS.fullmatch(miner) and miner not in self._miners:
                raise InputError(f"{miner} may not duel here: use random, minimax, oracle:p=0.7, or one that is shared")
        from chimera.arena.duel.match import RuleSpec
        from chimera.system.arena import DuelRequest

        played: dict[str, int] = {}

        def watch(env_id: str, _standing: object, pairs: tuple[object, ...]) -> None:
            played[env_id] = played.get(env_id, 0) + len(pairs)
            tell(sum(played.values()), asked.samples * len(asked.env_ids), f"{env_id}: {played[env_id]} challenges")

        try:
            request = DuelRequest(
                champion=asked.champion,
                contender=asked.contender,
                env_ids=asked.env_ids,
                rule=RuleSpec(budget=asked.samples),
                seed=asked.seed,
            )
        except ValueError as error:
            raise InputError("a duel is between two different miners, and names each environment once") from error
        return _duel_answer(await self._hold(request, self._settings, watch))

    async def watch_metric(self, asked: WatchMetric) -> MetricReport:
        if asked.values is not None:
            return await self._judged(asked, asked.values)
        if self._watch is None:
            raise NotBuilt("no metrics are watched here: give values instead of a name")
        assert asked.metric is not None  # the tool's arguments see to it
        view = await self._watch.view(asked.metric, band=True)
        _, history = await self._watch.history(asked.metric)
        forecast = _forecast(tuple(map(float, history)), asked.horizon)
        return MetricReport(values=len(history), view=view.model_dump(mode="json"), forecast=forecast)

    async def _judged(self, asked: WatchMetric, values: tuple[float, ...]) -> MetricReport:
        from chimera.anomaly.engine import AnomalyDetectionEngine
        from chimera.anomaly.options import WatchOptions

        engine = AnomalyDetectionEngine(options=WatchOptions(max_metrics=1), clock=self._clock)
        begin = self._clock.now() - asked.interval_s * len(values)
        readings = [Reading("series", begin + asked.interval_s * at, value) for at, value in enumerate(values)]
        try:
            alerts = [each for each in await engine.push(readings) if isinstance(each, AnomalyDetected)]
        finally:
            await engine.aclose()
        return MetricReport(
            values=len(values),
            anomalies=tuple(_anomaly(each, begin, asked.interval_s) for each in alerts[:MAX_ANOMALIES]),
            more_anomalies=max(0, len(alerts) - MAX_ANOMALIES),
            forecast=_forecast(values, asked.horizon),
        )

    def _there(self) -> Swarm:
        if self._swarm is None:
            raise NotBuilt("no missions are run here: start the server with a swarm")
        return self._swarm

    def _mission(self, asked: RunMission) -> Mission:
        budget = None if asked.budget_usd is None else Budget(usd=asked.budget_usd)
        return Mission(
            goal=asked.goal,
            docs=None
            if self._documents is None and asked.documents is None
            else str(self._folder(asked.documents or ".")),
            model=self._settings.model,
            limits=Limits(deadline_s=asked.deadline_s, budget=budget),
        )

    def _folder(self, given: str) -> Path:
        """The folder, links followed; nothing is told of what lies elsewhere."""
        if self._documents is None:
            raise InputError("no documents are shared here: ask without them")
        root = self._documents.resolve()
        try:
            folder = (root / given).resolve()
            is_there = folder.is_relative_to(root) and folder.is_dir()
        except (OSError, ValueError, RuntimeError):  # too long, a NUL, a loop of links
            is_there = False
        if not is_there:
            raise InputError("there is no such folder among the documents that are shared here")
        return folder

    def _cancel(self, swarm: Swarm, mission_id: str) -> None:
        """In a task of its own: the one that was cancelled can wait for nothing."""
        task = asyncio.create_task(_cancelled(swarm, mission_id))
        self._cancelling.add(task)
        task.add_done_callback(self._cancelling.discard)


async def _cancelled(swarm: Swarm, mission_id: str) -> None:
    try:
        await swarm.cancel(mission_id)
    except ChimeraError as error:
        log.warning("the mission %s goes on without its caller: %s", mission_id, error)


async def _follow(events: AsyncIterator[Event], tell: Tell) -> None:
    """Tell of tasks as they are decided, until the mission has ended."""
    decided = 0
    async for event in events:
        match event.kind:
            case EventKind.TASK_DECIDED:
                decided += 1
                tell(float(decided), None, f"{event.task_id} is decided")
            case EventKind.TASK_HELD:
                tell(decided + 0.5, None, f"{event.task_id} waits for a person")
            case EventKind.MISSION_ENDED:
                return


def _report(mission_id: str, result: TaskResult | None) -> MissionReport:
    if result is None:
        advice = "it goes on: ask mission_status for its result"
        return MissionReport(mission_id=mission_id, state=MissionState.RUNNING, advice=advice)
    return MissionReport(
        mission_id=mission_id,
        state=result.state,
        value=result.value,
        confidence=result.confidence,
        explanation=result.explanation or None,
        error=result.error["message"] if result.error else None,
        elapsed_s=result.elapsed_s,
        cost_usd=result.cost_usd,
    )


def _duel_answer(report: DuelReport) -> DuelAnswer:
    winner = report.request.contender if report.total.decision == "contender" else report.request.champion
    parts = tuple(
        EnvironmentReport(
            env_id=duel.env_id,
            decision=duel.decision,
            wins=duel.wins,
            losses=duel.losses,
            ties=duel.ties,
            low=duel.low,
            high=duel.high,
        )
        for duel in report.duels
    )
    return DuelAnswer(winner=winner, won=report.total.won, needed=report.total.needed, environments=parts)


def _anomaly(alert: AnomalyDetected, begin: float, interval_s: float) -> AnomalyReport:
    at = alert.timestamp if alert.peaked is None else alert.peaked
    return AnomalyReport(
        kind=alert.kind.value,
        score=alert.score,
        value=alert.value,
        expected=alert.expected,
        timestamp=at,
        index=round((at - begin) / interval_s),
    )


def _forecast(values: tuple[float, ...], horizon: int) -> ForecastReport | None:
    if not horizon or not values:
        return None
    import numpy as np

    from chimera.anomaly.forecast.engine import ForecastEngine

    found: Forecast = ForecastEngine().forecast(np.asarray(values, dtype=np.float64), horizon)
    rows = ([float(each) for each in row] for row in (found.mean, found.low, found.high))
    mean, low, high = map(tuple, rows)
    return ForecastReport(mean=mean, low=low, high=high)
