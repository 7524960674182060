"""The actors as plain objects in one process: handles that answer as Ray's do, with no Ray."""

from __future__ import annotations

import asyncio
from typing import Any

from chimera.actors.cell import Cell
from chimera.actors.coordinator import Coordinator
from chimera.core.config import Settings


class Handle:
    """`handle.method.remote(...)` is a task that calls the object's method."""

    def __init__(self, actor: Any) -> None:
        self.actor = actor

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.actor, name)
        return type("Method", (), {"remote": staticmethod(lambda *args: asyncio.ensure_future(method(*args)))})


def kill(handle: Handle, *, restart: bool = False) -> None:
    """There is no process to end."""


def spawn_cell(name: str, swarm: str, settings: Settings) -> Handle:
    return Handle(Cell(named=name, settings=settings))


def spawn(cls: type, *, name: str, **arguments: Any) -> Handle:
    return Handle(cls(**arguments, spawn_cell=spawn_cell, kill=kill))


def coordinator(**settings: Any) -> Coordinator:
    made = Settings(**{"journal_url": "memory://", **settings})
    return Coordinator(swarm="swarm-test", settings=made, cells=2, spawn=spawn, kill=kill)
