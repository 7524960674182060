"""The trainer without Ray: what it says, what it keeps, and what comes of it when its process dies."""

from __future__ import annotations

import asyncio
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from chimera.actors.trainer import (
    CHECKPOINT_FILE,
    LEDGER_FILE,
    MODEL_FILE,
    Progress,
    Trainer,
    TrainPlan,
    read_history,
)
from chimera.core.errors import InputError, NotBegun, StorageError
from chimera.sandbox.engine import RESERVED, AdversarialEngine
from chimera.sandbox.model import Model
from chimera.sandbox.schema import Column, Schema, Table
from chimera.sandbox.settings import GanSettings
from chimera.system import sandbox
from chimera.system.sandbox import Here, follow, train

SCHEMA = Schema(columns=(Column(name="a", low=-3, high=3), Column(name="n", low=0, high=9, step=1)))

SETTINGS = GanSettings(epsilon=2.0, delta=1e-4, steps=60, batch=32, hidden=16, critic_steps=2)


def table(n: int = 200, seed: int = 0) -> Table:
    rng = np.random.default_rng(seed)
    return Table(SCHEMA, SCHEMA.snap(np.column_stack([rng.normal(0, 1, n), rng.integers(0, 10, n)])))


def plan(folder: Path, **changes: Any) -> TrainPlan:
    return TrainPlan(table=table(), settings=SETTINGS.model_copy(update=changes), folder=folder, save_every=10)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


async def ended(trainer: Trainer, run_id: str) -> Any:
    number = 0
    while True:
        standing = await trainer.collect(run_id, number, 5.0)
        number = standing.number
        if standing.ended:
            return standing


async def test_a_training_reaches_its_end_and_says_what_it_cost(tmp_path: Path) -> None:
    heard: list[Progress] = []
    path = await train(plan(tmp_path / "new"), heard.append)
    assert path == tmp_path / "new" / MODEL_FILE
    model = Model.load(path)
    assert (heard[0].step, heard[0].left) == (0, SETTINGS.steps)
    assert (heard[-1].step, heard[-1].left, heard[-1].saved) == (SETTINGS.steps, 0, SETTINGS.steps)
    assert [each.epsilon for each in heard] == sorted(each.epsilon for each in heard)
    assert 0.9 * SETTINGS.epsilon < model.privacy.epsilon <= heard[-1].epsilon <= SETTINGS.epsilon
    history = read_history(path.parent)
    assert [each.spent for each in history] == sorted(each.spent for each in history)
    assert history[-1].spent == SETTINGS.steps
    assert path.parent.stat().st_mode & 0o777 == 0o700


async def test_training_again_on_what_is_done_makes_no_step(tmp_path: Path) -> None:
    await train(plan(tmp_path / "new"), lambda _: None)
    ledger = (tmp_path / "new" / LEDGER_FILE).read_bytes()
    heard: list[Progress] = []
    await train(plan(tmp_path / "new"), heard.append)
    assert {each.left for each in heard} == {0}
    assert (tmp_path / "new" / LEDGER_FILE).read_bytes() == ledger


async def test_a_training_that_is_cancelled_is_saved_and_goes_on(tmp_path: Path) -> None:
    there = plan(tmp_path / "new", steps=50_000, epsilon=math.inf)
    begun = asyncio.Event()

    def watch(progress: Progress) -> None:
        if progress.step:
            begun.set()

    training = asyncio.create_task(train(there, watch))
    await begun.wait()
    training.cancel()
    with pytest.raises(asyncio.CancelledError):
        await training
    assert (tmp_path / "new" / MODEL_FILE).exists()
    trainer = Trainer(named="again")
    await trainer.begin("r", there)
    first = await trainer.collect("r", 0, 30.0)
    await trainer.stop()
    assert first.progress is not None and first.progress.step > 0
    assert first.progress.spent - first.progress.step <= RESERVED


async def test_beginning_twice_changes_nothing_and_a_stranger_is_told(tmp_path: Path) -> None:
    trainer = Trainer(named="test")
    with pytest.raises(NotBegun):
        await trainer.collect("r", 0, 0.0)
    await trainer.begin("r", plan(tmp_path / "new"))
    await trainer.begin("r", plan(tmp_path / "other"))
    assert (await ended(trainer, "r")).error is None
    assert not (tmp_path / "other").exists()
    with pytest.raises(NotBegun):
        await trainer.collect("s", 0, 0.0)


class Dying(Here):
    """To a trainer whose process dies at each of these calls; what it had not saved is lost, as after kill -9."""

    def __init__(self, *at: int) -> None:
        super().__init__(Trainer(named="first"))
        self._at, self._calls, self.lives = at, 0, 1

    async def call(self, method: str, *arguments: Any) -> Any:
        self._calls += 1
        if self._calls in self._at:
            await self._trainer.stop()
            self._trainer = Trainer(named="next")
            self.lives += 1
        return await super().call(method, *arguments)


async def test_one_that_dies_is_told_to_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "PAUSE_S", 0.0)
    line, heard = Dying(3, 5), list[Progress]()
    last = await follow(line, plan(tmp_path / "new"), heard.append)
    assert line.lives == 3
    assert last is not None and last.left == 0 and last.spent == SETTINGS.steps
    assert [each.spent for each in heard] == sorted(each.spent for each in heard)


async def test_one_that_dies_over_and_over_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "PAUSE_S", 0.0)
    line = Dying(*range(2, 1_000, 2))
    with pytest.raises(NotBegun):
        await follow(line, plan(tmp_path / "new", steps=100_000, epsilon=math.inf), lambda _: None)
    assert line.lives <= sandbox.MAX_DEATHS + 2


async def test_a_folder_that_does_not_know_what_was_spent_is_refused(tmp_path: Path) -> None:
    """As where an actor is started again on a machine with another disk."""
    since = Progress(step=40, spent=40, left=20, epsilon=1.0, delta=1e-4, saved=40)
    trainer = Trainer(named="test")
    await trainer.begin("empty", plan(tmp_path / "empty"), since)
    standing = await ended(trainer, "empty")
    assert isinstance(standing.error, StorageError) and "another machine" in str(standing.error)
    assert not (tmp_path / "empty" / LEDGER_FILE).exists()
    AdversarialEngine(table(), SETTINGS, folder=tmp_path / "old").close()
    await trainer.begin("old", plan(tmp_path / "old"), since)
    standing = await ended(trainer, "old")
    assert isinstance(standing.error, StorageError) and "does not know" in str(standing.error)


@pytest.mark.parametrize(("change", "what"), [({"batch": 31}, "other settings"), ({"epsilon": 3.0}, "a budget of 2")])
async def test_a_folder_of_another_training_is_refused(tmp_path: Path, change: dict[str, Any], what: str) -> None:
    await train(plan(tmp_path / "new"), lambda _: None)
    with pytest.raises(InputError, match=what):
        await train(plan(tmp_path / "new", **change), lambda _: None)


def test_a_folder_with_other_things_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    tmp_path.chmod(0o755)
    with pytest.raises(InputError, match="holds other things"):
        asyncio.run(train(plan(tmp_path), lambda _: None))
    assert [each.name for each in tmp_path.iterdir()] == ["thesis.txt"]
    assert tmp_path.stat().st_mode & 0o777 == 0o755


async def test_a_damaged_checkpoint_is_told(tmp_path: Path) -> None:
    await train(plan(tmp_path / "new"), lambda _: None)
    (tmp_path / "new" / CHECKPOINT_FILE).write_bytes(b"PK")
    with pytest.raises(StorageError, match="cannot be read"):
        await train(plan(tmp_path / "new"), lambda _: None)
