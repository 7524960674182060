"""Watches on a real Ray: shards that are killed, and a cell of a swarm that is."""

from __future__ import annotations

import asyncio
import math
import os
import signal
from typing import Any

import numpy as np
import pytest
import ray
from ray.util.state import list_actors

from chimera.anomaly.options import WatchOptions
from chimera.core.config import Settings
from chimera.core.errors import StorageError
from chimera.core.watching import Alert, AnomalyDetected, AnomalyKind, Reading
from chimera.system.ray_source import DIED
from chimera.system.watching import LocalWatch, Watch, ray_source
from tests.conftest import Crew
from tests.made_readings import Listed, in_order, made_batches

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(150)]

OPTIONS = WatchOptions(pattern=False)

BATCHES = made_batches(metrics=6)

HOSTILE: list[Any] = [
    Reading("late", 5.0, 1.0),
    Reading("late", 4.0, 1.0),
    Reading("wild", 5.0, math.inf),
    Reading("wild", math.nan, 1.0),
    Reading("huge", 1e300, 1e308),
    Reading("bad\nname", 5.0, 1.0),
    Reading("x" * 100_000, 5.0, 1.0),
    Reading("\ud800", 5.0, 1.0),
    Reading("none", 5.0, None),  # type: ignore[arg-type]
    Reading(b"bytes", 5.0, 1.0),  # type: ignore[arg-type]
    (lambda: 0, 5.0, 1.0),
    "text",
    None,
]


def pids(kind: str) -> dict[str, int]:
    """The processes of living actors of this class, by the actors' names."""
    here = ray.get_runtime_context().gcs_address  # there may be other Rays on this machine
    actors = list_actors(address=here, filters=[("state", "=", "ALIVE")], limit=1_000)
    return {actor.name: actor.pid for actor in actors if actor.class_name == kind and actor.pid}


@pytest.fixture
def settings(local_ray: Settings, home: Any) -> Settings:
    return local_ray.model_copy(update={"home": home})


async def test_shards_that_are_killed_lose_nothing_and_the_watch_says_what_an_undisturbed_one_says(
    settings: Settings,
) -> None:
    async with LocalWatch(options=OPTIONS) as undisturbed:
        expected = [alert async for alert in undisturbed.watch(Listed(BATCHES))]
        assert len(expected) >= 4
        alerts: list[Alert] = []
        async with Watch(settings, shards=2, options=OPTIONS, snapshot_s=0.5) as watch:
            for number, batch in enumerate(BATCHES):
                alerts += await watch.push(batch)
                if number in (8, 21, 25):  # after a snapshot, and in the midst of what is told
                    await asyncio.sleep(1.0)
                    shards = pids("DetectorShard")
                    assert len(shards) == 2
                    os.kill(sorted(shards.values())[number % 2], signal.SIGKILL)
            status = await watch.status()
            assert status.deaths >= 3 and status.snapshots >= 2 and status.lost == 0
            assert (status.shards, status.engine.metrics, status.engine.readings) == (2, 6, 1_800)
            assert await watch.views() == await undisturbed.views()
            for metric in {reading.metric for reading in BATCHES[0]}:
                for mine, theirs in zip(await watch.history(metric), await undisturbed.history(metric), strict=True):
                    np.testing.assert_array_equal(mine, theirs)
    assert in_order(alerts) == in_order(expected)
    assert pids("DetectorShard") == {}, "nobody is left behind"


async def test_a_watch_with_a_name_goes_on_where_the_last_one_ended(settings: Settings) -> None:
    alerts: list[Alert] = []
    for part in (BATCHES[:18], BATCHES[18:]):
        async with Watch(settings, shards=2, options=OPTIONS, name="kept") as watch:
            with pytest.raises(StorageError, match="another watch"):
                await Watch(settings, shards=2, name="kept").__aenter__()
            alerts += [alert async for alert in watch.watch(Listed(part))]
            histories = {view.metric: await watch.history(view.metric) for view in await watch.views()}
    async with LocalWatch(options=OPTIONS) as undisturbed:
        expected = [alert async for alert in undisturbed.watch(Listed(BATCHES))]
        assert in_order(alerts) == in_order(expected)
        for metric, history in histories.items():
            np.testing.assert_array_equal(history, await undisturbed.history(metric))


async def test_what_no_engine_takes_is_refused_by_the_same_names(settings: Settings) -> None:
    async with LocalWatch() as local, Watch(settings, shards=2) as watch:
        assert await watch.push(HOSTILE) == await local.push(HOSTILE) == []
        refused = (await local.status()).engine.refused
        assert (await watch.status()).engine.refused == refused and len(refused) == 3
        assert not list((settings.home / "watch").glob("unnamed-*/*.snapshot"))
    assert not list((settings.home / "watch").iterdir()), "what nobody will read is not left behind"


async def test_a_cell_that_is_killed_is_told_of(own_crew: Crew, settings: Settings) -> None:
    """By the fixed rule: the watch has just begun, and has learned nothing."""
    await own_crew.spawn("answer", "answer", "answer")
    mine = {name: pid for name, pid in pids("Cell").items() if name.startswith(own_crew.swarm.name)}
    assert len(mine) == 2
    told: asyncio.Queue[Alert] = asyncio.Queue()
    alive, restarts = 'ray_actors_alive{class="Cell"}', 'ray_actor_restarts_total{class="Cell"}'
    async with LocalWatch() as watch:
        watch.on_alert(told.put_nowait)
        watching = asyncio.create_task(collect(watch, settings))
        for _ in range(300):
            if {alive, restarts, "ray_nodes_alive"} <= {view.metric for view in await watch.views("ray_*")}:
                break
            await asyncio.sleep(0.2)
        before = (await watch.view(alive)).value
        killed_at = asyncio.get_running_loop().time()
        os.kill(next(iter(mine.values())), signal.SIGKILL)
        async with asyncio.timeout(30):
            while True:
                alert = await told.get()
                if alert.metric == alive:
                    break
        assert asyncio.get_running_loop().time() - killed_at < 30.0
        assert isinstance(alert, AnomalyDetected) and alert.kind == AnomalyKind.DROP
        assert (alert.expected, alert.value, alert.score) == (before, before - 1.0, DIED)
        assert [(each.channel, each.distance) for each in alert.evidence] == [("actors", 1.0)]
        scraped = {view.metric.partition("{")[0] for view in await watch.views()}
        assert any(name.startswith("ray_node_") for name in scraped), "the endpoints are read too"
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


async def collect(watch: LocalWatch, settings: Settings) -> None:
    async for _ in watch.watch(ray_source(settings, interval_s=2.0)):
        pass
