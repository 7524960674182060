"""A detector shard and its stream without Ray: what is told, what is known, and what comes of it when it dies."""

from __future__ import annotations

import asyncio
import pickle
import random
from array import array
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ray.exceptions import ActorDiedError

from chimera.actors.detector import Columns, DetectorShard, History, Pushed
from chimera.anomaly.engine import AnomalyDetectionEngine
from chimera.anomaly.options import WatchOptions
from chimera.anomaly.sources.source import Readings
from chimera.core.errors import ClusterError, NotBegun, SourceError, StorageError
from chimera.core.watching import Alert, AnomalyDetected, AnomalyKind
from chimera.system import shard_stream
from chimera.system.local_watch import LocalWatch
from chimera.system.shard_stream import ShardStream, SnapshotFile
from tests.made_readings import Listed, in_order, made_batches

OPTIONS = WatchOptions(pattern=False)

BATCHES = made_batches()


def columns(readings: Readings) -> Columns:
    metrics, timestamps, values = zip(*readings, strict=True)
    return Columns(list(metrics), array("d", timestamps), array("d", values))


class Dying:
    """A shard as a stream reaches it. Its process ends before or after it has carried out these calls, by number."""

    def __init__(self, *, before: Collection[int] = (), after: Collection[int] = ()) -> None:
        self.calls = 0
        self.lives = 0
        self.asked: list[str] = []
        self.silent = asyncio.Event()
        self.silent.set()
        self._before, self._after = before, after
        self.revive()

    def revive(self) -> None:
        self.shard = DetectorShard(named="test", options=OPTIONS)
        self.lives += 1
        self.silent.set()

    async def call(self, method: str, *arguments: Any) -> Any:
        self.calls += 1
        number = self.calls
        self.asked.append(method)
        if number in self._before:
            self._die()
        await self.silent.wait()
        answer = await getattr(self.shard, method)(*pickle.loads(pickle.dumps(arguments)))
        if number in self._after:
            self._die()
        return pickle.loads(pickle.dumps(answer))

    def _die(self) -> None:
        self.revive()
        raise ActorDiedError


def stream(shard: Dying, folder: Path, **options: Any) -> ShardStream:
    file = SnapshotFile(folder / "test.snapshot")
    return ShardStream("test", shard.call, shard.revive, file, **{"snapshot_s": 3_600.0, **options})


async def told_by(sent: ShardStream, batches: list[Readings]) -> list[Alert]:
    alerts: list[Alert] = []
    for answer in [await sent.put(columns(batch)) for batch in batches]:
        alerts += await answer
    return alerts


@pytest.fixture(scope="module")
def undisturbed() -> tuple[list[Alert], History]:
    """What an engine says that nothing happens to, and the history of the first metric."""

    async def watched() -> tuple[list[Alert], History]:
        engine, alerts = AnomalyDetectionEngine(options=OPTIONS), list[Alert]()
        for batch in BATCHES:
            alerts += await engine.push(batch)
        return alerts, engine.history(BATCHES[0][0].metric)

    alerts, history = asyncio.run(watched())
    assert len(alerts) >= 2 and len(history[0]) == 300
    return alerts, history


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_stream, "PAUSE_S", 0.0)
    monkeypatch.setattr(shard_stream, "SHARE", 0.0)


@pytest.mark.parametrize("seed", range(8))
async def test_a_shard_that_dies_anywhere_forgets_nothing_and_says_nothing_twice(
    seed: int, tmp_path: Path, undisturbed: tuple[list[Alert], History]
) -> None:
    rng = random.Random(seed)
    deaths = rng.sample(range(2, 90), shard_stream.MAX_DEATHS)
    shard = Dying(before=deaths[:4], after=deaths[4:])
    sent = stream(shard, tmp_path, max_kept=rng.choice([60, 150, 100_000]))
    await sent.open()
    alerts = await told_by(sent, BATCHES)
    timestamps, values = await sent.call("history", BATCHES[0][0].metric)
    await sent.close(keep=False)
    assert shard.lives > 3 and sent.counts.deaths == shard.lives - 1 and sent.counts.lost == 0
    assert alerts == undisturbed[0]
    np.testing.assert_array_equal(timestamps, undisturbed[1][0])
    np.testing.assert_array_equal(values, undisturbed[1][1])


async def test_snapshots_bound_what_is_kept_and_sent_again(tmp_path: Path) -> None:
    shard = Dying()
    sent = stream(shard, tmp_path, max_kept=120)  # four batches
    await sent.open()
    await told_by(sent, BATCHES[:12])
    snapshots = sent.counts.snapshots
    assert snapshots >= 3
    shard.revive()
    shard.asked.clear()
    await sent.call("status")
    assert shard.asked.count("begin") >= 1 and shard.asked.count("push") <= 4
    await sent.close(keep=False)


async def test_a_snapshot_is_made_when_time_has_passed_also_when_nothing_comes(tmp_path: Path) -> None:
    sent = stream(Dying(), tmp_path, snapshot_s=0.05)
    await sent.open()
    await told_by(sent, BATCHES[:1])
    async with asyncio.timeout(20):
        while sent.counts.snapshots < 1:  # noqa: ASYNC110 # the code under test has nothing to wait for
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.3)
    assert sent.counts.snapshots == 1, "where there is no news there is no snapshot"
    await sent.close(keep=False)


async def test_the_next_stream_goes_on_where_the_last_one_was_closed(
    tmp_path: Path, undisturbed: tuple[list[Alert], History]
) -> None:
    alerts: list[Alert] = []
    for part in (BATCHES[:17], BATCHES[17:]):
        sent = stream(Dying(), tmp_path)
        await sent.open()
        alerts += await told_by(sent, part)
        history = await sent.call("history", BATCHES[0][0].metric)
        await sent.close(keep=True)
    assert alerts == undisturbed[0]
    np.testing.assert_array_equal(history, undisturbed[1])


async def test_without_a_disk_the_watch_goes_on_and_counts_what_a_death_then_costs(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("no folder")
    shard = Dying()
    sent = stream(shard, tmp_path / "file", max_kept=120)
    await sent.open()
    await told_by(sent, BATCHES[:12])
    assert sent.counts.snapshots == 0 and sent.counts.snapshots_failed > 0 and sent.counts.lost == 0
    shard.revive()
    (tmp_path / "file").unlink()
    timestamps, _ = await sent.call("history", BATCHES[0][0].metric)
    assert 0 < sent.counts.lost < 360
    assert len(timestamps) == (360 - sent.counts.lost) / 3
    assert list(timestamps)[-1] == BATCHES[11][-1].timestamp
    await sent.close(keep=False)


async def test_a_damaged_snapshot_costs_what_it_held_and_no_more(tmp_path: Path) -> None:
    shard = Dying()
    sent = stream(shard, tmp_path, max_kept=120)
    await sent.open()
    await told_by(sent, BATCHES[:10])
    assert sent.counts.snapshots
    file = tmp_path / "test.snapshot"
    file.write_bytes(file.read_bytes()[:-7] + b"garbage")
    shard.revive()
    (tail,) = (await told_by(sent, BATCHES[10:11]),)
    timestamps, _ = await sent.call("history", BATCHES[0][0].metric)
    assert tail == [] and 10 <= len(timestamps) < 110
    assert list(timestamps)[-1] == BATCHES[10][-1].timestamp
    await sent.close(keep=False)


async def test_a_shard_that_does_not_answer_is_waited_for_and_no_more_is_taken_in(tmp_path: Path) -> None:
    shard = Dying()
    sent = stream(shard, tmp_path)
    await sent.open()
    shard.silent.clear()
    for batch in BATCHES[: shard_stream.MAX_WAITING]:
        await sent.put(columns(batch))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await sent.put(columns(BATCHES[20]))
    shard.silent.set()
    await (await sent.put(columns(BATCHES[shard_stream.MAX_WAITING])))
    assert sent.waiting == 0
    await sent.close(keep=False)


async def test_a_shard_that_hangs_is_started_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_stream, "ANSWER_S", 0.5)
    shard = Dying()
    sent = stream(shard, tmp_path)
    await sent.open()
    await told_by(sent, BATCHES[:3])
    shard.silent.clear()
    await told_by(sent, BATCHES[3:4])
    timestamps, _ = await sent.call("history", BATCHES[0][0].metric)
    assert shard.lives == 2 and len(timestamps) == 40
    await sent.close(keep=False)


async def test_a_shard_that_works_on_a_large_batch_does_not_hang(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shard_stream, "ANSWER_S", 0.2)
    monkeypatch.setattr(shard_stream, "READING_S", 1.0, raising=False)
    shard = Dying()
    sent = stream(shard, tmp_path)
    await sent.open()
    shard.silent.clear()
    asyncio.get_running_loop().call_later(0.6, shard.silent.set)
    await told_by(sent, BATCHES[:1])
    assert shard.lives == 1
    await sent.close(keep=False)


async def test_a_shard_that_always_hangs_ends_the_watch_and_it_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shard_stream, "ANSWER_S", 0.02)
    shard = Dying()

    async def hangs(method: str, *arguments: Any) -> Any:
        await asyncio.sleep(5.0 if method == "views" else 0.0)
        return await shard.call(method, *arguments)

    sent = ShardStream("x", hangs, shard.revive, SnapshotFile(tmp_path / "x.snapshot"), snapshot_s=9.0)
    await sent.open()
    with pytest.raises(ClusterError, match="x was lost 9 times over one views: it did not answer in time"):
        await sent.call("views", None, False)
    await sent.close(keep=False)


async def test_what_the_last_snapshot_holds_has_been_told(
    tmp_path: Path, undisturbed: tuple[list[Alert], History]
) -> None:
    shard, answered = Dying(), asyncio.Event()

    async def slow(method: str, *arguments: Any) -> Any:
        answer = await shard.call(method, *arguments)
        if method == "push" and answer.alerts:
            answered.set()
            await asyncio.sleep(0.1)
        return answer

    sent = ShardStream("x", slow, shard.revive, SnapshotFile(tmp_path / "test.snapshot"), snapshot_s=3_600.0)
    await sent.open()
    answers = []
    for batch in BATCHES:
        answers.append(await sent.put(columns(batch)))
        await asyncio.sleep(0.01)
        if answered.is_set():
            break
    await sent.close(keep=True)
    alerts = [alert for answer in answers if not answer.exception() for alert in answer.result()]
    assert alerts, "the batch that the shard had judged is told before the end"
    again = stream(Dying(), tmp_path)
    await again.open()
    left = [answer for answer in answers if answer.exception()]
    alerts += await told_by(again, BATCHES[len(answers) - len(left) :])
    assert alerts == undisturbed[0]
    await again.close(keep=False)


async def test_a_shard_that_dies_over_and_over_ends_the_watch(tmp_path: Path) -> None:
    sent = stream(Dying(before=range(6, 1_000)), tmp_path)
    await sent.open()
    with pytest.raises(ClusterError):
        await told_by(sent, BATCHES[:8])
    with pytest.raises(ClusterError):
        await sent.put(columns(BATCHES[9]))
    await sent.close(keep=True)


async def test_after_the_end_whoever_waits_is_told(tmp_path: Path) -> None:
    shard = Dying()
    sent = stream(shard, tmp_path)
    await sent.open()
    shard.silent.clear()
    answer = await sent.put(columns(BATCHES[0]))
    await asyncio.sleep(0.01)
    await sent.close(keep=False)
    with pytest.raises(ClusterError, match="ended"):
        await answer


async def test_a_batch_is_taken_once_and_in_its_turn() -> None:
    shard = DetectorShard(named="test", options=OPTIONS)
    with pytest.raises(NotBegun):
        await shard.push(1, columns(BATCHES[0]))
    with pytest.raises(NotBegun):
        await shard.views(None, False)
    await shard.begin(4, b"")
    with pytest.raises(NotBegun, match="batch 4"):
        await shard.push(6, columns(BATCHES[0]))
    first = await shard.push(5, columns(BATCHES[0]))
    assert first == Pushed(5, ()) == await shard.push(5, columns(BATCHES[0]))
    status = await shard.status()
    assert (status.readings, status.refused) == (30, {})
    kept = await shard.snapshot()
    assert kept.taken == 5
    with pytest.raises(StorageError):
        await shard.begin(5, kept.state[:-1])
    await shard.begin(0, b"")
    assert await shard.views(None, False) == []
    await shard.begin(kept.taken, kept.state)
    assert len(await shard.views("load*", False)) == 3
    await shard.close()


async def test_a_write_that_fails_leaves_the_last_snapshot(tmp_path: Path) -> None:
    file = SnapshotFile(tmp_path / "a.snapshot")
    assert await file.read() == b""
    await file.write(b"first")
    (tmp_path / "a.draft").mkdir()
    with pytest.raises(StorageError):
        await file.write(b"second")
    assert await file.read() == b"first"


class Knowing(Listed):
    """A source that knows more than its readings: the same two facts with its last batch."""

    def __init__(self, batches: list[Readings], facts: list[AnomalyDetected]) -> None:
        super().__init__(batches)
        self._facts = facts
        self._asked = 0

    def facts(self) -> list[AnomalyDetected]:
        self._asked += 1
        return self._facts if self._asked == 1 else []

    def echoes(self, fact: AnomalyDetected) -> list[str]:
        return [fact.metric]


def fact(metric: str, timestamp: float) -> AnomalyDetected:
    return AnomalyDetected(
        metric=metric, timestamp=timestamp, value=1.0, kind=AnomalyKind.DROP, score=9.0, since=timestamp, expected=2.0
    )


async def test_facts_are_told_with_what_is_learned_and_nothing_is_told_twice(
    undisturbed: tuple[list[Alert], History],
) -> None:
    seen: list[Alert] = []
    learned = in_order(undisturbed[0])
    facts = [fact("actors", 1_000.0), fact(learned[0].metric, learned[0].timestamp)]
    async with LocalWatch(options=OPTIONS) as watch:
        watch.on_alert(lambda _: 1 / 0)  # type: ignore[arg-type,return-value]
        watch.on_alert(seen.append)
        source = Knowing(BATCHES, facts)
        told = [alert async for alert in watch.watch(source)]
    assert told == seen and source.left
    assert told[:2] == facts
    assert in_order(told[2:]) == learned[1:]


async def test_what_ends_a_source_is_raised_after_what_it_brought() -> None:
    alerts: list[Alert] = []
    async with LocalWatch(options=OPTIONS) as watch:
        watch.on_alert(alerts.append)
        with pytest.raises(SourceError, match="away"):
            _ = [alert async for alert in watch.watch(Listed(BATCHES, fault=SourceError("it went away")))]
        assert len(alerts) >= 2
        assert (await watch.status()).engine.readings == 900
        assert len(await watch.views()) == 3
