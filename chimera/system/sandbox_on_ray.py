"""Training in an actor on Ray, which outlives the death of its process."""

from __future__ import annotations

import asyncio
import secrets

from chimera.actors import cluster
from chimera.actors.line import Line
from chimera.actors.trainer import Progress, Trainer, TrainPlan
from chimera.core.config import Settings
from chimera.core.errors import NotBegun
from chimera.system.sandbox import Watcher, follow

LOST: tuple[type[BaseException], ...] = (NotBegun, *cluster.ACTOR_GONE)
"""What a call raises when the trainer has died."""

STOPPED: tuple[type[BaseException], ...] = (NotBegun, *cluster.CALL_FAILED)

STOP_S = 30.0
"""For a trainer to save what it has when it is stopped."""


async def train_on_ray(
    plan: TrainPlan, watch: Watcher, settings: Settings, *, trainer: type[Trainer] = Trainer
) -> Progress | None:
    """Train in an actor of the class `trainer` on the head node: where it starts again, its folder is.

    Raises what ended the training, ClusterError when its process dies over and over.
    """
    connection = await asyncio.to_thread(cluster.connect, settings)
    try:
        name = f"trainer-{secrets.token_hex(3)}"
        actor = cluster.spawn(trainer, name=name, lasting=False, named=plan.folder.name)
        line, ended = Line(actor), False
        try:
            last = await follow(line, plan, watch, lost=LOST, unwrap=cluster.unwrap)
            ended = True
            return last
        finally:
            if not ended:
                await asyncio.shield(_stopped(line))
            line.close()
            cluster.kill(actor)
    finally:
        await asyncio.to_thread(cluster.disconnect, connection)


async def _stopped(line: Line) -> None:
    try:
        async with asyncio.timeout(STOP_S):
            await line.call("stop")
    except STOPPED:
        return
