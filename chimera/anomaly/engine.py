"""A watch over many metrics: readings in, anomalies and coming failures out.

    engine = AnomalyDetectionEngine(limits=[parse_limit("disk_used_percent=90")])
    for alert in await engine.push(readings):
        ...

Readings go through the intake (`intake.py`), then all metrics that have one are judged at once by the ensemble, and by
any further detectors that were asked for. *An alert is a consensus of channels*: the ensemble's own, in which channels
add up (`ensemble.py`), or that of more than half of the further detectors, where the ensemble leans to it
(`panel.py`). Metrics with a limit are forecast, and what crosses it soon is a warning. Nothing waits for what learns
(`learning.py`).
"""

from __future__ import annotations

import asyncio
import fnmatch
import zlib
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from chimera.anomaly.buffer import SlotTable
from chimera.anomaly.ensemble import KINDS
from chimera.anomaly.forecast.arima import ArimaForecast
from chimera.anomaly.forecast.background import BackgroundArima
from chimera.anomaly.forecast.engine import Forecast, ForecastEngine
from chimera.anomaly.forecast.warning import FailureWarner, Limit
from chimera.anomaly.intake import Intake, Round
from chimera.anomaly.learning import BackgroundLearning
from chimera.anomaly.options import WatchOptions
from chimera.anomaly.panel import Judgement, Panel
from chimera.anomaly.snapshot import Snapshot, packed, unpacked
from chimera.anomaly.sources.source import MAX_BATCH, Source
from chimera.anomaly.views import EngineStatus, MetricView
from chimera.core.clock import Clock, SystemClock
from chimera.core.errors import ChimeraError, InputError, StorageError
from chimera.core.watching import Alert, AnomalyDetected, AnomalyKind, FailurePredicted, Reading

TURN_S = 0.01
"""After so much work others get a turn on the event loop."""

FIRST_STUDY = 1_000
"""Readings after which students learn for the first time, alert or none; and again at twice as many, and so on."""

_UNKNOWN, _NO_LIMIT = -2, -1

_COLUMNS = {
    "value": (np.float64, (), np.nan),
    "expected": (np.float64, (), np.nan),
    "score": (np.float64, (), np.nan),
    "kind": (np.int8, (), -1),
    "alerted": (np.float64, (), np.nan),
    "ready": (np.bool_, (), 0),
    "low": (np.float64, (), np.nan),
    "high": (np.float64, (), np.nan),
    "phase": (np.int16, (), _UNKNOWN),
}


class AnomalyDetectionEngine:
    """Watches metrics as their readings come. One event loop; `push` may be awaited by several at once, and is in turn.

    Nothing that is said of a reading depends on later ones.

    A metric with a limit costs a forecast with every `forecast_every`th of its readings, 1 to 5 ms each; a reading
    without one costs microseconds. So 1,000 such metrics that are read every 10 s take 2 to 10 % of a processor. Which
    readings these are depends on the metric's name, so that not all metrics are due at once.
    """

    def __init__(
        self, *, options: WatchOptions | None = None, limits: Sequence[Limit] = (), clock: Clock | None = None
    ) -> None:
        """Raises DetectorError for an unknown or broken detector, InputError for too many limits."""
        self.options = options = options or WatchOptions()
        self._limits = tuple(limits)
        self._clock = clock or SystemClock()
        self._forecasts = ForecastEngine()
        self._learning = BackgroundLearning(learners=options.learners, every_s=options.learn_every_s, clock=self._clock)
        self._arima = BackgroundArima(clock=self._clock)
        self._turn = asyncio.Lock()
        self._begin(*self._parts())
        self._alerts = self._warnings = 0
        self._study_at = FIRST_STUDY

    @property
    def refused(self) -> dict[str, int]:
        """Readings that were not taken, by reason: `name`, `timestamp`, `value`, `metrics`."""
        return dict(self._intake.refused)

    @property
    def channels(self) -> tuple[str, ...]:
        """What may be named as evidence."""
        return self._panel.channels

    async def push(self, readings: Iterable[Reading]) -> list[Alert]:
        """Take in what can be taken, and tell what it shows, in the order of the readings of each metric.

        Never raises for a reading's sake: what is refused is counted. See `check`.
        """
        given = readings if isinstance(readings, list) else list(readings)
        alerts: list[Alert] = []
        async with self._turn:
            intake, loop = self._intake, asyncio.get_running_loop()
            until = loop.time() + TURN_S
            for start in range(0, len(given), MAX_BATCH):
                for each in intake.take(given[start : start + MAX_BATCH], self._clock.monotonic()):
                    for told in self._judge(each):
                        alerts += told
                        if loop.time() < until:
                            continue
                        await asyncio.sleep(0)
                        if self._intake is not intake:  # restored meanwhile: what is left belongs to no one
                            return alerts
                        until = loop.time() + TURN_S
                await asyncio.sleep(0)
                if self._intake is not intake:
                    return alerts
        self._learn(alerts)
        return alerts

    def check(self, reading: Reading) -> None:
        """Raise ReadingRefused, which says why and what to do, where `push` would refuse this reading now."""
        self._intake.check(reading, self._clock.monotonic())

    async def watch(self, source: Source) -> AsyncIterator[Alert]:
        """What the readings of a source show, until it ends. Raises SourceError where nothing can come of it."""
        async with source:
            async for batch in source.batches():
                for alert in await self.push(batch):
                    yield alert

    def views(self, metrics: str | None = None, *, bands: bool = False) -> list[MetricView]:
        """All metrics, sorted by name, or those that a glob matches. `bands` forecasts each: half a millisecond."""
        named = sorted(self._intake.metrics())
        wanted = [pair for pair in named if metrics is None or fnmatch.fnmatchcase(pair[0], metrics)]
        return [self._view(metric, slot, bands) for metric, slot in wanted]

    def view(self, metric: str, *, band: bool = False) -> MetricView:
        """One metric. Raises InputError for one that has not been seen."""
        return self._view(metric, self._slot(metric), band)

    def history(self, metric: str) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Timestamps and values of the last readings of a metric (1,000 at most), oldest first.

        Values are float32, and rates for a counter; timestamps are to 0.05 % of the time between readings. Raises
        InputError for a metric that has not been seen.
        """
        slot = self._slot(metric)
        return self._intake.times.history(slot), self._panel.buffer.history(slot).astype(np.float64)

    def forecast(self, metric: str, horizon: int) -> Forecast:
        """The next `horizon` (1..1000) values of a metric with a 90 % band. Raises InputError."""
        return self._forecasts.forecast(self._even(self._slot(metric)), horizon)

    async def forecast_arima(self, metric: str, horizon: int) -> ArimaForecast:
        """As `forecast`, by the ARIMA that suits the history best: seconds, in a thread, while readings go on.

        The forecast follows what had been read when the fit began; who asks while it runs shares it. Raises InputError,
        for too short a history too, MissingExtra without statsmodels, and Overloaded.
        """
        return await self._arima.forecast(metric, self._even(self._slot(metric)), horizon)

    def status(self) -> EngineStatus:
        return EngineStatus(
            metrics=len(self._intake),
            readings=self._intake.taken,
            refused=self.refused,
            alerts=self._alerts,
            warnings=self._warnings,
            failed=dict(self._panel.failed),
            learned=self._learning.learned,
            learning_failed=self._learning.failed,
            clock_resets=self._intake.resets,
            state_bytes=self._intake.state_bytes() + self._panel.state_bytes() + self._seen.state_bytes(),
        )

    def snapshot(self) -> bytes:
        """Everything that is known, as bytes: an engine with the same options that restores them goes on alike."""
        told, intake = self._intake.snapshot(self._clock.monotonic())
        header = {
            "channels": list(self.channels),
            "intake": told,
            "warner": self._warner.snapshot(),
            "counts": [self._alerts, self._warnings, self._study_at],
        }
        parts = {"intake": intake, "seen": self._seen.snapshot()}
        parts |= {f"panel {name}": part for name, part in self._panel.snapshot().items()}
        return packed(Snapshot(header, parts))

    def restore(self, data: bytes) -> None:
        """Go on where `snapshot` was taken. Raises StorageError, and stays as it was, where that cannot be.

        What a `push` has not come to yet, which is under way meanwhile, is dropped.
        """
        header, parts = unpacked(data)
        made = intake, panel, seen, warner = self._parts()
        if header.get("channels") != list(panel.channels):
            raise StorageError(f"the snapshot is of the channels {header.get('channels')}, not {list(panel.channels)}")
        try:
            intake.restore(header["intake"], parts["intake"], self._clock.monotonic())
            panel.restore({name.removeprefix("panel "): part for name, part in parts.items()})
            seen.restore(parts["seen"])
            warner.restore(header["warner"])
            alerts, warnings, study_at = (int(count) for count in header["counts"])
        except ChimeraError:
            raise
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            raise StorageError(f"the snapshot cannot be read: {type(error).__name__}: {error}") from error
        if len({intake.places, panel.buffer.metrics, len(seen)}) != 1:
            raise StorageError("the parts of the snapshot are of different numbers of metrics")
        self._begin(*made)
        self._alerts, self._warnings, self._study_at = alerts, warnings, study_at

    async def settled(self) -> None:
        """Wait until nothing is learned in the background any more."""
        await self._learning.settled()

    async def aclose(self) -> None:
        """End background learning, and fits of ARIMA: who waits for one gets an InputError."""
        await self._learning.aclose()
        await self._arima.aclose()

    def _parts(self) -> tuple[Intake, Panel, SlotTable, FailureWarner]:
        """Everything that knows of metrics, knowing none."""
        options = self.options
        further = tuple(dict.fromkeys((*(("forest",) if options.forest else ()), *options.detectors)))
        return (
            Intake(max_metrics=options.max_metrics, idle_s=options.idle_s, counters=options.counters),
            Panel(0, pattern=options.pattern, further=further, cooldown=options.cooldown),
            SlotTable(0, _COLUMNS),
            FailureWarner(self._limits, latest_s=options.warn_ahead_s, every=options.forecast_every),
        )

    def _begin(self, intake: Intake, panel: Panel, seen: SlotTable, warner: FailureWarner) -> None:
        self._intake, self._panel, self._seen, self._warner = intake, panel, seen, warner
        self._learning.teach(panel.students())
        self._arima.forget()

    def _judge(self, each: Round) -> Iterator[Sequence[Alert]]:
        """What a round shows, step by step: between two steps others may have a turn."""
        slots, values, seen = each.slots, each.values, self._seen
        fresh = self._intake.fresh()
        if self._intake.places != len(seen):
            self._panel.resize(self._intake.places)
            seen.resize(self._intake.places)
        if len(fresh):
            self._panel.forget(fresh)
            seen.forget(fresh)
        if not len(slots):
            yield ()
            return
        judgement = self._panel.update(values, slots)
        verdicts = judgement.verdicts
        seen["value"][slots], seen["expected"][slots], seen["score"][slots] = values, verdicts.expected, verdicts.score
        seen["ready"][slots] = verdicts.ready
        alerts = [self._anomaly(each, judgement, number) for number in np.flatnonzero(verdicts.alert).tolist()]
        for slot, alert in zip(slots[verdicts.alert].tolist(), alerts, strict=True):
            seen["kind"][slot], seen["alerted"][slot] = KINDS.index(alert.kind), alert.timestamp
        self._alerts += len(alerts)
        yield alerts
        if self._limits:
            yield from self._failures(each)

    def _anomaly(self, each: Round, judgement: Judgement, number: int) -> AnomalyDetected:
        slot, now, verdicts = int(each.slots[number]), float(each.times[number]), judgement.verdicts
        value, expected = float(verdicts.odd_value[number]), float(verdicts.odd_expected[number])
        peaked, since = (self._back(each, number, int(back[number])) for back in (verdicts.odd_back, verdicts.since))
        return AnomalyDetected(
            metric=self._intake.name(slot),
            timestamp=now,
            value=value,
            kind=AnomalyKind(KINDS[verdicts.kind[number]]),
            score=float(np.nan_to_num(verdicts.score[number])),
            since=min(since, peaked),
            peaked=peaked,
            expected=expected if np.isfinite(expected) else value,
            evidence=tuple(self._panel.evidence(judgement, number, since)),
            escalated=bool(verdicts.escalated[number]),
        )

    def _back(self, each: Round, number: int, readings: int) -> float:
        """When the reading came that is so many before the `number`th of a round."""
        slot = each.slots[number : number + 1]
        kept = min(readings + 1, int(self._panel.buffer.count[slot[0]]))
        return min(float(self._intake.times.last(max(kept, 1), slot)[0, 0]), float(each.times[number]))

    def _failures(self, each: Round) -> Iterator[Sequence[FailurePredicted]]:
        """The warnings about those metrics of a round that have a limit and are due for a forecast, one by one."""
        phase, every = self._seen["phase"], self.options.forecast_every
        for slot in each.slots[phase[each.slots] == _UNKNOWN].tolist():
            name = self._intake.name(slot)
            phase[slot] = zlib.crc32(name.encode()) % every if self._warner.watches(name) else _NO_LIMIT
        phases = phase[each.slots]
        due = (phases >= 0) & ((self._panel.buffer.taken[each.slots] + phases) % every == 0)
        for number in np.flatnonzero(due).tolist():
            slot = int(each.slots[number])
            interval = self._intake.about(slot)["interval"]
            if not interval > 0.0:
                continue
            found = self._forecasts.forecast(self._even(slot), self._warner.horizon(interval))
            self._seen["low"][slot], self._seen["high"][slot] = found.low[0], found.high[0]
            now, value = float(each.times[number]), float(each.values[number])
            warnings = self._warner.learn(self._intake.name(slot), now, value, found, interval)
            self._warnings += len(warnings)
            yield warnings

    def _learn(self, alerts: Sequence[Alert]) -> None:
        """Let students learn again what alerts are about, in the background."""
        slots = [slot for alert in alerts if (slot := self._intake.slot(alert.metric)) is not None]
        self._learning.remember(slots)
        if self._intake.taken >= self._study_at:
            self._study_at = 2 * self._intake.taken
            self._learning.remember_all()
        self._learning.begin()

    def _even(self, slot: int) -> npt.NDArray[np.float64]:
        """The history of a slot with NaN for each reading that did not come."""
        values = self._panel.buffer.history(slot).astype(np.float64)
        interval = self._intake.about(slot)["interval"]
        if not interval > 0.0 or not len(values):
            return values
        times = self._intake.times.history(slot)
        gaps = np.maximum(np.rint(np.diff(times[-len(values) :]) / interval), 1.0)
        places = np.concatenate([[0.0], np.cumsum(np.minimum(gaps, self._panel.buffer.size))]).astype(np.int64)
        first = max(0, int(places[-1]) + 1 - self._panel.buffer.size)
        even = np.full(int(places[-1]) + 1, np.nan)
        even[places] = values
        return even[first:]

    def _slot(self, metric: str) -> int:
        slot = self._intake.slot(metric)
        if slot is None:
            raise InputError(f"no reading of {metric!r} has been taken")
        return slot

    def _view(self, metric: str, slot: int, band: bool) -> MetricView:
        known, seen = self._intake.about(slot), self._seen
        if slot >= len(seen):  # no round has come to it yet
            seen = SlotTable(slot + 1, _COLUMNS)
        low, high = float(seen["low"][slot]), float(seen["high"][slot])
        if band and seen["value"][slot] == seen["value"][slot]:
            found = self._forecasts.forecast(self._even(slot), 1)
            low, high = float(found.low[0]), float(found.high[0])
        kind = int(seen["kind"][slot])
        return MetricView(
            metric=metric,
            timestamp=_known(known["seen"]),
            value=_known(seen["value"][slot]),
            expected=_known(seen["expected"][slot]),
            low=_known(low),
            high=_known(high),
            score=_known(seen["score"][slot]),
            kind=AnomalyKind(KINDS[kind]) if kind >= 0 else None,
            alerted=_known(seen["alerted"][slot]),
            ready=bool(seen["ready"][slot]),
            refused=int(known["refused"]),
            missing=int(known["missing"]),
            interval_s=_known(known["interval"]),
        )


def _known(number: Any) -> float | None:
    return float(number) if np.isfinite(number) else None
