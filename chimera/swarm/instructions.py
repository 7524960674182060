"""What happens to a mission, and what its brain wants done: the whole vocabulary between brain and shell."""

from __future__ import annotations

from dataclasses import dataclass

from chimera.core.events import Event
from chimera.core.types import TaskResult
from chimera.swarm.attempt import Appraisal, Attempt, Report
from chimera.swarm.held import HeldTask, Review


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


@dataclass(frozen=True, slots=True)
class Cancelled:
    """Somebody who may do so cancelled the mission, and said why."""

    why: str


@dataclass(frozen=True, slots=True)
class Resumed:
    """Another swarm has taken the mission over: its time begins anew, and what was in progress is done again."""

    swarm: str


@dataclass(frozen=True, slots=True)
class Reviewed:
    """A person has answered what a task was held for. Of a task that is not held it changes nothing."""

    task_id: str
    review: Review


Happening = Started | Reported | Tick | Cancelled | Resumed | Reviewed


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
class Appraise:
    """Let these agents' reputations know."""

    appraisals: tuple[Appraisal, ...]


@dataclass(frozen=True, slots=True)
class Ask:
    """Have a person look at what this task is held for. Asked again, it is the same question."""

    held: HeldTask


@dataclass(frozen=True, slots=True)
class WakeAt:
    """Send a Tick when the clock (the one of `now`) reaches `at_s`."""

    at_s: float


@dataclass(frozen=True, slots=True)
class Finish:
    """The mission has ended with this result."""

    result: TaskResult


Instruction = Record | Dispatch | Cancel | Appraise | Ask | WakeAt | Finish
