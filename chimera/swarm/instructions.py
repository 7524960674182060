"""What happens to a mission, and what its brain wants done: the whole vocabulary between brain and shell."""

from __future__ import annotations

from dataclasses import dataclass

from chimera.core.events import Event
from chimera.core.types import TaskResult
from chimera.swarm.attempt import Attempt, Report


@dataclass(frozen=True, slots=True)
class Started:
    """The mission was admitted."""


@dataclass(frozen=True, slots=True)
class Reported:
    """An attempt ended."""

    report: Report


@dataclass(frozen=True, slots=True)
class Tick:
    """Time passed. Sent at the moment that the last `WakeAt` named, or later."""


Happening = Started | Reported | Tick


@dataclass(frozen=True, slots=True)
class Record:
    """Append this event to the journal before performing what follows."""

    event: Event


@dataclass(frozen=True, slots=True)
class Dispatch:
    """Send these attempts to agents."""

    attempts: tuple[Attempt, ...]


@dataclass(frozen=True, slots=True)
class Cancel:
    """Stop these attempts: nobody waits for them any more."""

    attempt_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class WakeAt:
    """Send a Tick when the clock (the one of `now`) reaches `at_s`."""

    at_s: float


@dataclass(frozen=True, slots=True)
class Finish:
    """The mission has ended with this result."""

    result: TaskResult


Instruction = Record | Dispatch | Cancel | WakeAt | Finish
