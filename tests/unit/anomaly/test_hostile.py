"""A stream from somebody who means harm: nothing is raised, nothing grows without bound, every refusal is counted."""

from __future__ import annotations

import asyncio
import gc
import math
import tracemalloc
from collections.abc import Iterator
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from chimera.anomaly.engine import AnomalyDetectionEngine
from chimera.anomaly.forecast.warning import parse_limit
from chimera.anomaly.options import WatchOptions
from chimera.core.clock import ManualClock
from chimera.core.watching import Reading
from tests.unit.anomaly.watching import STEP_S, fed, noise

MAX_METRICS = 200

REASONS = {"name", "timestamp", "value", "metrics"}

WILD = (math.nan, math.inf, -math.inf, 1e308, -1e308, 3.4e38, -3.4e38, 5e-324, 1e-300, -0.0, 0.0, 1.0)

TIMES = (-1e300, -1.0, math.nan, math.inf, -math.inf, 1e300, 1.7e12, 1e11, 0.0, 5e-324, 1e6)

METRICS = ("", "a", "b_total", "c" * 512, "d" * 10_240, "e\x00", "f\ud800", "g{x='1'}")


def engine(**options: Any) -> AnomalyDetectionEngine:
    chosen = WatchOptions(**({"max_metrics": MAX_METRICS, "idle_s": 60.0} | options))
    return AnomalyDetectionEngine(options=chosen, limits=[parse_limit("*=1000")], clock=ManualClock())


readings = st.builds(
    Reading,
    st.sampled_from(METRICS) | st.text(max_size=3),
    st.sampled_from(TIMES) | st.floats(),
    st.sampled_from(WILD) | st.floats(),
)


@settings(max_examples=60)
@given(st.lists(st.lists(readings, max_size=30), max_size=10))
def test_nothing_is_raised_and_all_are_counted(given_batches: list[list[Reading]]) -> None:
    async def run() -> None:
        watch = engine(detectors=("statistical", "moving_average", "forest"))
        for batch in given_batches:
            for alert in await watch.push(batch):
                assert math.isfinite(alert.value)
        status = watch.status()
        assert set(status.refused) <= REASONS
        for view in watch.views(bands=True):
            view.model_dump_json()
        other = engine(detectors=("statistical", "moving_average", "forest"))
        other.restore(watch.snapshot())
        assert other.views() == watch.views()
        await watch.aclose()

    asyncio.run(run())


def storm(batches: int, seed: int = 100) -> Iterator[list[Reading]]:
    """Honest metrics, and among them whatever can be wrong."""
    rng = np.random.default_rng(seed)
    honest = noise(batches, 4, seed)
    for number in range(batches):
        time = 1e6 + STEP_S * number
        batch = [Reading(f"honest{at}", time, float(value)) for at, value in enumerate(honest[number])]
        for _ in range(20):
            metric = METRICS[rng.integers(len(METRICS))]
            when = (*TIMES, time, time - 1e5)[rng.integers(len(TIMES) + 2)]
            batch.append(Reading(metric, when, WILD[rng.integers(len(WILD))]))
        yield batch


async def test_honest_metrics_are_judged_as_if_they_were_alone() -> None:
    among, alone = engine(), engine()
    told = await fed(among, storm(600))
    honest = ([reading for reading in batch if reading.metric.startswith("honest")] for batch in storm(600))
    expected = await fed(alone, honest)
    assert [alert for alert in told if alert.metric.startswith("honest")] == expected
    for view in alone.views():
        assert among.view(view.metric) == view
    assert set(among.refused) >= {"name", "timestamp", "value"}


async def test_a_million_metrics_take_no_more_memory_than_the_first_few() -> None:
    watch = engine()
    batch = 10_000

    async def flood(first: int) -> None:
        made = [Reading(f"metric.{number}", 1e6 + first, 1.0) for number in range(first, first + batch)]
        await watch.push(made)

    await flood(0)
    bound = watch.status().state_bytes
    assert bound <= MAX_METRICS * 10_240
    for first in range(batch, 800_000, batch):
        await flood(first)
    gc.collect()
    tracemalloc.start()  # which makes all slow
    try:
        await flood(800_000)
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        for first in range(800_000 + batch, 1_000_000, batch):
            await flood(first)
        gc.collect()
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert grown < 20_000
    status = watch.status()
    assert (status.metrics, status.refused) == (MAX_METRICS, {"metrics": 1_000_000 - MAX_METRICS})
    assert status.state_bytes <= bound * 1.01


async def test_metrics_that_come_and_go_for_ever_take_no_more_memory() -> None:
    clock = ManualClock()
    options = WatchOptions(max_metrics=MAX_METRICS, idle_s=60.0, detectors=("moving_average",))
    watch = AnomalyDetectionEngine(options=options, limits=[parse_limit("*=1000")], clock=clock)
    sizes = []
    for wave in range(30):
        for turn in range(3):
            await watch.push([Reading(f"wave{wave}.{number}", 1e6 + turn, 1.0) for number in range(MAX_METRICS)])
        clock.advance(61.0)
        sizes.append(watch.status().state_bytes)
    assert not watch.refused
    assert {view.metric.partition(".")[0] for view in watch.views()} == {"wave29"}
    assert max(sizes[2:]) <= sizes[1] * 1.01


async def test_ten_thousand_readings_of_one_metric_let_others_have_their_turn() -> None:
    watch = engine(pattern=False)
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    await watch.push([Reading("m", 1e6 + number, 1.0) for number in range(1_000)])
    counting.cancel()
    assert turns > 30
