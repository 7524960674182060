"""Trainers on a real Ray, killed with -9 in the middle of steps: training goes on, and nothing spent is forgotten."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from chimera.actors.trainer import LEDGER_FILE, MODEL_FILE, Progress, Trainer, TrainPlan
from chimera.core.config import Settings
from chimera.sandbox.engine import AdversarialEngine
from chimera.sandbox.model import Model
from chimera.sandbox.privacy.kept import KeptLedger
from chimera.sandbox.privacy.ledger import PrivacyLedger, Release
from chimera.sandbox.schema import Column, Schema, Table
from chimera.sandbox.settings import GanSettings
from chimera.system.sandbox_on_ray import train_on_ray

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(240)]

SCHEMA = Schema(columns=(Column(name="a", low=-3, high=3), Column(name="n", low=0, high=9, step=1)))

MADE = "made"
"""A record of its own beside the training: a line for each step that was made, with the epsilon that was reported."""


class Noting(AdversarialEngine):
    """An engine that notes each step that it makes, and kills its process at those that it is told to."""

    made: Path
    deaths: Path

    def _stepped(self, rows: object) -> object:  # type: ignore[override]
        report = super()._stepped(rows)  # type: ignore[arg-type]
        time.sleep(0.02)  # a network of some size: checkpoints are heard of
        with self.made.open("a") as file:
            file.write(f"{report.epsilon!r}\n")
        count = len(self.made.read_text().split())
        if str(count) in self.deaths.read_text().split():
            os.kill(os.getpid(), signal.SIGKILL)
        return report


class NotingTrainer(Trainer):
    def open(self, plan: TrainPlan) -> AdversarialEngine:
        beside = plan.folder.parent
        Noting.made, Noting.deaths = beside / MADE, beside / "deaths"
        Noting.made.touch()
        return Noting(plan.table, plan.settings, folder=plan.folder)


def table() -> Table:
    rng = np.random.default_rng(0)
    return Table(SCHEMA, SCHEMA.snap(np.column_stack([rng.normal(0, 1, 200), rng.integers(0, 10, 200)])))


def cost(releases: tuple[Release, ...], made: int, delta: float) -> float:
    """What so many steps cost with all else that was released: by RDP, as progress is reported."""
    others = [each for each in releases if each.what != "discriminator"]
    [noisy] = {each.model_copy(update={"steps": 1}) for each in releases if each.what == "discriminator"}
    return PrivacyLedger(delta=delta, releases=[*others, noisy.model_copy(update={"steps": made})]).epsilon("rdp")


async def trained_with(deaths: list[int], steps: int, settings: Settings, folder: Path) -> None:
    gan = GanSettings(epsilon=2.0, delta=1e-4, steps=steps, batch=32, hidden=16, critic_steps=2)
    (folder / "deaths").write_text(" ".join(map(str, deaths)))
    plan = TrainPlan(table=table(), settings=gan, folder=folder / "training", save_every=10)
    heard: list[Progress] = []
    last = await train_on_ray(plan, heard.append, settings, trainer=NotingTrainer)
    noted = [float(line) for line in (folder / MADE).read_text().split()]
    made = len(noted)
    assert made > max(deaths), "each of the deaths was died"
    assert last is not None and last.left == 0

    with KeptLedger(folder / "training" / LEDGER_FILE, delta=gan.delta, budget=gan.epsilon) as ledger:
        releases, epsilon = ledger.releases, ledger.epsilon()
    counted = sum(each.steps for each in releases if each.what == "discriminator")
    assert made <= counted == steps
    assert sum(each.steps for each in releases if each.what == "moments") == 1, "moments are released once"
    assert Model.load(folder / "training" / MODEL_FILE).privacy.epsilon == pytest.approx(epsilon, rel=1e-9)
    assert epsilon <= gan.epsilon
    latest = {epsilon: count for count, epsilon in enumerate(noted, start=1)}
    for epsilon, count in latest.items():  # the last step at which as much was said to be spent
        assert epsilon >= min(gan.epsilon, cost(releases, count, gan.delta)) - 1e-9
    assert [progress.epsilon for progress in heard] == sorted(progress.epsilon for progress in heard)
    assert [progress.spent for progress in heard] == sorted(progress.spent for progress in heard)
    assert last.epsilon >= max(noted)


async def test_a_trainer_killed_at_random_steps_goes_on_and_forgets_nothing(
    local_ray: Settings, tmp_path: Path
) -> None:
    rng = np.random.default_rng()
    deaths = sorted({int(low + rng.integers(1, 30)) for low in (0, 40, 80)})
    await trained_with(deaths, 300, local_ray, tmp_path)


@pytest.mark.soak
@pytest.mark.timeout(900)
async def test_a_trainer_killed_twenty_times_goes_on_and_forgets_nothing(local_ray: Settings, tmp_path: Path) -> None:
    rng = np.random.default_rng()
    deaths = sorted({int(30 * life + rng.integers(1, 25)) for life in range(20)})
    await trained_with(deaths, 2_000, local_ray, tmp_path)


async def test_a_trainer_that_is_stopped_saves_and_leaves_nobody_behind(local_ray: Settings, tmp_path: Path) -> None:
    gan = GanSettings(epsilon=float("inf"), steps=1_000_000, batch=32, hidden=16)
    plan = TrainPlan(table=table(), settings=gan, folder=tmp_path / "training")
    begun = asyncio.Event()
    training = asyncio.create_task(train_on_ray(plan, lambda told: begun.set() if told.step else None, local_ray))
    await begun.wait()
    training.cancel()
    with pytest.raises(asyncio.CancelledError):
        await training
    assert Model.load(tmp_path / "training" / MODEL_FILE).privacy.epsilon == float("inf")
    with KeptLedger(tmp_path / "training" / LEDGER_FILE, delta=gan.delta):
        pass  # nobody else has it
