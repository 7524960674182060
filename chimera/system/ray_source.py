"""Chimera watches its own cluster: Ray's metrics endpoints, and who of Chimera's actors lives.

What is learned of a metric takes about a hundred readings, and an actor that was killed shall be told at once, also in
a cluster that has just begun. So beside the readings there is a *fixed rule*, which learns nothing: whenever actors
or nodes that were alive are not any more, in the process that they had, that is an anomaly, of kind drop, of the metric
`ray_actors_alive{class="Cell"}` or `ray_nodes_alive`. `expected` is how many were alive before, `value` how many of
those still are, and the one piece of evidence is of the channel `actors` or `nodes`. The score is DIED, or ENDED where
Ray says that somebody wanted it: a swarm that was closed, `ray.kill`, the autoscaler.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self

from chimera.actors import cluster, vitals
from chimera.actors.vitals import Life, Vitals
from chimera.anomaly.sources.intake import Sieve
from chimera.anomaly.sources.naming import canonical
from chimera.anomaly.sources.source import Readings, Source, SourceOptions
from chimera.core.clock import Clock, SystemClock
from chimera.core.config import Settings
from chimera.core.errors import InputError
from chimera.core.watching import AnomalyDetected, AnomalyKind, Evidence, Reading

log = logging.getLogger(__name__)

LOOK_S = 1.0
"""How often the GCS is asked who lives."""

ASK_S = 10.0

DIED, ENDED = 10.0, 3.0

MAX_KINDS = 32
"""Classes of actors with metrics of their own. Others are added up as `other`."""

MAX_QUEUED = 16
"""Batches that wait to be taken."""

_ALIVE, _RESTARTING, _RESTARTS = "ray_actors_alive", "ray_actors_restarting", "ray_actor_restarts_total"

CalledFor = Callable[[Collection[str], Collection[str]], bool]


class Census:
    """Counts who lives, and says who of them has died since the last time. Pure but for `called_for`."""

    def __init__(self, called_for: CalledFor) -> None:
        self._called_for = called_for
        self._before: Vitals | None = None
        self._kinds: list[str] = []
        self._restarts: Counter[str] = Counter()

    def count(self, now: Vitals, timestamp: float) -> tuple[list[Reading], list[AnomalyDetected]]:
        """Readings of this moment, and what the fixed rule says."""
        before = self._before or now
        facts = []
        gone: dict[str, list[str]] = {}
        for actor, life in before.actors.items():
            if now.actors.get(actor) != life:
                gone.setdefault(self._kind(life), []).append(actor)
        alive = self._by_kind(before.actors.values())
        for kind, actors in sorted(gone.items()):
            metric, ended = canonical(_ALIVE, {"class": kind}), self._called_for(actors, ())
            facts.append(_drop(metric, timestamp, alive[kind], len(actors), "actors", ended))
        if dead := before.nodes - now.nodes:
            ended = self._called_for((), dead)
            facts.append(_drop("ray_nodes_alive", timestamp, len(before.nodes), len(dead), "nodes", ended))
        self._count_restarts(before, now)
        self._before = now  # and not before `called_for`, which may raise: the next look tells of them then
        return self._readings(now, timestamp), facts

    def _count_restarts(self, before: Vitals, now: Vitals) -> None:
        known = {**before.restarting, **before.actors}
        for actor, life in {**now.restarting, **now.actors}.items():
            since = known[actor].restarts if actor in known else life.restarts
            self._restarts[self._kind(life)] += max(0, life.restarts - since)

    def _readings(self, now: Vitals, timestamp: float) -> list[Reading]:
        alive, restarting = self._by_kind(now.actors.values()), self._by_kind(now.restarting.values())
        readings = [Reading("ray_nodes_alive", timestamp, float(len(now.nodes)))]
        for kind in self._kinds:
            for name, counts in (
                (_ALIVE, alive),
                (_RESTARTING, restarting),
                (_RESTARTS, self._restarts),
            ):
                readings.append(Reading(canonical(name, {"class": kind}), timestamp, float(counts[kind])))
        return readings

    def _by_kind(self, lives: Iterable[Life]) -> Counter[str]:
        return Counter(self._kind(life) for life in lives)

    def _kind(self, life: Life) -> str:
        if life.kind in self._kinds:
            return life.kind
        if len(self._kinds) < MAX_KINDS:
            self._kinds.append(life.kind)
            return life.kind
        return "other"


class RaySource(Source):
    """Readings of a cluster that runs: what its endpoints serve, and every second who lives. Never ends by itself.

    `wanted` are globs for the names of the latter; none of them: all. They are no matter to the fixed rule. `facts` are
    alerts that follow from nothing but these readings; a `Watching` hands them on. Counted in `refused`: what
    `ScrapeSource` counts, and `cluster`: times that the GCS could not be asked. Raises ClusterError when no cluster
    runs at the settings' address: a watch starts none.
    """

    name = "ray"

    def __init__(
        self,
        settings: Settings,
        metrics: Source,
        *,
        wanted: Sequence[str] = (),
        clock: Clock | None = None,
        look: Callable[[], Vitals] = vitals.vitals,
        called_for: CalledFor = vitals.called_for,
    ) -> None:
        self._settings = settings
        self._metrics = metrics
        self._wanted = Sieve(wanted)
        self.refused: dict[str, int] = metrics.refused
        self._clock = clock or SystemClock()
        self._look = look
        self._census = Census(called_for)
        self._facts: list[AnomalyDetected] = []
        self._connection: cluster.Connection | None = None
        self._thread: ThreadPoolExecutor | None = None
        self._closed = asyncio.Event()

    async def __aenter__(self) -> Self:
        self._connection = cluster.connect(self._settings, start=False)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="chimera-census")
        try:
            await self._metrics.__aenter__()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.finish()
        await self._metrics.__aexit__(*exc)
        if self._thread:
            self._thread.shutdown(wait=False, cancel_futures=True)
        if self._connection:
            cluster.disconnect(self._connection)
            self._connection = None

    def finish(self) -> None:
        self._closed.set()

    def facts(self) -> list[AnomalyDetected]:
        """What the fixed rule says of the readings since the last call."""
        facts, self._facts = self._facts, []
        return facts

    def echoes(self, fact: AnomalyDetected) -> list[str]:
        """The metrics in which detectors will see the same as this fact."""
        name, brace, labels = fact.metric.partition("{")
        return [each + brace + labels for each in ((name, _RESTARTING, _RESTARTS) if name == _ALIVE else (name,))]

    async def batches(self) -> AsyncIterator[Readings]:
        queue: asyncio.Queue[Readings] = asyncio.Queue(MAX_QUEUED)
        works = (self._count(queue), self._scrape(queue), self._closed.wait())
        tasks: set[asyncio.Task[Any]] = {asyncio.create_task(work) for work in works}
        taking = asyncio.create_task(queue.get())
        try:
            while True:
                done, _ = await asyncio.wait({taking, *tasks}, return_when=asyncio.FIRST_COMPLETED)
                if taking not in done:
                    for task in done:
                        task.result()  # what ended it
                    return
                batch, taking = taking.result(), asyncio.create_task(queue.get())
                yield batch
        finally:
            for task in (taking, *tasks):
                task.cancel()
            await asyncio.gather(taking, *tasks, return_exceptions=True)

    async def _scrape(self, queue: asyncio.Queue[Readings]) -> None:
        async for batch in self._metrics.batches():
            await queue.put(batch)

    async def _count(self, queue: asyncio.Queue[Readings]) -> None:
        asking: asyncio.Future[tuple[list[Reading], list[AnomalyDetected]]] | None = None
        loop = asyncio.get_running_loop()
        while True:
            asking = asking or loop.run_in_executor(self._thread, self._take)
            try:
                async with asyncio.timeout(ASK_S):
                    readings, facts = await asyncio.shield(asking)
                asking = None
                self._facts += facts
                await queue.put(self._wanted.sift(readings))
            except Exception as error:  # whatever Ray raises when its GCS is away: it may come back
                asking = asking if asking and not asking.done() else None
                self.refused["cluster"] = self.refused.get("cluster", 0) + 1
                log.info("who lives cannot be asked: %s: %s", type(error).__name__, error)
            await asyncio.sleep(LOOK_S)

    def _take(self) -> tuple[list[Reading], list[AnomalyDetected]]:
        return self._census.count(self._look(), self._clock.now())


def open_ray(settings: Settings, interval_s: float, metrics: Sequence[str]) -> RaySource:
    """See `chimera.system.watching.ray_source`."""
    from chimera.anomaly.sources.scrape import ScrapeSource

    if settings.address.startswith("ray://"):
        raise InputError("a ray:// client does not see who lives: watch a cluster by its HOST:PORT, from a node of it")
    options = SourceOptions(interval_s=interval_s, metrics=tuple(metrics))
    return RaySource(settings, ScrapeSource(_urls, options=options), wanted=metrics)


async def _urls() -> list[str]:
    return await asyncio.to_thread(vitals.metrics_urls)


def _drop(metric: str, timestamp: float, before: int, gone: int, unit: str, ended: bool) -> AnomalyDetected:
    score = ENDED if ended else DIED
    return AnomalyDetected(
        metric=metric,
        timestamp=timestamp,
        value=float(before - gone),
        kind=AnomalyKind.DROP,
        score=score,
        since=timestamp,
        expected=float(before),
        evidence=(Evidence(channel=unit, score=score, distance=float(gone), unit=unit, since=timestamp),),
    )
