"""Chimera: a swarm of AI agents on Ray that governs itself."""

from chimera.client import SwarmCoordinator
from chimera.core.config import Settings
from chimera.core.errors import ChimeraError, InputError, Overloaded
from chimera.core.events import Event
from chimera.core.types import AgentSpec, Consensus, Decision, Equality, Reply, Task, TaskResult
from chimera.swarm.mission import Mission
from chimera.swarm.policy import Context

__all__ = [
    "AgentSpec",
    "ChimeraError",
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
