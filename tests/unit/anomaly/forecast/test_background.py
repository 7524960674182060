"""ARIMA in the background: never on the event loop, shared, one at a time, and ended in time."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from chimera.anomaly.engine import AnomalyDetectionEngine
from chimera.anomaly.forecast import background
from chimera.anomaly.forecast.arima import SHORTEST, ArimaForecast, auto_arima
from chimera.anomaly.forecast.background import MAX_METRICS, BackgroundArima
from chimera.anomaly.forecast.engine import ForecastEngine
from chimera.anomaly.options import WatchOptions
from chimera.core.clock import ManualClock
from chimera.core.errors import InputError, MissingExtra, Overloaded
from tests.unit.anomaly.watching import STEP_S, batches, fed, noise

WALK = np.cumsum(noise(200, 1)[:, 0])


class Gate:
    """A fit that lasts until it is let go or told to stop, and notes what it sees."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.begun = threading.Event()
        self.histories: list[Any] = []
        self.stopped = 0
        self.running = self.most = 0

    def __call__(self, history: Any, horizon: int, *, stop: Callable[[], bool]) -> ArimaForecast:
        self.histories.append(history)
        self.running += 1
        self.most = max(self.most, self.running)
        self.begun.set()
        for _ in range(6_000):
            if self.open.wait(0.01):
                break
            if stop():
                self.stopped += 1
                break
        else:
            raise AssertionError("nobody let it go")
        self.running -= 1
        return ArimaForecast((1, 0, 0), 1.0, 1, ForecastEngine().forecast(history, horizon))


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Gate:
    made = Gate()
    monkeypatch.setattr(background, "auto_arima", made)
    return made


def arima() -> BackgroundArima:
    return BackgroundArima(clock=ManualClock())


async def begun(gate: Gate) -> None:
    assert await asyncio.to_thread(gate.begun.wait, 60)


async def more(watch: AnomalyDetectionEngine, points: int, after: int) -> None:
    """As many readings of m0 and m1, after so many."""
    await fed(watch, batches(noise(points, 2), start=1e6 + after * STEP_S))


async def engine(points: int = 60) -> AnomalyDetectionEngine:
    made = AnomalyDetectionEngine(options=WatchOptions(pattern=False))
    await more(made, points, 0)
    return made


async def test_the_loop_turns_at_every_step_of_a_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    """A real one: at each iteration it waits until the loop has turned, which it could not on the loop itself."""
    pytest.importorskip("statsmodels")
    loop, turns = asyncio.get_running_loop(), 0

    def fit(history: Any, horizon: int, *, stop: Callable[[], bool]) -> ArimaForecast:
        def turned_and_stop() -> bool:
            nonlocal turns
            beat = threading.Event()
            loop.call_soon_threadsafe(beat.set)
            turns += beat.wait(5)
            assert turns, "the loop stands still"
            return stop()

        return auto_arima(history, horizon, stop=turned_and_stop)

    monkeypatch.setattr(background, "auto_arima", fit)
    made = arima()
    found = await made.forecast("m", WALK, 5)
    await made.aclose()
    assert found.order is not None and turns >= found.fits > 1
    assert found.forecast.mean == pytest.approx(auto_arima(WALK, 5).forecast.mean)


async def test_readings_are_judged_while_it_fits(gate: Gate) -> None:
    watch = await engine()
    asking = asyncio.create_task(watch.forecast_arima("m0", 3))
    await begun(gate)
    await more(watch, 20, 60)
    assert watch.status().readings == 160 and not asking.done()
    assert watch.forecast("m0", 3).mean.shape == (3,)
    gate.open.set()
    assert (await asking).forecast.mean.shape == (3,)
    assert len(gate.histories[0]) == 60
    await watch.aclose()


async def test_who_asks_for_the_same_metric_shares_its_fit(gate: Gate) -> None:
    made = arima()
    first, second = (asyncio.create_task(made.forecast("m", WALK, horizon)) for horizon in (3, 900))
    await begun(gate)
    third = asyncio.create_task(made.forecast("m", WALK[:-1], 40))
    await asyncio.sleep(0)
    gate.open.set()
    short, long, late = await asyncio.gather(first, second, third)
    assert len(gate.histories) == 1
    for found, steps in ((short, 3), (late, 40)):
        for part, whole in zip(found.forecast, long.forecast, strict=True):
            assert part.shape == (steps,) and (part == whole[:steps]).all()
    await made.forecast("m", WALK, 3)
    assert len(gate.histories) == 2  # what is over is not shared
    await made.aclose()


async def test_what_was_restored_meanwhile_shares_nothing(gate: Gate) -> None:
    watch = await engine(50)
    told = watch.snapshot()
    await more(watch, 20, 50)
    before = asyncio.create_task(watch.forecast_arima("m0", 3))
    await begun(gate)
    watch.restore(told)
    after = asyncio.create_task(watch.forecast_arima("m0", 3))
    await asyncio.sleep(0)
    gate.open.set()
    await asyncio.gather(before, after)
    assert len(gate.histories) == 2 and len(gate.histories[1]) == 50
    await watch.aclose()


async def test_one_runs_at_a_time_and_so_many_wait(gate: Gate) -> None:
    made = arima()
    asking = [asyncio.create_task(made.forecast(f"m{number}", WALK, 3)) for number in range(MAX_METRICS)]
    await begun(gate)
    with pytest.raises(Overloaded):
        await made.forecast("another", WALK, 3)
    gate.open.set()
    await asyncio.gather(*asking)
    assert gate.most == 1 and len(gate.histories) == MAX_METRICS
    await made.forecast("another", WALK, 3)
    await made.aclose()


async def test_a_fit_goes_on_until_the_last_who_waits_has_gone(gate: Gate) -> None:
    made = arima()
    asking = [asyncio.create_task(made.forecast("m", WALK, 3)) for _ in range(2)]
    await begun(gate)
    asking[0].cancel()
    await asyncio.wait(asking[:1])
    await asyncio.sleep(0.05)
    assert asking[0].cancelled() and not asking[1].done() and not gate.stopped
    asking[1].cancel()
    await asyncio.wait(asking)
    gate.begun.clear()
    again = asyncio.create_task(made.forecast("m", WALK, 3))
    await begun(gate)  # in the same thread, so the first has ended
    assert gate.stopped == 1
    gate.open.set()
    assert (await again).order == (1, 0, 0)
    await made.aclose()


async def test_closing_ends_what_runs_and_what_waits(gate: Gate) -> None:
    watch = await engine()
    asking = [asyncio.create_task(watch.forecast_arima(metric, 3)) for metric in ("m0", "m1", "m0")]
    await begun(gate)
    await watch.aclose()
    assert (gate.stopped, gate.running, len(gate.histories)) == (1, 0, 1)
    for told in await asyncio.gather(*asking, return_exceptions=True):
        assert isinstance(told, InputError) and "closed" in str(told)
    with pytest.raises(InputError, match="closed"):
        await watch.forecast_arima("m0", 3)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("chimera-arima")]


class Hurrying(ManualClock):
    """A clock that is a second further whenever somebody looks."""

    def monotonic(self) -> float:
        self.advance(1.0)
        return super().monotonic()


async def test_when_time_is_over_the_best_so_far_is_the_answer() -> None:
    pytest.importorskip("statsmodels")
    free, hurried = arima(), BackgroundArima(clock=Hurrying(), limit_s=70.0)
    history = np.random.default_rng(3).normal(size=200)
    whole, some = await free.forecast("m", history, 4), await hurried.forecast("m", history, 4)
    assert some.order is not None and 1 <= some.fits < whole.fits
    assert all(np.isfinite(part).all() and part.shape == (4,) for part in some.forecast)
    await asyncio.gather(free.aclose(), hurried.aclose())


async def test_what_no_arima_fits_is_forecast_fast() -> None:
    pytest.importorskip("statsmodels")
    made, history = arima(), 1e101 * noise(60, 1)[:, 0]
    found = await made.forecast("m", history, 5)
    assert found.order is None
    for part, plain in zip(found.forecast, ForecastEngine().forecast(history, 5), strict=True):
        assert (part == plain).all()
    await made.aclose()


async def test_what_cannot_be_is_said_by_type(monkeypatch: pytest.MonkeyPatch, gate: Gate) -> None:
    watch = await engine(SHORTEST - 1)
    with pytest.raises(InputError, match="no reading of 'nobody'"):
        await watch.forecast_arima("nobody", 3)
    with pytest.raises(InputError, match=r"needs 30 readings, and 'm0' has 29"):
        await watch.forecast_arima("m0", 3)
    for horizon in (0, 1_001):
        with pytest.raises(InputError, match="horizon"):
            await watch.forecast_arima("m0", horizon)
    assert gate.histories == []
    monkeypatch.setattr(background, "auto_arima", auto_arima)
    monkeypatch.setitem(sys.modules, "statsmodels.tsa.arima.model", None)
    await more(watch, 1, SHORTEST - 1)
    with pytest.raises(MissingExtra, match=r"chimera\[anomaly\]"):
        await watch.forecast_arima("m0", 3)
    await watch.aclose()
