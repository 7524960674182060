"""The agents of a cell, and what becomes of them when the code of their policies changes.

An agent is its policy's object. With a new version of the module that the object's class is of, it becomes an object of
the new class with the same state: the very same, or what the module's `migrate(state, old_version)` makes of a copy.
The first may happen while the agent is at work, since old and new code then share what they change; the second must
wait until it is idle, or what it does meanwhile would be lost.
"""

from __future__ import annotations

import copy
import inspect
import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from chimera.core.errors import ReloadError
from chimera.reload.held import migrated, moved_back
from chimera.reload.versions import ModuleVersion
from chimera.swarm.policy import Policy, Seat

log = logging.getLogger(__name__)

COPIES = 20
"""How often the state of an agent at work is copied before it counts as never at rest."""


@dataclass(slots=True, eq=False)
class Resident:
    """An agent that lives here. `busy` counts its attempts in hand; `due` are changes that wait until there are none,
    and `later` is what waits for those."""

    seat: Seat
    policy: Policy
    busy: int = 0
    due: list[Change] = field(default_factory=list)
    later: list[Callable[[], None]] = field(default_factory=list)
    left: dict[str, Any] | None = None
    """The state in which it left the version before, if that was migrated."""


@dataclass(frozen=True)
class Change:
    """From `leaving` (version `old`) to `coming`. `back_to` is set if that is an older version again.

    `lossy` gives agents back the state in which they left that version, or makes them anew.
    """

    leaving: ModuleType | None
    old: ModuleVersion | None
    coming: ModuleType
    new: ModuleVersion
    back_to: ModuleVersion | None = None
    lossy: bool = False

    @property
    def name(self) -> str:
        return self.new.module

    @property
    def converts(self) -> bool:
        """Whether states are made anew, and not shared."""
        if self.leaving is None:
            return False
        if self.back_to is None:
            return "migrate" in vars(self.coming)
        return not vars(self.leaving).keys().isdisjoint(("migrate", "migrate_back"))

    def state_of(self, resident: Resident, state: dict[str, Any]) -> dict[str, Any] | None:
        """What `state` becomes; None for an agent that begins anew. Raises ReloadError."""
        if self.leaving is None or self.old is None:
            return state
        if self.back_to is None:
            return _a_dict(migrated(self.coming, state, self.old), self.coming)
        if self.lossy:
            return resident.left if self.converts else state
        return _a_dict(moved_back(self.leaving, state, self.back_to), self.leaving)


class Residents:
    """Agents by id. All of it is used in the cell's own event loop, but for `try_out`."""

    def __init__(self) -> None:
        self._all: dict[str, Resident] = {}
        self.begun_anew = 0
        """Agents whose state could not be taken over after all, and was lost."""

    def __len__(self) -> int:
        return len(self._all)

    def get(self, agent_id: str) -> Resident | None:
        return self._all.get(agent_id)

    def add(self, seat: Seat, policy: Policy) -> None:
        self._all[seat.agent_id] = Resident(seat, policy)

    def remove(self, agent_ids: Iterable[str]) -> None:
        for agent_id in agent_ids:
            if resident := self._all.pop(agent_id, None):
                _call(resident.later)

    def clear(self) -> None:
        self.remove(list(self._all))

    def try_out(self, change: Change) -> None:
        """Whether every agent could change, tried on copies of their states. From any thread. Raises ReloadError."""
        for resident in self._of(change.name):
            state = _copied(resident)
            for due in list(resident.due):
                state = due.state_of(resident, state) if state is not None else None
            _renewed(resident, change, state)

    def switch(self, change: Change) -> None:
        """Agents go over to the new version: at once, or those at work whose state is to be migrated, after it."""
        made: dict[int, Policy] = {}
        for resident in self._of(change.name):
            if _is_of(resident, change):
                continue  # it came when the version was in use already
            if resident.busy and (change.converts or resident.due):
                resident.due.append(change)
            elif id(resident.policy) in made:
                resident.policy = made[id(resident.policy)]
            else:
                before = id(resident.policy)
                self._change(resident, change)
                made[before] = resident.policy

    def ended(self, resident: Resident) -> None:
        """One of its attempts is over. If it was due to change, it changes now, and what waited for that begins."""
        resident.busy -= 1
        if resident.due and not resident.busy:
            changes, resident.due = resident.due, []
            for change in changes:
                self._change(resident, change)
            _call(resident.later)

    def due(self, module: str) -> int:
        """How many of its agents are still on an older version."""
        return sum(bool(resident.due) for resident in self._of(module))

    def _change(self, resident: Resident, change: Change) -> None:
        state = _state(resident.policy)
        try:
            policy = _renewed(resident, change, state)
        except ReloadError as error:
            # Everybody else runs the new version by now: it begins anew, as after a crash of its cell.
            log.error("agent %s loses its state: %s", resident.seat.agent_id, error)
            self.begun_anew += 1
            policy = _anew(resident, change)
        resident.left = state if change.converts and change.back_to is None else None
        resident.policy = policy

    def _of(self, module: str) -> Iterator[Resident]:
        return (resident for resident in list(self._all.values()) if home_of(resident.policy) == module)


def home_of(policy: Policy) -> str:
    """The module whose code a policy is."""
    return str(getattr(policy if inspect.isroutine(policy) else type(policy), "__module__", ""))


def _renewed(resident: Resident, change: Change, state: dict[str, Any] | None) -> Policy:
    """The agent's policy in the new version, with that state. Raises ReloadError, whatever went wrong."""
    target = _found(resident, change)
    try:
        if not inspect.isclass(target):
            if state is not None and _state(target) is not None:
                _give(target, change.state_of(resident, state))
            unchanging: Policy = target
            return unchanging
        kept = change.state_of(resident, state) if state is not None else None
        if kept is None:
            return _made(target, resident)
        made: Any = target.__new__(target)
        _give(made, kept)
        same: Policy = made
        return same
    except ReloadError:
        raise
    except Exception as error:
        what = f"{change.name}.{getattr(target, '__qualname__', '?')}"
        raise ReloadError(f"{what} cannot be made for agent {resident.seat.agent_id}: {error!r:.300}") from error


def _anew(resident: Resident, change: Change) -> Policy:
    """One that cannot even be made anew stays what it was."""
    try:
        target = _found(resident, change)
        policy: Policy = _made(target, resident) if inspect.isclass(target) else target
        return policy
    except Exception:
        log.exception("agent %s stays with the version before", resident.seat.agent_id)
        return resident.policy


def _made(target: Any, resident: Resident) -> Policy:
    policy: Policy = target(**resident.seat.options)
    return policy


def _is_of(resident: Resident, change: Change) -> bool:
    kind = resident.policy if inspect.isroutine(resident.policy) else type(resident.policy)
    found: Any = change.coming
    for part in str(getattr(kind, "__qualname__", "")).split("."):
        found = getattr(found, part, None)
    return found is kind


def _found(resident: Resident, change: Change) -> Any:
    """What the agent's policy is called in the new version. Raises ReloadError where it is not there any more."""
    seat, policy = resident.seat, resident.policy
    module, _, path = seat.policy.partition(":")
    if seat.pickled or module != change.name:
        path = policy.__qualname__ if inspect.isroutine(policy) else type(policy).__qualname__
    target: Any = change.coming
    for part in path.split("."):
        target = getattr(target, part, None)
    if not callable(target):
        raise ReloadError(f"{change.name} has no {path}, which agent {seat.agent_id} is: keep it, or end that agent")
    return target


def _state(policy: Policy) -> dict[str, Any] | None:
    """None for what keeps none of its own: a function, an object of slots."""
    if inspect.isroutine(policy):
        return None
    found = getattr(policy, "__dict__", None)
    return found if isinstance(found, dict) else None


def _give(policy: Policy, state: dict[str, Any] | None) -> None:
    if state is not None:
        object.__setattr__(policy, "__dict__", state)


def _copied(resident: Resident) -> dict[str, Any] | None:
    """A deep copy of its state, which others may be changing meanwhile. Raises ReloadError."""
    state = _state(resident.policy)
    error: Exception | None = None
    for _ in range(COPIES):
        try:
            return copy.deepcopy(state)
        except RuntimeError as changed:
            error = changed
        except Exception as failed:
            error = failed
            break
    raise ReloadError(f"the state of agent {resident.seat.agent_id} cannot be copied: {error!r:.300}") from error


def _a_dict(state: Any, module: ModuleType) -> dict[str, Any]:
    if not isinstance(state, dict):
        raise ReloadError(f"migrate() of {module.__name__} gave a {type(state).__name__}: give back the state, a dict")
    return state


def _call(later: list[Callable[[], None]]) -> None:
    waiting, later[:] = list(later), []
    for begin in waiting:
        begin()
