"""Wiring of training: a table and settings in, a trainer in this process or an actor on Ray, a model out."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from chimera.actors.trainer import MODEL_FILE, Progress, Standing, Trainer, TrainPlan
from chimera.core.config import Settings
from chimera.core.errors import ChimeraError, NotBegun

POLL_S = 20.0

MAX_DEATHS = 5
"""Processes that a training may cost without a checkpoint in between; then it is given up."""

PAUSE_S = 0.5

RESTART_S = 120.0
"""How long a process may be away before it is given up: it loads torch, and its machine may be busy."""

Watcher = Callable[[Progress], None]
"""Is told how a training stands, a few times a second."""


class Line(Protocol):
    """The way to a trainer."""

    async def call(self, method: str, *arguments: Any) -> Any: ...


class Here:
    """To a trainer in this process."""

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer

    async def call(self, method: str, *arguments: Any) -> Any:
        return await getattr(self._trainer, method)(*arguments)


async def train(plan: TrainPlan, watch: Watcher, *, settings: Settings | None = None) -> Path:
    """Train to the end of the plan's steps, or what is left of them in its folder. Returns the model's file.

    With `settings` the trainer is an actor on the head node of the Ray that they name, and is started again whenever
    it dies; the folder and the model are on that machine. Without, it is a thread of this process. Cancelled, it saves
    what there is. Raises InputError, PrivacyError, StorageError, ClusterError.
    """
    if settings is not None:
        from chimera.system.sandbox_on_ray import train_on_ray

        await train_on_ray(plan, watch, settings)
    else:
        trainer = Trainer(named=plan.folder.name)
        try:
            await follow(Here(trainer), plan, watch)
        finally:
            await asyncio.shield(trainer.stop())
    return plan.folder / MODEL_FILE


async def follow(
    line: Line,
    plan: TrainPlan,
    watch: Watcher,
    *,
    lost: tuple[type[BaseException], ...] = (NotBegun,),
    unwrap: Callable[[BaseException], ChimeraError] | None = None,
) -> Progress | None:
    """Have a trainer carry out `plan`, and hand on what it says. One that died, as `lost` tells, is told to go on.

    Raises what ended the training, and what was lost last when processes die over and over.
    """
    run_id, number, deaths = "", 0, 0
    back_by_s = time.monotonic() + RESTART_S
    since: Progress | None = None
    while True:
        try:
            if not run_id:
                beginning = secrets.token_hex(6)
                await line.call("begin", beginning, plan, since)
                run_id, number = beginning, 0
            standing: Standing = await line.call("collect", run_id, number, POLL_S)
        except lost as error:
            if run_id:  # a process that takes its time to start again has died once
                run_id, deaths, back_by_s = "", deaths + 1, time.monotonic() + RESTART_S
            if deaths > MAX_DEATHS or time.monotonic() > back_by_s:
                raise (unwrap(error) if unwrap else error) from None
            await asyncio.sleep(PAUSE_S)
            continue
        except Exception as error:
            raise (unwrap(error) if unwrap else error) from None
        if standing.error:
            raise standing.error
        if standing.progress and standing.number > number:
            if since is not None and standing.progress.saved > since.saved:
                deaths = 0
            number, since = standing.number, standing.progress
            watch(since)
        if standing.ended:
            return since
