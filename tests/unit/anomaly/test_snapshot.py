"""A watch that is stored in the middle and restored elsewhere tells what it would have told."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chimera.anomaly.engine import AnomalyDetectionEngine
from chimera.anomaly.forecast.warning import parse_limit
from chimera.anomaly.options import WatchOptions
from chimera.anomaly.snapshot import MAGIC, Snapshot, packed, unpacked
from chimera.core.clock import ManualClock
from chimera.core.errors import StorageError
from chimera.core.watching import Alert, Reading
from tests.unit.anomaly.watching import STEP_S, fed

NAMES = ["load", "jobs_total", "disk", "flat"]

POINTS = 560


def engine(start_s: float = 0.0) -> AnomalyDetectionEngine:
    options = WatchOptions(detectors=("moving_average",), learn_every_s=86_400.0, forecast_every=5)
    return AnomalyDetectionEngine(options=options, limits=[parse_limit("disk=55")], clock=ManualClock(start_s))


def stream(seed: int) -> list[list[Reading]]:
    """A gauge with spikes and a shift, a counter that resets, one on its way to a limit, a constant; gaps."""
    rng = np.random.default_rng(seed)
    load = rng.normal(size=POINTS)
    load[rng.integers(300, POINTS - 20, 3)] += 20.0
    load[500:] -= 7.0
    jobs = np.cumsum(rng.poisson(50, POINTS)).astype(float)
    jobs[400:] -= jobs[399]
    jobs[480:] += np.cumsum(rng.poisson(900, POINTS - 480))
    disk = 10.0 + rng.normal(size=POINTS) * 0.3 + np.maximum(np.arange(POINTS) - 250, 0) * 0.18
    given_stream = []
    for number in range(POINTS):
        time = 1e6 + STEP_S * number
        values = (load[number], jobs[number], disk[number], 4.0)
        batch = [Reading(name, time, float(value)) for name, value in zip(NAMES, values, strict=True)]
        batch = [reading for reading in batch if rng.random() > 0.02]
        if rng.random() < 0.05:
            batch.append(Reading("load", time - 5 * STEP_S, 0.0))
        if rng.random() < 0.05:
            batch.append(Reading("flat", time + 1.0, float("nan")))
        given_stream.append(batch)
    return given_stream


@settings(max_examples=4)
@given(st.integers(100, 10_000), st.integers(0, POINTS))
def test_a_restored_watch_tells_what_it_would_have_told(seed: int, cut: int) -> None:
    async def both() -> tuple[list[Alert], list[Alert]]:
        readings = stream(seed)
        whole, first, second = engine(), engine(50.0), engine(7_000.0)
        expected = await fed(whole, readings)
        told = await fed(first, readings[:cut])
        second.restore(first.snapshot())
        told += await fed(second, readings[cut:])
        for name in NAMES:
            assert second.view(name) == whole.view(name)
            for part, other in zip(second.history(name), whole.history(name), strict=True):
                np.testing.assert_array_equal(part, other)
        assert second.status().model_copy(update={"learned": 0}) == whole.status().model_copy(update={"learned": 0})
        assert unpacked(second.snapshot()).header == unpacked(whole.snapshot()).header | {
            "intake": unpacked(second.snapshot()).header["intake"]
        }
        return expected, told

    expected, told = asyncio.run(both())
    assert {alert.metric for alert in expected} >= {"load", "disk"}
    assert told == expected


async def test_a_forest_is_restored_with_its_trees() -> None:
    options = WatchOptions(forest=True)
    first, second = (AnomalyDetectionEngine(options=options, clock=ManualClock()) for _ in range(2))
    readings = stream(100)
    await fed(first, readings[:400])
    await first.settled()
    second.restore(first.snapshot())
    assert second.snapshot() == first.snapshot()
    await first.aclose()
    assert first.status().learned > 0


async def some() -> AnomalyDetectionEngine:
    made = engine()
    await fed(made, stream(100)[:60])
    return made


async def test_damage_anywhere_is_found_and_nothing_is_lost() -> None:
    made = await some()
    data = made.snapshot()
    before = made.snapshot()
    rng = np.random.default_rng(100)
    bad = [b"", b"chimwt", data[:40], data[:-1], data + b"x", b"PK" + data, b"\x80\x04N."]
    places = [*range(48), *rng.integers(48, len(data), 40).tolist()]
    for damaged in [*bad, *(data[:place] + bytes([data[place] ^ 0x10]) + data[place + 1 :] for place in places)]:
        with pytest.raises(StorageError):
            made.restore(damaged)
    assert made.snapshot() == before


async def test_a_snapshot_that_is_whole_but_wrong_is_refused_and_nothing_is_lost() -> None:
    made = await some()
    before = made.snapshot()
    header, parts = unpacked(before)
    names = header["intake"]["names"]
    wrong = [
        Snapshot({}, parts),
        Snapshot(header | {"channels": ["other"]}, parts),
        Snapshot(header | {"intake": {}}, parts),
        Snapshot(header | {"intake": header["intake"] | {"names": [*names[1:], names[1]]}}, parts),
        Snapshot(header | {"counts": "abc"}, parts),
        Snapshot(header | {"warner": [["disk"]]}, parts),
        Snapshot(header, {}),
        *(Snapshot(header, {name: part for name, part in parts.items() if name != gone}) for gone in parts),
    ]
    for gone in parts:
        first = next(iter(parts[gone]))
        short = {name: array[:1] if name == first else array for name, array in parts[gone].items()}
        wrong.append(Snapshot(header, parts | {gone: short}))
    for snapshot in wrong:
        with pytest.raises(StorageError):
            made.restore(packed(snapshot))
    assert made.snapshot() == before


async def test_a_snapshot_of_other_channels_is_refused() -> None:
    made = await some()
    with pytest.raises(StorageError, match="of the channels"):
        AnomalyDetectionEngine().restore(made.snapshot())


def test_another_version_is_named() -> None:
    with pytest.raises(StorageError, match="version 0002"):
        unpacked(MAGIC[:6] + b"\x00\x02" + packed(Snapshot({}, {}))[8:])


def test_nothing_is_unpickled() -> None:
    file = io.BytesIO()
    header = np.frombuffer(json.dumps({}).encode(), np.uint8)
    np.savez(file, header=header, **{"intake/seen": np.array([None], dtype=object)})
    body = file.getvalue()
    with pytest.raises(StorageError, match="cannot be read"):
        unpacked(MAGIC + hashlib.sha256(body).digest() + body)
