"""What the two-phase reload is told, and what it tells: its events and instructions (see `twophase.py`), and what goes
between its coordinator and its actors.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Literal, NamedTuple

from pydantic import Field

from chimera.core.types import Frozen


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

Request = Prepare | Commit | Abort | Drain
"""What an actor is asked."""


class Answer(NamedTuple):
    """What it says. `stranger`: the request is for another process than the one that got it. `agents` are those that
    are of the version that it runs now."""

    kind: Literal["ready", "failed", "running", "drained", "busy", "aborted", "stranger"]
    reason: str = ""
    agents: int = 0


@dataclass(frozen=True)
class Parcel:
    """The source of a version on its way. `back_to` is the older version that this is again, or 0.

    With `lossy` states that cannot go back are what they were when that version was left. `path` is the file that
    tracebacks name.
    """

    code: bytes
    path: str = ""
    back_to: int = 0
    lossy: bool = False

    @cached_property
    def digest(self) -> str:
        return hashlib.sha256(self.code).hexdigest()


Count = Annotated[int, Field(ge=0)]


class Reloaded(Frozen):
    """A module's new version, in use on `actors` of them. Version 1 is the one that was deployed. The policies of
    `agents` there are of this module (null if nothing changed); others keep what they took from it.

    `changed` is false if it was in use already. `settled` is false while some of them have still to take it up: they
    are told until they have. `prepare_ms` went by until all had tried it, `commit_ms` until all ran it.
    """

    module: str
    version: Annotated[int, Field(ge=1)]
    digest: str
    actors: Count
    agents: Count | None = None
    changed: bool = True
    settled: bool = True
    prepare_ms: float = 0.0
    commit_ms: float = 0.0


class ModuleStatus(Frozen):
    """One module over all actors. `behind` of them do not run `version` yet. `kept` are versions to go back to."""

    version: Annotated[int, Field(ge=1)]
    digest: str
    actors: Count
    behind: Count
    preparing: bool
    kept: Count
    last_failure: str = ""


class ReloadStatus(Frozen):
    """All reloads of a swarm, since its coordinator's process began, and where each module stands."""

    reloaded: Count
    rolled_back: Count
    failed: Count
    modules: dict[str, ModuleStatus]
