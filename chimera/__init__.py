"""Chimera: a swarm of AI agents on Ray that governs itself."""

from typing import TYPE_CHECKING, Any

from chimera.client import SwarmCoordinator
from chimera.core.config import Settings
from chimera.core.errors import ChimeraError, InputError, Overloaded
from chimera.core.events import Event
from chimera.core.types import AgentSpec, Consensus, Decision, Equality, Reply, Task, TaskResult
from chimera.swarm.mission import Mission
from chimera.swarm.policy import Context

if TYPE_CHECKING:
    from chimera.http_client import Client

__all__ = [
    "AgentSpec",
    "ChimeraError",
    "Client",
    "Consensus",
    "Context",
    "Decision",
    "Equality",
    "Event",
    "InputError",
    "Mission",
    "Overloaded",
    "Reply",
    "Settings",
    "SwarmCoordinator",
    "Task",
    "TaskResult",
]


def __getattr__(name: str) -> Any:
    """`Client` when it is first asked for: it needs a package that not everybody has."""
    if name == "Client":
        from chimera.http_client import Client

        return Client
    raise AttributeError(f"module 'chimera' has no attribute {name!r}")
