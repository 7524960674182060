"""What a watch does before and beside its shards: its folder, whose a metric is, and what was told as a fact."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from chimera.actors.vitals import Life, Vitals
from chimera.anomaly.sources.source import Readings
from chimera.core.config import Settings
from chimera.core.errors import InputError, StorageError, SwarmError
from chimera.core.watching import AnomalyDetected
from chimera.system.local_watch import LocalWatch
from chimera.system.ray_source import Census, RaySource
from chimera.system.watching import Watch, shard_of
from tests.made_readings import Listed, made_batches


def test_a_metric_has_the_same_shard_everywhere_and_shards_are_alike() -> None:
    assert [shard_of(metric, 8) for metric in ("cpu", 'up{host="a"}', "\ud800", "é")] == [6, 1, 0, 6]
    for shards in range(2, 9):
        counts = np.bincount([shard_of(f'cpu{{host="h{n:04d}"}}', shards) for n in range(8_000)], minlength=shards)
        assert counts.min() > 0.8 * 8_000 / shards
    assert shard_of("x" * 1_000_000, 8) == 0


@pytest.mark.parametrize("options", [{"shards": -1}, {"shards": 257}, {"name": "../up"}, {"snapshot_s": 0.0}])
def test_a_watch_that_cannot_be_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        Watch(**options)


async def test_a_watch_that_was_not_entered_says_so() -> None:
    with pytest.raises(SwarmError, match="async with"):
        await Watch().push(made_batches(1)[0])
    with pytest.raises(SwarmError, match="async with"):
        await Watch().view("cpu")


class Dies(Listed):
    """Eight actors, of which one dies after 300 readings: told as a fact, and seen in three metrics."""

    def __init__(self, facts: bool) -> None:
        lives = [{str(n): Life("Cell", int(n == 3 and t >= 300)) for n in range(8)} for t in range(360)]
        census, batches, self._facts = (
            Census(lambda actors, nodes: False),
            list[Readings](),
            list[list[AnomalyDetected]](),
        )
        for t, each in enumerate(lives):
            restarting = {"3": each.pop("3")} if 300 <= t < 340 else {}
            readings, told = census.count(Vitals(each, restarting, frozenset("n")), 1e6 + t)
            batches.append(readings)
            self._facts.append(told if facts else [])
        super().__init__(batches)

    def facts(self) -> list[AnomalyDetected]:
        return self._facts.pop(0)

    def echoes(self, fact: AnomalyDetected) -> list[str]:
        return RaySource.echoes(self, fact)  # type: ignore[arg-type]


async def test_a_death_that_was_told_is_not_told_again_when_detectors_see_it() -> None:
    told = {}
    for facts in (True, False):
        async with LocalWatch() as watch:
            told[facts] = [alert async for alert in watch.watch(Dies(facts)) if alert.timestamp < 1e6 + 330]
    assert len({alert.metric for alert in told[False]}) == 3
    assert [(alert.metric, alert.timestamp) for alert in told[True]] == [('ray_actors_alive{class="Cell"}', 1e6 + 300)]


def test_what_a_killed_watch_left_without_a_name_is_removed(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    living, named = Watch(settings), Watch(settings, name="kept")
    for watch in (living, named):
        watch._claim()
    left = tmp_path / "watch" / "unnamed-0123456789ab"
    left.mkdir()
    (left / "lock").touch()
    (left / "0-of-1.snapshot").write_bytes(b"old")
    named._lock.close()
    Watch(settings)._claim()
    assert not left.exists() and living._folder.exists() and named._folder.exists()
    with pytest.raises(StorageError, match="another watch"):
        living._claim()
