"""The watch as a whole: readings in, alerts out."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Iterator
from typing import Any, Self

import numpy as np
import pytest

from chimera.anomaly import engine as engine_module
from chimera.anomaly import registry
from chimera.anomaly.detectors.moving_average import MovingAverageDetector
from chimera.anomaly.engine import AnomalyDetectionEngine
from chimera.anomaly.forecast.engine import ForecastEngine
from chimera.anomaly.forecast.warning import parse_limit
from chimera.anomaly.options import WatchOptions
from chimera.core.clock import ManualClock
from chimera.core.errors import DetectorError, InputError, ReadingRefused
from chimera.core.watching import AnomalyDetected, AnomalyKind, FailurePredicted, Reading
from tests.unit.anomaly.watching import STEP_S, batches, fed, noise


def engine(limits: tuple[str, ...] = (), **options: Any) -> AnomalyDetectionEngine:
    made = [parse_limit(limit) for limit in limits]
    return AnomalyDetectionEngine(options=WatchOptions(**options), limits=made, clock=ManualClock())


async def test_a_spike_and_a_drop_are_told_with_their_evidence() -> None:
    values = noise(700, 3)
    values[600, 0] += 15.0
    values[600, 1] -= 15.0
    watch = engine()
    alerts = await fed(watch, batches(values))
    at = 1e6 + 600 * STEP_S
    told = {alert.metric: alert for alert in alerts if isinstance(alert, AnomalyDetected) and alert.since == at}
    assert {metric: alert.kind for metric, alert in told.items()} == {"m0": AnomalyKind.SPIKE, "m1": AnomalyKind.DROP}
    for alert in told.values():
        assert at <= alert.timestamp <= at + 10 * STEP_S
        side = "up" if alert.kind is AnomalyKind.SPIKE else "down"
        assert (alert.peaked, alert.value) == (at, pytest.approx(values[600, 0 if side == "up" else 1], rel=1e-6))
        assert abs(alert.expected - values[590:600].mean()) < 5.0
        strongest = max(alert.evidence, key=lambda evidence: evidence.score)
        assert strongest.score > 0 and side in {evidence.channel for evidence in alert.evidence}
        assert next(e for e in alert.evidence if e.channel == side).unit == "sigma"
        assert {evidence.channel for evidence in alert.evidence} <= set(watch.channels)
        assert all(evidence.since <= alert.timestamp for evidence in alert.evidence)
    assert watch.view("m0").kind is AnomalyKind.SPIKE
    assert watch.view("m0").alerted == told["m0"].timestamp
    assert watch.status().alerts == len(alerts)


async def test_what_is_told_does_not_depend_on_how_readings_are_batched() -> None:
    values = noise(500, 4)
    values[400:, 2] += 9.0
    readings = [reading for batch in batches(values) for reading in batch]
    rng = np.random.default_rng(100)
    cuts = np.sort(rng.integers(0, len(readings), 30)).tolist()
    pieces = [readings[start:end] for start, end in zip([0, *cuts], [*cuts, len(readings)], strict=True)]
    rows, single, whole = engine(), engine(), engine()
    first = await fed(rows, batches(values))
    assert first
    assert sorted(map(str, first)) == sorted(map(str, await fed(single, pieces)))
    assert sorted(map(str, first)) == sorted(map(str, await whole.push(readings)))


async def test_a_metric_on_its_way_over_a_limit_is_warned_of_in_time() -> None:
    values = noise(700, 2) * 0.5
    values[400:] += 0.2 * np.arange(300)[:, None]
    watch = engine(limits=("m0=40",))
    alerts = await fed(watch, batches(values))
    warnings = [alert for alert in alerts if isinstance(alert, FailurePredicted)]
    crossed = 1e6 + STEP_S * int(np.argmax(values[:, 0] >= 40.0))
    assert {warning.metric for warning in warnings} == {"m0"}
    assert warnings[0].timestamp < crossed
    assert watch.status().warnings == len(warnings)
    assert watch.view("m0").high is not None
    assert watch.view("m1").high is None
    assert watch.view("m1", band=True).high is not None


async def test_a_metric_with_a_limit_is_forecast_with_every_fifth_reading() -> None:
    watch, bands = engine(limits=("*=40",), forecast_every=5), []
    for batch in batches(noise(60, 40)):
        await watch.push(batch)
        bands.append([view.high for view in watch.views()])
    due = [[n % 5 for n in range(1, 60) if bands[n][m] != bands[n - 1][m]] for m in range(40)]
    assert all(len(set(each)) == 1 and len(each) >= 11 for each in due)
    assert {each[0] for each in due} == set(range(5)), "and not all of them with the same one"


async def test_others_have_their_turn_between_the_forecasts_of_a_round(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "TURN_S", 0.0)
    watch, turns = engine(limits=("*=40",), forecast_every=1), 0

    async def count() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    await fed(watch, batches(noise(5, 20)))
    other = asyncio.create_task(count())
    await fed(watch, batches(noise(1, 20), start=2e6))
    other.cancel()
    assert turns >= 20


async def test_a_snapshot_amid_a_push_counts_what_it_holds() -> None:
    watch = engine()
    pushing = asyncio.create_task(watch.push([Reading("m", float(number), 1.0) for number in range(5_000)]))
    await asyncio.sleep(0)
    while not pushing.done():
        restored = engine()
        restored.restore(watch.snapshot())
        known = restored.view("m").timestamp if restored.views() else -1.0
        assert known is not None and restored.status().readings == known + 1.0
        for _ in range(5):
            await asyncio.sleep(0)
    assert watch.status().readings == 5_000


async def test_views_are_sorted_and_chosen_by_a_glob() -> None:
    watch = engine()
    await watch.push([Reading(metric, 1.0, 2.0) for metric in ("b", "cpu.1", "a", "cpu.0")])
    await watch.push([Reading("a", 1.0, 2.0)])
    assert [view.metric for view in watch.views()] == ["a", "b", "cpu.0", "cpu.1"]
    assert [view.metric for view in watch.views("cpu.*")] == ["cpu.0", "cpu.1"]
    assert [view.metric for view in watch.views("cpu.*", bands=True)] == ["cpu.0", "cpu.1"]
    view = watch.view("a")
    assert (view.timestamp, view.value, view.ready, view.refused, view.kind) == (1.0, 2.0, False, 1, None)
    for ask in (watch.view, watch.history, lambda metric: watch.forecast(metric, 3)):
        with pytest.raises(InputError, match="no reading of 'nobody'"):
            ask("nobody")


async def test_history_and_forecast_are_of_what_came_and_know_the_gaps() -> None:
    watch = engine()
    times = [10.0 * number for number in range(400) if number % 50 not in (20, 21, 22)]
    for time in times:
        await watch.push([Reading("m", time, math.sin(2 * math.pi * time / 500.0))])
    known_at, values = watch.history("m")
    assert known_at.tolist() == times
    np.testing.assert_allclose(values, np.sin(2 * np.pi * known_at / 500.0), atol=1e-6)
    even = np.full(400, np.nan)
    even[(known_at / 10.0).astype(int)] = values
    np.testing.assert_array_equal(watch.forecast("m", 20).mean, ForecastEngine().forecast(even, 20).mean)
    assert watch.view("m").missing == 24


async def test_a_counter_is_watched_as_a_rate() -> None:
    watch = engine()
    for number in range(10):
        await watch.push([Reading("requests_total", 10.0 * number, 50.0 * (number if number < 5 else number - 5))])
    assert watch.history("requests_total")[1].tolist() == [5.0] * 4 + [0.0] + [5.0] * 4
    assert watch.view("requests_total").value == 5.0


async def test_a_slot_given_to_another_metric_knows_nothing_of_the_first() -> None:
    clock = ManualClock()
    options = WatchOptions(max_metrics=2, idle_s=60.0, detectors=("moving_average",))
    watch, fresh = (AnomalyDetectionEngine(options=options, clock=clock) for _ in range(2))
    values = noise(500, 2)
    await fed(watch, batches(values[:300], ["old", "kept"]))
    clock.advance(100.0)
    await fed(watch, batches(values[:1], ["kept", "new"], start=1e6 + 300 * STEP_S))
    await fed(fresh, batches(values[:1], ["kept", "new"], start=1e6 + 300 * STEP_S))
    later = values[:, :1] + 50.0
    later[400] += 20.0
    alerts = [await fed(each, batches(later, ["new"], start=2e6)) for each in (watch, fresh)]
    assert alerts[0]
    assert alerts[0] == alerts[1]
    assert [view.metric for view in watch.views()] == ["kept", "new"]


async def test_check_says_why_and_push_counts() -> None:
    watch = engine()
    await watch.push([Reading("m", 5.0, 1.0)])
    with pytest.raises(ReadingRefused, match=r"m has a reading of 5\.0 already"):
        watch.check(Reading("m", 5.0, 1.0))
    await watch.push([Reading("m", 5.0, 1.0), Reading("", 6.0, 1.0)])
    assert watch.refused == {"timestamp": 1, "name": 1}


async def test_pushes_at_once_are_taken_in_turn() -> None:
    watch = engine(pattern=False)
    earlier, later = ([Reading("m", 1.0 + start + number, 1.0) for number in range(100)] for start in (0, 100))
    await asyncio.gather(watch.push(earlier), watch.push(later))
    assert watch.history("m")[0].tolist() == [1.0 + number for number in range(200)]
    assert not watch.refused


class Listed:
    """A source of what it is given."""

    name = "listed"

    def __init__(self, given: Iterator[list[Reading]]) -> None:
        self.refused: dict[str, int] = {}
        self.open = False
        self._given = given

    async def __aenter__(self) -> Self:
        self.open = True
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.open = False

    async def batches(self) -> AsyncIterator[list[Reading]]:
        for batch in self._given:
            assert self.open
            yield batch


async def test_a_source_is_watched_to_its_end() -> None:
    values = noise(700, 1)
    values[600] += 20.0
    source = Listed(batches(values))
    assert [alert async for alert in engine().watch(source)] == await fed(engine(), batches(values))
    assert not source.open


async def test_further_detectors_vote_and_are_named_as_evidence() -> None:
    values = noise(900, 2)
    values[700, 0] += 20.0
    watch = engine(forest=True, detectors=("statistical", "moving_average"))
    alerts = await fed(watch, batches(values[:650]))
    await watch.settled()
    alerts += await fed(watch, batches(values[650:], start=1e6 + 650 * STEP_S))
    assert watch.channels[-3:] == ("forest", "statistical", "moving_average")
    about = [alert for alert in alerts if alert.metric == "m0" and alert.timestamp >= 1e6 + 700 * STEP_S]
    told = about[0]
    assert isinstance(told, AnomalyDetected)
    assert {"forest", "statistical", "moving_average"} & {evidence.channel for evidence in told.evidence}
    assert told.timestamp <= 1e6 + 710 * STEP_S
    assert watch.status().learned >= 2
    await watch.aclose()


class Broken(MovingAverageDetector):
    name = "broken_in_use"

    def update(self, values: Any, at: Any = None) -> Any:
        if self.metrics > 1 and at is not None and len(at):
            raise RuntimeError("on purpose")
        return super().update(values, at)


async def test_a_detector_that_fails_has_no_vote_and_stops_nobody() -> None:
    registry.register("broken_in_use", Broken)
    values = noise(700, 1)
    values[600] += 20.0
    watch, without = engine(detectors=("broken_in_use",)), engine()
    assert await fed(watch, batches(values)) == await fed(without, batches(values))
    assert watch.status().failed == {"broken_in_use": 700}


def test_an_unknown_detector_is_refused_at_once() -> None:
    with pytest.raises(DetectorError, match="no detector is called 'nobody'"):
        engine(detectors=("nobody",))
