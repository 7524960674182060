"""What the two-phase reload is told, and what it tells: its events and instructions. See `twophase.py`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Propose:
    """Somebody wants the source with this digest everywhere. The answer is a `Finish` with the number it was given."""

    digest: str


@dataclass(frozen=True)
class Joined:
    """An actor is here, in this life, and runs this version; 0 is the code that it was deployed with."""

    actor: str
    life: int
    running: int


@dataclass(frozen=True)
class Ready:
    actor: str
    life: int
    version: int


@dataclass(frozen=True)
class Failed:
    """It could not prepare this version; or, if that is the committed one, not take it up."""

    actor: str
    life: int
    version: int
    reason: str


@dataclass(frozen=True)
class Running:
    """It has switched to this version."""

    actor: str
    life: int
    version: int


@dataclass(frozen=True)
class Drained:
    """No call on an older version is left."""

    actor: str
    life: int
    version: int


@dataclass(frozen=True)
class Died:
    """This life has ended, for good."""

    actor: str
    life: int


@dataclass(frozen=True)
class Tick:
    """Time has passed."""


Event = Propose | Joined | Ready | Failed | Running | Drained | Died | Tick


@dataclass(frozen=True)
class Record:
    """For the journal. `TwoPhase.recover` reads them."""

    kind: Literal["proposed", "committed"]
    version: int
    digest: str


@dataclass(frozen=True)
class Prepare:
    actor: str
    version: int
    digest: str


@dataclass(frozen=True)
class Commit:
    """Switch to this version; load it first if it has not been prepared."""

    actor: str
    version: int
    digest: str


@dataclass(frozen=True)
class Abort:
    """Give up what was prepared of this version."""

    actor: str
    version: int


@dataclass(frozen=True)
class Drain:
    """Wait for the calls on versions older than this one, and say `Drained`."""

    actor: str
    version: int


@dataclass(frozen=True)
class Restart:
    """It cannot take up what was committed, or runs what was not: end its process. It joins again and catches up."""

    actor: str
    reason: str


@dataclass(frozen=True)
class Finish:
    """The answer to `Propose`, once for each. `version` is 0 for one that was refused at once."""

    version: int
    committed: bool
    reason: str = ""


@dataclass(frozen=True)
class Settled:
    """Every living actor runs this version, and nobody is left on an older one."""

    version: int


@dataclass(frozen=True)
class WakeAt:
    """Send a `Tick` at this time. The newest counts."""

    at: float


Instruction = Record | Prepare | Commit | Abort | Drain | Restart | Finish | Settled | WakeAt
